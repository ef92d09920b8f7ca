"""`make bench-gateway`: CPU time that a proxy takes for a request and for an event of a stream.

Sides, all started as their users start them, all in front of the same engine process (`gateway_backend`):

- cotenant: the supervisor and its workers with the default configuration. A key, all three limits, slots, journal,
  usage lines, metrics, counts shared by the workers. The ratios are of 2 workers.
- vllm-router, with its cheapest policy; and once more, as control: its ratio to itself is what chance does.
- LiteLLM's proxy, one worker, a master key, no database.
- Ray Serve: its default HTTP proxy and an app that forwards. Its Ray is idle for the others, and what that takes is
  measured and subtracted, for Ray only.

All of a side's processes have core 0; the load test's own generator and the engine share core 1. Two kinds of load:

- unary: 32 callers, each asks again when it is answered; a body of 1 KB, an answer of 0.5 KB.
- chunk: 64 callers of streams of 100 events, one each 4 ms.

Every answer is checked word by word, and at the end the gateway must have written one usage line for each request.
The sides take turns in each round. CPU is user and system time of all processes of a side, divided by requests or
events; ratios are of one round, the median over the rounds.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gateway_sides import (
    CONTROL,
    KEY,
    LITELLM,
    LOAD_CORE,
    ONE,
    RAY,
    ROUTER,
    TWO,
    Side,
    backend,
    peers_folder,
    start,
)
from benchmarks.loading import chats_by_callers, send
from benchmarks.measuring import finish, machine, markdown, median

CALLERS, STREAMS = 32, 64
PROMPT_TOKENS, WORDS, EVENTS = 150, 48, 100
"""Of a body, about 1 KB; of a whole answer, about 0.5 KB with its usage; of a stream."""
IDLE_S = 3.0
HEADLINE = TWO


@dataclass(frozen=True)
class Amount:
    """How much a side is asked in each round; slow ones are asked less."""

    requests: int
    streams: int


PYTHON_PROXY = Amount(requests=256, streams=64)
RAY_PROXY = Amount(requests=1000, streams=64)
FULL, QUICK = Amount(requests=16_000, streams=512), Amount(requests=6000, streams=256)


@dataclass(frozen=True)
class Took:
    """CPU microseconds of one side in one round."""

    unary_us: float
    chunk_us: float


Rounds = Sequence[Mapping[str, Took]]


def amount_of(name: str, usual: Amount) -> Amount:
    return {LITELLM: PYTHON_PROXY, RAY: RAY_PROXY}.get(name, usual)


def measure(side: Side, amount: Amount, folder: Path, idle_share: float) -> Took:
    """One round of one side. `idle_share`: CPU that it takes when nobody asks, of one core; is subtracted."""
    unary = cpu_us(side, amount.requests, CALLERS, folder, idle_share, streamed=False)
    chunk = cpu_us(side, amount.streams, STREAMS, folder, idle_share, streamed=True)
    print(f"{side.name}: {unary:.1f} µs a request, {chunk:.2f} µs an event", file=sys.stderr, flush=True)
    return Took(unary, chunk)


def cpu_us(side: Side, requests: int, callers: int, folder: Path, idle_share: float, *, streamed: bool) -> float:
    """For each request, or for each event where they are streamed."""
    plan = chats_by_callers(
        side.model,
        requests,
        callers,
        prompt_tokens=PROMPT_TOKENS,
        max_tokens=EVENTS if streamed else WORDS,
        streamed=streamed,
    )
    began_s, before_s = time.monotonic(), side.cpu_s()
    sent = send(side.url, KEY, plan, folder)
    idle_s = idle_share * (time.monotonic() - began_s)
    return 1e6 * (side.cpu_s() - before_s - idle_s) / (sent.completion_tokens if streamed else sent.requests)


def idle_shares(sides: Iterable[Side]) -> dict[str, float]:
    """CPU that each takes when nobody asks, of one core."""
    before = [(side, side.cpu_s()) for side in sides]
    time.sleep(IDLE_S)
    return {side.name: (side.cpu_s() - cpu_s) / IDLE_S for side, cpu_s in before}


def run_round(
    number: int, sides: Mapping[str, Side], usual: Amount, folder: Path, idle: Mapping[str, float]
) -> Mapping[str, Took]:
    """Every second round goes backwards, so that no side is always the first."""
    order = list(sides.values())
    return {
        side.name: measure(side, amount_of(side.name, usual), folder, idle[RAY] if side.name == RAY else 0.0)
        for side in (reversed(order) if number % 2 else order)
    }


def ratio(rounds: Rounds, one: str, other: str, part: Callable[[Took], float]) -> tuple[float, float, float]:
    """Median, least and most over the rounds. Pure."""
    found = [part(each[one]) / part(each[other]) for each in rounds]
    return median(found), min(found), max(found)


def unary(took: Took) -> float:
    return took.unary_us


def chunk(took: Took) -> float:
    return took.chunk_us


RATIOS: Mapping[str, tuple[str, str, Callable[[Took], float]]] = {
    "unary_vs_vllm_router": (HEADLINE, ROUTER, unary),
    "chunk_vs_vllm_router": (HEADLINE, ROUTER, chunk),
    "unary_vs_litellm": (HEADLINE, LITELLM, unary),
    "chunk_vs_litellm": (HEADLINE, LITELLM, chunk),
    "unary_vs_ray_serve": (HEADLINE, RAY, unary),
    "chunk_vs_ray_serve": (HEADLINE, RAY, chunk),
    "unary_one_worker_vs_vllm_router": (ONE, ROUTER, unary),
    "chunk_one_worker_vs_vllm_router": (ONE, ROUTER, chunk),
    "unary_control": (CONTROL, ROUTER, unary),
    "chunk_control": (CONTROL, ROUTER, chunk),
}


def ratios(rounds: Rounds) -> dict[str, tuple[float, float, float]]:
    """Of those whose sides both ran. Pure."""
    return {
        name: ratio(rounds, one, other, part)
        for name, (one, other, part) in RATIOS.items()
        if one in rounds[0] and other in rounds[0]
    }


def tables(rounds: Rounds, idle: Mapping[str, float], memory: Mapping[str, tuple[int, int]]) -> str:
    costs = [
        [
            name,
            f"{median(each[name].unary_us for each in rounds):,.1f}",
            f"{median(each[name].chunk_us for each in rounds):,.2f}",
            f"{1000 * idle[name]:.1f}",
            f"{memory[name][0] / 1e6:.0f}",
            f"{memory[name][1] / 1e6:.0f}",
        ]
        for name in idle
    ]
    compared = [[name, *(f"{value:.3g}" for value in found)] for name, found in ratios(rounds).items()]
    columns = ["side", "CPU µs / request", "CPU µs / event", "idle, CPU ms / s", "PSS, MB", "RSS, MB"]
    return f"{markdown(columns, costs)}\n\n{markdown(['ratio', 'median', 'least', 'most'], compared)}"


def check_usage(side: Side, requests: int) -> None:
    """Raises RuntimeError when a gateway of ours wrote not exactly one usage line for each request."""
    assert side.state is not None
    lines = (side.state / "usage.jsonl").read_bytes().splitlines()
    estimated = sum(b'"estimated":true' in line for line in lines)
    if len(lines) != requests or estimated:
        raise RuntimeError(
            f"{side.name}: {requests} requests, {len(lines)} usage lines, {estimated} of them estimated"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="cotenant and vllm-router only, 3 short rounds")
    parser.add_argument("--only", action="append", metavar="SIDE", help="of the sides in the table; may be repeated")
    parser.add_argument("--peers", type=Path, help="folder with NAME/bin/NAME of the others (default .peers)")
    given = parser.parse_args()
    every = [TWO, ROUTER] if given.quick else [TWO, ROUTER, ONE, CONTROL, LITELLM, RAY]
    names = given.only or every
    count = given.rounds or (3 if given.quick else 5)
    usual = QUICK if given.quick else FULL
    print(f"{machine()}\n\n{count} rounds; sides take turns.\n", flush=True)
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as name, ExitStack() as held:
        folder = Path(name)
        url = held.enter_context(backend(folder))
        sides = start(names, folder, url, peers_folder(given.peers), held)
        memory = {side.name: (side.pss_bytes(), side.rss_bytes()) for side in sides.values()}
        idle = idle_shares(sides.values())
        rounds = [run_round(number, sides, usual, folder, idle) for number in range(count)]
        for side in sides.values():
            if side.state is not None:
                check_usage(side, count * (usual.requests + usual.streams))
    print(tables(rounds, idle, memory) + "\n")
    finish({name: found[0] for name, found in ratios(rounds).items()})


if __name__ == "__main__":
    main()
