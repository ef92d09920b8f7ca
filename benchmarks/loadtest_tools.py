"""The three load generators of `bench-loadtest`, each a whole program pinned to one core, with the same requests.

cotenant's harness is its command line with a scenario; GuideLLM and locust run in environments of their own, which
`make peers` makes. GuideLLM has one worker process: more of them on one core only make each later.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.answered import Answered, Window, window_of
from benchmarks.watching import Watch, pinned, run_pinned

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".peers"
MODEL = "reference"
PROMPTS = [f"{number} is the number of a prompt that has a few words more than it needs" for number in range(64)]
"""Few, so that the server has rendered its answers ahead."""
GENERATOR_CORE, SERVER_CORE = 0, 1
WARMUP_S = 2.0


@dataclass(frozen=True)
class Server:
    """The reference server, pinned to SERVER_CORE."""

    url: str
    ttft_ms: float
    watch: Watch


@dataclass(frozen=True)
class Load:
    """What is asked for: chat completions of so many tokens."""

    tokens: int
    streamed: bool
    step_s: float
    """Of each step, the warm-up included."""


@dataclass(frozen=True)
class Step:
    """What a generator did at one rate, or with so many users."""

    asked: float
    window: Window
    cpu_s: float
    """CPU of the generator in the window, all its processes."""
    server_share: float
    """CPU of the server in the window, of one core."""
    rss_bytes: int = 0

    @property
    def chunk_us(self) -> float:
        return 1e6 * self.cpu_s / self.window.tokens

    @property
    def request_us(self) -> float:
        return 1e6 * self.cpu_s / self.window.requests


@contextmanager
def reference_server(folder: Path, *, ttft_ms: float, itl_ms: float) -> Iterator[Server]:
    behaviour = json.dumps({"ttft_ms": ttft_ms, "itl_ms": itl_ms})
    log = folder / "server.log"
    command = [sys.executable, "-m", "tests.builders.reference_server", "--port", "0", "--behaviour", behaviour]
    with pinned(command, SERVER_CORE, log) as (process, watch):
        while not (said := log.read_text().strip()):
            if process.poll() is not None:
                raise RuntimeError("the reference server did not start")
            watch.wait_for_a_sample()
        yield Server(f"http://127.0.0.1:{int(said)}", ttft_ms, watch)


def step_of(asked: float, window: Window, watch: Watch, server: Server) -> Step:
    cpu_s = watch.cpu_s(window.from_s, window.to_s)
    server_share = server.watch.cpu_s(window.from_s, window.to_s) / (window.to_s - window.from_s)
    return Step(asked, window, cpu_s, server_share, watch.rss_bytes)


# cotenant


def harness(server: Server, load: Load, rate_per_s: float, folder: Path, *, processes: int = 1) -> Step:
    """One run of `cotenant loadtest run` and what it took."""
    results, watch = run_harness(server, load, rate_per_s, folder, processes=processes)
    return step_of(rate_per_s, window_of_results(results), watch, server)


def run_harness(
    server: Server, load: Load, rate_per_s: float, folder: Path, *, processes: int = 1
) -> tuple[dict[str, Any], Watch]:
    """Its results.json. Raises RuntimeError with its output when it wrote none, or when a request failed."""
    prompts = folder / "prompts.jsonl"
    write_lines(prompts, [{"prompt": prompt, "output_tokens": load.tokens} for prompt in PROMPTS])
    path, out, log = folder / "scenario.yaml", folder / "out", folder / "harness.log"
    path.write_text(yaml.safe_dump(scenario(server.url, load, rate_per_s, processes)))
    command = [sys.executable, "-m", "cotenant_operator", "loadtest", "run", str(path), "--out", str(out)]
    watch = run_pinned(command, GENERATOR_CORE, log, env={}, timeout_s=120 + load.step_s)
    try:
        results: dict[str, Any] = json.loads((out / "results.json").read_text())
    except FileNotFoundError:
        raise RuntimeError(f"the harness: {log.read_text()[-2000:]}") from None
    if results["total"]["failed"]:
        raise RuntimeError(f"the harness counts {results['total']['errors']}")
    return results, watch


def scenario(url: str, load: Load, rate_per_s: float, processes: int) -> dict[str, Any]:
    return {
        "name": "bench",
        "target": {"url": url},
        "duration_s": load.step_s,
        "warmup_s": WARMUP_S,
        "processes": processes,
        "limits": {"rate_per_s": 20_000, "connections": 10_000, "requests": 2_000_000},
        "streams": [
            {
                "name": "chat",
                "tenant": "search",
                "model": MODEL,
                "arrivals": {"process": "constant", "rate_per_s": rate_per_s},
                "prompt": {"file": "prompts.jsonl"},
                "output": {"tokens": load.tokens},
                "streamed": load.streamed,
                "deadline_s": 60,
            }
        ],
    }


def window_of_results(results: Mapping[str, Any]) -> Window:
    total = results["total"]
    started_s = datetime.fromisoformat(results["started"]).timestamp()
    from_s, to_s = started_s + results["window_from_s"], started_s + results["window_to_s"]
    return Window(
        from_s,
        to_s,
        requests=total["succeeded"],
        tokens=total["completion_tokens_per_s"] * (to_s - from_s),
        lateness_p99_ms=results["validity"]["lateness_ms"]["p99"],
        ttft_p99_ms=total["ttft_ms"]["p99"],
    )


# GuideLLM


def guidellm(server: Server, load: Load, rates_per_s: Sequence[float], folder: Path) -> list[Step]:
    """One run of GuideLLM, a step for each rate."""
    benchmarks, watch = run_guidellm(server, load, rates_per_s, folder)
    windows = [window_of(guidellm_answers(one), WARMUP_S, server.ttft_ms) for one in benchmarks]
    return [step_of(rate, window, watch, server) for rate, window in zip(rates_per_s, windows, strict=True)]


def run_guidellm(
    server: Server, load: Load, rates_per_s: Sequence[float], folder: Path
) -> tuple[list[dict[str, Any]], Watch]:
    """`benchmarks` of its JSON, one for each rate. Raises RuntimeError with its output when it wrote none."""
    program = peer("guidellm")
    data, out, config = folder / "guidellm.jsonl", folder / "guidellm.json", folder / "guidellm-config.json"
    count = round(2 * sum(rates_per_s) * load.step_s)
    lines = [{"prompt": PROMPTS[n % len(PROMPTS)], "output_tokens_count": load.tokens} for n in range(count)]
    write_lines(data, lines)
    config.write_text(json.dumps({"spec": guidellm_spec(server.url, load, rates_per_s, data, out)}))
    env = {"GUIDELLM__MAX_WORKER_PROCESSES": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [program, "run", "--config", str(config), "--disable-console"]
    timeout_s = 120 + len(rates_per_s) * (30 + load.step_s)
    watch = run_pinned(command, GENERATOR_CORE, folder / "guidellm.log", env=env, timeout_s=timeout_s)
    if not out.exists():
        raise RuntimeError(f"GuideLLM: {(folder / 'guidellm.log').read_text()[-2000:]}")
    benchmarks: list[dict[str, Any]] = json.loads(out.read_text())["benchmarks"]
    return benchmarks, watch


def guidellm_spec(url: str, load: Load, rates_per_s: Sequence[float], data: Path, out: Path) -> dict[str, Any]:
    return {
        "backend": {
            "kind": "openai_http",
            "target": url,
            "model": MODEL,
            "request_format": "/v1/chat/completions",
            "stream": load.streamed,
        },
        "profile": {"kind": "constant", "rate": list(rates_per_s)},
        "constraints": [{"kind": "max_duration", "seconds": load.step_s}],
        "data": [{"kind": "json_file", "path": str(data)}],
        "outputs": [{"kind": "json", "path": str(out)}],
    }


def guidellm_answers(benchmark: Mapping[str, Any]) -> list[Answered]:
    """Of its JSON. Raises RuntimeError when a request failed; those cut off at the end of the step are left out."""
    if failed := benchmark["requests"]["errored"]:
        raise RuntimeError(f"GuideLLM counts {len(failed)} errors")
    answers = []
    for request in benchmark["requests"]["successful"]:
        at = request["info"]["timings"]
        first_s = at["first_token_iteration"] or at["request_end"]
        last_s = at["last_token_iteration"] or at["request_end"]
        answers.append(Answered(at["targeted_start"], at["request_start"], first_s, last_s, request["output_tokens"]))
    return answers


# locust


def locust(server: Server, load: Load, users: int, folder: Path) -> Step:
    """One run of locust with so many users, spawned within a second."""
    out = folder / "locust.json"
    env = {
        "BENCH_OUT": str(out),
        "BENCH_STREAMED": str(int(load.streamed)),
        "BENCH_MODEL": MODEL,
        "BENCH_TOKENS": str(load.tokens),
        "BENCH_PROMPT": PROMPTS[0],
    }
    command = [peer("locust"), "--locustfile", str(ROOT / "benchmarks" / "peers" / "locust_users.py"), "--headless"]
    command += ["--only-summary", "--loglevel", "ERROR", "--host", server.url, "--stop-timeout", "10"]
    command += ["--users", str(users), "--spawn-rate", str(users), "--run-time", f"{load.step_s:.0f}s"]
    watch = run_pinned(command, GENERATOR_CORE, folder / "locust.log", env=env, timeout_s=60 + load.step_s)
    if not out.exists():
        raise RuntimeError(f"locust: {(folder / 'locust.log').read_text()[-2000:]}")
    written = json.loads(out.read_text())
    if written["failures"]:
        raise RuntimeError(f"locust counts {written['failures']} failures")
    answers = [Answered(None, *answer) for answer in written["answers"]]
    return step_of(users, window_of(answers, WARMUP_S, server.ttft_ms), watch, server)


def peer(name: str) -> str:
    """The program's path. Raises RuntimeError: not installed."""
    path = PEERS / name / "bin" / name
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"{name} is not in {PEERS}; run: make peers PEERS={name}")
    return str(path)


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
