"""`make bench-engines`: what the path from socket to model costs, and what batching gains.

- `generate_vs_direct`: 32 streams through gateway and engine against the same continuous batching driven in process.
- `embed_vs_single`: 32 callers of an engine that batches their sentences against one that computes each alone. What
  both answer to a request of 32 sentences is compared with transformers run directly.

The load test's worker sends; its own start is in no figure.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from tests.builders.engine import generate_args
from tests.builders.up import Up, key_of, keys, model, pool, tenant

from benchmarks.loading import Sent, at_once, by_callers, send
from benchmarks.measuring import cpu_s, finish, machine, markdown, median
from benchmarks.models import SPACE, VOCABULARY, fastest_dtype, make_llama, make_sentence_model, random_tokenizer

STREAMS = CALLERS = 32
WORDS = (6, 20)
"""Of a sentence; each word is one token."""
TOLERANCE = 1e-4
GATEWAY = "cotenant_serving.gateway"
KEY = key_of("search")
PROMPT_TOKENS = 32
CONTEXT_TOKENS = 256
GIB = 2**30


@dataclass(frozen=True)
class Took:
    """One round of one side."""

    units: int
    wall_s: float
    cpu_s: float

    @property
    def per_wall_s(self) -> float:
        return self.units / self.wall_s

    @property
    def per_cpu_s(self) -> float:
        return self.units / self.cpu_s


class Direct:
    """`benchmarks.direct` in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._answer()

    def round(self, order: Mapping[str, Any]) -> Took:
        took, _ = self.work(order)
        return took

    def work(self, order: Mapping[str, Any]) -> tuple[Took, dict[str, Any]]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        return Took(answer["units"], answer["wall_s"], answer["cpu_s"]), answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the direct process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def direct(kind: str, args: msgspec.Struct, folder: Path) -> Iterator[Direct]:
    path = folder / f"{kind}.json"
    path.write_bytes(msgspec.json.encode(args))
    command = [sys.executable, "-m", "benchmarks.direct", kind, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Direct(process)
    finally:
        process.kill()
        process.wait()


@contextmanager
def serving(folder: Path, *models: Mapping[str, Any]) -> Iterator[Up]:
    folder.mkdir()
    up = Up(folder, *map(dict, models), tenant("search"), keys("search"), pool())
    up.start()
    try:
        yield up
    finally:
        up.stop()


class Meter:
    """What a round through the gateway takes. The CPU is the gateway's and the engine's, without the client's.

    The time is from the first request to the last answer. The CPU has also what both use while the client starts.
    """

    def __init__(self, up: Up, name: str) -> None:
        gateways = [process.pid for process in up.processes() if GATEWAY in process.cmdline()]
        self._pids = [up.engine(f"search/{name}").pid, *gateways]
        self._cpu = cpu_s(self._pids)

    def took(self, units: int, sent: Sent) -> Took:
        return Took(units, sent.wall_s, cpu_s(self._pids) - self._cpu)


def generate_round(up: Up, order: Mapping[str, Any]) -> Took:
    plan = at_once("llama", order["prompts"], order["max_tokens"])
    meter = Meter(up, "llama")
    sent = send(up.url, KEY, plan, up.folder)
    return meter.took(sent.completion_tokens, sent)


def embed_round(up: Up, name: str, texts: Sequence[str]) -> tuple[Took, list[list[float]]]:
    """What all the sentences took, and the vectors of the first CALLERS of them, asked for together afterwards."""
    plan = by_callers(name, texts, CALLERS)
    meter = Meter(up, name)
    sent = send(up.url, KEY, plan, up.folder)
    return meter.took(sent.requests, sent), vectors(up, name, texts[:CALLERS])


def vectors(up: Up, name: str, texts: Sequence[str]) -> list[list[float]]:
    body = json.dumps({"model": name, "input": list(texts)}).encode()
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(f"{up.url}/v1/embeddings", body, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return [item["embedding"] for item in json.loads(response.read())["data"]]


def bench_generate(folder: Path, rounds: int, max_tokens: int) -> dict[str, float]:
    """Rounds of both sides by turns, the same prompts in both. Prints its table; returns its ratios."""
    dtype = fastest_dtype()
    parameters = make_llama(folder / "llama", dtype)
    rng = random.Random(0)
    engine = {"contextTokens": CONTEXT_TOKENS, "concurrency": STREAMS}
    deployment = model(
        "llama", model=f"file://{folder / 'llama'}", gpu={"memory": "4Gi"}, engine=engine, replicas={"min": 1}
    )
    args = generate_args(folder / "llama", slots=STREAMS, context_tokens=CONTEXT_TOKENS, kv_cache_bytes=2 * GIB)
    sides: dict[str, list[Took]] = {"in process": [], "served": []}
    with serving(folder / "up", deployment) as up, direct("generate", args, folder) as yardstick:
        up.wait_for("search/llama", "ready")
        for number in range(rounds + 1):
            prompts = [[rng.randrange(256, VOCABULARY) for _ in range(PROMPT_TOKENS)] for _ in range(STREAMS)]
            order = {"round": number, "prompts": prompts, "max_tokens": max_tokens if number else 8}
            took = {"in process": yardstick.round(order), "served": generate_round(up, order)}
            assert took["served"].units == took["in process"].units == STREAMS * order["max_tokens"]
            if number:  # the first one only wakes and warms up
                for side, result in took.items():
                    sides[side].append(result)
                    print(f"round {number}: {side}: {result.per_wall_s:.1f} tokens/s", file=sys.stderr, flush=True)
    title = f"{STREAMS} streams of {max_tokens} tokens, {parameters / 1e6:.0f} million parameters, {dtype}"
    return compare("generate", title, "tokens", sides, "in process", "served", "generate_vs_direct")


def bench_embed(folder: Path, rounds: int, sentences: int) -> dict[str, float]:
    """As `bench_generate`. Raises RuntimeError when what is served differs from transformers' own answers."""
    source = folder / "sentences"
    parameters = make_sentence_model(source)
    rng, words = (
        random.Random(1),
        [word[1:] for word in random_tokenizer(0).get_vocab() if word[1:] and word[0] == SPACE],
    )
    deployments = [
        model(
            name,
            model=f"file://{source}",
            task="embed",
            gpu={"memory": "2500Mi"},
            engine={"concurrency": CALLERS, "maxBatch": batch},
            replicas={"min": 1},
        )
        for name, batch in (("single", 1), ("batched", 32))
    ]
    args = msgspec.structs.replace(generate_args(source), kv_cache_bytes=0)
    sides: dict[str, list[Took]] = {"in process, one by one": [], "served, one by one": [], "served, batched": []}
    worst = 0.0
    with serving(folder / "up-embed", *deployments) as up, direct("embed", args, folder) as yardstick:
        for name in ("single", "batched"):
            up.wait_for(f"search/{name}", "ready")
        for number in range(rounds + 1):
            texts = [" ".join(rng.choices(words, k=rng.randint(*WORDS))) for _ in range(sentences)]
            alone, answer = yardstick.work({"texts": texts})
            single, single_vectors = embed_round(up, "single", texts)
            batched, batched_vectors = embed_round(up, "batched", texts)
            wanted = answer["vectors"][:CALLERS]
            worst = max(worst, *(difference(wanted, other) for other in (single_vectors, batched_vectors)))
            if worst > TOLERANCE:
                raise RuntimeError(f"served vectors differ from transformers' own by {worst:.1e}")
            if number:
                for side, took in zip(sides, (alone, single, batched), strict=True):
                    sides[side].append(took)
                print(f"round {number}: batched {batched.per_wall_s:.0f} sentences/s", file=sys.stderr, flush=True)
    title = (
        f"{CALLERS} callers, {sentences} sentences of {WORDS[0]} to {WORDS[1]} words a round, "
        f"{parameters / 1e6:.0f} million parameters; vectors differ from transformers' own by {worst:.1e} at most"
    )
    return compare("embed", title, "sentences", sides, "served, one by one", "served, batched", "embed_vs_single")


def difference(wanted: Sequence[Sequence[float]], given: Sequence[Sequence[float]]) -> float:
    """The largest of any number of any vector."""
    return max(abs(a - b) for one, other in zip(wanted, given, strict=True) for a, b in zip(one, other, strict=True))


def compare(
    name: str, title: str, unit: str, sides: Mapping[str, list[Took]], base: str, other: str, ratio: str
) -> dict[str, float]:
    """Prints the medians of both sides. The ratios are the median over the rounds, each of neighbouring turns."""
    rows = [
        [
            side,
            f"{median(took.per_wall_s for took in rounds):.1f}",
            f"{median(took.per_cpu_s for took in rounds):.1f}",
            f"{1000 * median(took.cpu_s / took.units for took in rounds):.2f}",
        ]
        for side, rounds in sides.items()
    ]
    print(f"\n**{name}**: {title}, {len(sides[base])} rounds\n")
    print(markdown(["", f"{unit} / s", f"{unit} / CPU s", f"CPU ms / {unit.rstrip('s')}"], rows))
    pairs = list(zip(sides[base], sides[other], strict=True))
    return {
        ratio: median(b.per_cpu_s / a.per_cpu_s for a, b in pairs),
        f"{ratio}_wall": median(b.per_wall_s / a.per_wall_s for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--sentences", type=int, default=512, help="of each round")
    parser.add_argument("--only", choices=["generate", "embed"])
    arguments = parser.parse_args()
    print(f"Machine: {machine()}")
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="cotenant-bench-") as folder:
        if arguments.only in (None, "generate"):
            ratios |= bench_generate(Path(folder), arguments.rounds, arguments.tokens)
        if arguments.only in (None, "embed"):
            ratios |= bench_embed(Path(folder), arguments.rounds, arguments.sentences)
    print()
    finish(ratios)


if __name__ == "__main__":
    main()
