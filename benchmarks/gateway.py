"""`make bench-gateway`: CPU time that a proxy takes for a request and for an event of a stream.

Sides, all started as their users start them, all in front of the same engine process (`gateway_backend`):

- cotenant: the supervisor and one worker, its default configuration. A key, all three limits, slots, journal, usage
  lines, metrics, counts in memory that workers share, with its locks. With 2 workers, too: on their one core they
  also keep each other's caches cold.
- vllm-router, with its cheapest policy; and once more, as control: its ratio to itself is what chance does.
- LiteLLM's proxy, one worker, a master key, no database.
- Ray Serve: its default HTTP proxy and an app that forwards. Its Ray is idle for the others, and what that takes is
  measured and subtracted, for Ray only.

All of a side's processes have core 0; the load test's own generator and the engine share core 1. All of them come
before other programs where that is allowed: who is interrupted often works with cold caches. Two kinds of load:

- unary: 32 callers, each asks again when it is answered; a body of 1 KB, an answer of 0.5 KB.
- chunk: 64 callers of streams of 100 events, one each 4 ms.

Every answer is checked word by word, and at the end the gateway must have written one usage line for each request.
The sides take turns, in each round once forwards and once backwards. CPU is user and system time of all processes of
a side, divided by requests or events; ratios are of one round, the median over the rounds.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path

from benchmarks.gateway_memory import BEFORE, IDLE_CONNECTIONS, bytes_of_idle_connection, bytes_of_stream
from benchmarks.gateway_sides import (
    CONTROL,
    KEY,
    LITELLM,
    LOAD_CORE,
    ONE,
    PEERS,
    RAY,
    ROUTER,
    TWO,
    Side,
    backend,
    start,
)
from benchmarks.loading import chats_by_callers, send
from benchmarks.measuring import finish, machine, markdown, median
from benchmarks.watching import comes_first
from cotenant_loadtests import open_files

CALLERS, STREAMS = 32, 64
PROMPT_TOKENS, WORDS, EVENTS = 150, 48, 100
"""Of a body, about 1 KB; of a whole answer, about 0.5 KB with its usage; of a stream."""
IDLE_S = 3.0
WRITTEN_WITHIN_S = 10.0
MB = 1e6
HEADLINE = ONE
SIDES = (ONE, ROUTER, TWO, CONTROL, LITELLM, RAY)
QUICK_SIDES = (ONE, ROUTER)


@dataclass(frozen=True)
class Amount:
    """How much a side is asked in each of its two turns of a round; slow ones are asked less."""

    requests: int
    streams: int


SLOW: Mapping[str, Amount] = {LITELLM: Amount(requests=128, streams=64), RAY: Amount(requests=320, streams=64)}
FULL, QUICK = Amount(requests=16_000, streams=384), Amount(requests=8000, streams=192)


@dataclass(frozen=True)
class Took:
    """What one side took: CPU microseconds, and of the core meanwhile."""

    unary_us: float
    chunk_us: float
    unary_busy: float = 0.0
    chunk_busy: float = 0.0


@dataclass(frozen=True)
class Idle:
    """What a side takes when nobody asks."""

    cpu_share: float
    """Of one core."""
    pss_bytes: int
    rss_bytes: int


Rounds = Sequence[Mapping[str, Took]]


def amount_of(name: str, usual: Amount) -> Amount:
    return SLOW.get(name, usual)


def measure(side: Side, amount: Amount, folder: Path, idle_share: float) -> Took:
    """One turn of one side. `idle_share`: CPU that it takes when nobody asks, of one core; is subtracted."""
    unary_us, unary_busy = cpu_us(side, amount.requests, CALLERS, folder, idle_share, streamed=False)
    chunk_us, chunk_busy = cpu_us(side, amount.streams, STREAMS, folder, idle_share, streamed=True)
    print(
        f"{side.name}: {unary_us:.1f} µs a request ({unary_busy:.0%} of the core), "
        f"{chunk_us:.2f} µs an event ({chunk_busy:.0%})",
        file=sys.stderr,
        flush=True,
    )
    return Took(unary_us, chunk_us, unary_busy, chunk_busy)


def cpu_us(
    side: Side, requests: int, callers: int, folder: Path, idle_share: float, *, streamed: bool
) -> tuple[float, float]:
    """For each request, or for each event where they are streamed; and the share of a core that this was.

    Raises RuntimeError when an answer was not whole and right.
    """
    plan = chats_by_callers(
        side.model,
        requests,
        callers,
        prompt_tokens=PROMPT_TOKENS,
        max_tokens=EVENTS if streamed else WORDS,
        streamed=streamed,
    )
    began_s, before_s = time.monotonic(), side.cpu_s()
    try:
        sent = send(side.url, KEY, plan, folder)
    except RuntimeError as problem:
        raise RuntimeError(f"{side.name}: {problem}; it said: {side.said()}") from None
    took_s = side.cpu_s() - before_s - idle_share * (time.monotonic() - began_s)
    return 1e6 * took_s / (sent.completion_tokens if streamed else sent.requests), took_s / sent.wall_s


def idle_of(sides: Iterable[Side]) -> dict[str, Idle]:
    before = [(side, side.cpu_s()) for side in sides]
    time.sleep(IDLE_S)
    return {
        side.name: Idle((side.cpu_s() - cpu_s) / IDLE_S, side.pss_bytes(), side.rss_bytes()) for side, cpu_s in before
    }


def run_round(sides: Mapping[str, Side], usual: Amount, folder: Path, idle: Mapping[str, Idle]) -> Mapping[str, Took]:
    """Every side has two turns; the second time they come backwards, so that a drift of the machine meets all."""
    took: dict[str, list[Took]] = {name: [] for name in sides}
    for side in [*sides.values(), *reversed(sides.values())]:
        idle_share = idle[RAY].cpu_share if side.name == RAY else 0.0
        took[side.name].append(measure(side, amount_of(side.name, usual), folder, idle_share))
    return {name: mean(turns) for name, turns in took.items()}


def mean(turns: Sequence[Took]) -> Took:
    """Of turns that were asked equally much. Pure."""
    return Took(*(statistics.fmean(values) for values in zip(*map(astuple, turns), strict=True)))


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
    "unary_two_workers_vs_vllm_router": (TWO, ROUTER, unary),
    "chunk_two_workers_vs_vllm_router": (TWO, ROUTER, chunk),
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


def tables(rounds: Rounds, idle: Mapping[str, Idle]) -> str:
    """Medians over the rounds. Pure."""

    def over(name: str, value: Callable[[Took], float]) -> float:
        return median(value(each[name]) for each in rounds)

    costs = [
        [
            name,
            f"{over(name, unary):,.1f}",
            f"{over(name, lambda took: took.unary_busy):.0%}",
            f"{over(name, chunk):,.2f}",
            f"{over(name, lambda took: took.chunk_busy):.0%}",
            f"{1000 * one.cpu_share:.1f}",
            f"{one.pss_bytes / MB:.0f}",
            f"{one.rss_bytes / MB:.0f}",
        ]
        for name, one in idle.items()
    ]
    columns = ["side", "CPU µs / request", "of the core", "CPU µs / event", "of the core "]
    columns += ["idle, CPU ms / s", "PSS, MB", "RSS, MB"]
    compared = [[name, *(f"{value:.3g}" for value in found)] for name, found in ratios(rounds).items()]
    return f"{markdown(columns, costs)}\n\n{markdown(['ratio', 'median', 'least', 'most'], compared)}"


def memory_table(folder: Path, backend_url: str, peers: Path) -> str:
    """Each number is of a process that has just started."""
    rows = []
    for name in (ONE, ROUTER):
        found = []
        for what in (bytes_of_idle_connection, bytes_of_stream):
            with ExitStack() as held:
                own = folder / what.__name__
                own.mkdir(exist_ok=True)
                found.append(what(start([name], own, backend_url, peers, held)[name]))
        rows.append([name, *(f"{value / 1000:.0f}" for value in found)])
    return markdown(["memory, kB", "a connection, idle", "a stream under way"], rows)


def check_usage(side: Side, requests: int) -> None:
    """Raises RuntimeError when a gateway of ours wrote not exactly one usage line for each request.

    The last ones may be written a moment after their answers; one more look shows lines that should not be.
    """
    assert side.state is not None
    file, deadline_s = side.state / "usage.jsonl", time.monotonic() + WRITTEN_WITHIN_S
    while file.read_bytes().count(b"\n") < requests and time.monotonic() < deadline_s:
        time.sleep(0.1)
    time.sleep(0.5)
    lines = file.read_bytes().splitlines()
    estimated = sum(b'"estimated":true' in line for line in lines)
    if len(lines) != requests or estimated:
        raise RuntimeError(
            f"{side.name}: {requests} requests, {len(lines)} usage lines, {estimated} of them estimated"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="cotenant and vllm-router only, 2 short rounds")
    parser.add_argument("--only", action="append", metavar="SIDE", help="of the sides in the table; may be repeated")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder with NAME/bin/NAME (default .peers)")
    given = parser.parse_args()
    names = given.only or (QUICK_SIDES if given.quick else SIDES)
    count = given.rounds or (2 if given.quick else 5)
    usual = QUICK if given.quick else FULL
    open_files.allow(2 * (BEFORE + IDLE_CONNECTIONS))  # a stream has two
    first = comes_first()
    priority = "real-time" if first else "ordinary"
    print(f"{machine()}\n\n{count} rounds; sides take turns, with {priority} priority.\n", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the sides end, too
    os.sched_setaffinity(0, {LOAD_CORE})
    if first:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    with tempfile.TemporaryDirectory(prefix="ct-", dir="/tmp") as name, ExitStack() as held:
        folder = Path(name)
        url = held.enter_context(backend(folder))
        memory = "" if given.quick or given.only else memory_table(folder, url, given.peers)
        sides = start(names, folder, url, given.peers, held)
        idle = idle_of(sides.values())
        rounds = [run_round(sides, usual, folder, idle) for _ in range(count)]
        for side in sides.values():
            if side.state is not None:
                check_usage(side, 2 * count * (usual.requests + usual.streams))
    print("\n\n".join(filter(None, (tables(rounds, idle), memory))) + "\n")
    finish({name: found[0] for name, found in ratios(rounds).items()})


if __name__ == "__main__":
    main()
