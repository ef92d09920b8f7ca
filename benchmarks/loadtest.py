"""`make bench-loadtest`: what a load test with cotenant costs, against GuideLLM and locust.

The generator under test has core 0 for all its processes, the reference server of the tests has core 1, both with
real-time priority where that is allowed. All ask for the same: chat completions of 100 tokens, a token each 10 ms, an
event each. The tools take turns; ratios are of one round, the median over the rounds.

- tokens/s: at the highest of the steps at which p99 lateness is 5 ms or less. Lateness is from scheduled to sent;
  GuideLLM's own figure for it (dispatch delay); locust has no schedule: from when a first token was due to when
  locust had it. The first 2 s of a step do not count.
- CPU: user and system time of all processes of the tool in the window in which those tokens came, so without start
  and report.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loadtest_tools import (
    GENERATOR_CORE,
    SERVER_CORE,
    Load,
    Step,
    guidellm,
    harness,
    locust,
    reference_server,
)
from benchmarks.measuring import finish, machine, markdown, median
from benchmarks.watching import comes_first

LATE_MS = 5.0
TOKENS, TTFT_MS, ITL_MS = 100, 10.0, 10.0
UNARY = Load(tokens=16, streamed=False, step_s=7)
MANY_STREAMS = 5000
MANY = Load(tokens=20, streamed=True, step_s=14)
MANY_ITL_MS = 500.0
PROCESSES = (1, 2, 4)
MB = 1e6


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    step_s: float
    harness: tuple[float, ...]
    """Requests a second of each step."""
    guidellm: tuple[float, ...]
    locust: tuple[int, ...]
    """Users."""
    unary: tuple[float, ...]
    """Whole answers a second of each step."""
    unary_users: int
    per_process_per_s: float


FULL = Size(
    rounds=3,
    step_s=7,
    harness=(200, 400, 600, 800, 1000),
    guidellm=(10, 20, 30, 40, 60),
    locust=(32, 64, 96, 128, 256, 512, 768),
    unary=(6000, 9000, 12_000),
    unary_users=32,
    per_process_per_s=150,
)
QUICK = Size(
    rounds=1,
    step_s=5,
    harness=(200, 400),
    guidellm=(20, 40),
    locust=(64, 256),
    unary=(9000,),
    unary_users=32,
    per_process_per_s=150,
)


@dataclass(frozen=True)
class Round:
    """What one round found. Lists are the steps of a tool."""

    harness: list[Step]
    again: Step
    """The harness' first step once more, after the others."""
    guidellm: list[Step]
    locust: list[Step]
    unary: list[Step]
    locust_unary: Step
    by_processes: list[Step]


def best(steps: Sequence[Step]) -> Step:
    """The step with the most tokens/s of those that were not late; if all were, the least late one."""
    timely = [step for step in steps if step.window.lateness_p99_ms <= LATE_MS]
    if not timely:
        return min(steps, key=lambda step: step.window.lateness_p99_ms)
    return max(timely, key=lambda step: step.window.tokens_per_s)


def most(steps: Sequence[Step]) -> Step:
    """The step with the most tokens/s, however late."""
    return max(steps, key=lambda step: step.window.tokens_per_s)


def ratios(rounds: Sequence[Round], many_rss_bytes: int) -> dict[str, float]:
    """The last line. Pure."""

    def over(value: Callable[[Round], float]) -> float:
        return median(value(one) for one in rounds)

    return {
        "tokens_vs_guidellm": over(lambda r: tokens_per_s(best(r.harness)) / tokens_per_s(best(r.guidellm))),
        "tokens_vs_locust": over(lambda r: tokens_per_s(best(r.harness)) / tokens_per_s(best(r.locust))),
        "tokens_vs_locust_however_late": over(lambda r: tokens_per_s(most(r.harness)) / tokens_per_s(most(r.locust))),
        "chunk_us": over(lambda r: best(r.harness).chunk_us),
        "chunk_vs_guidellm": over(lambda r: best(r.harness).chunk_us / best(r.guidellm).chunk_us),
        "chunk_vs_locust": over(lambda r: best(r.harness).chunk_us / best(r.locust).chunk_us),
        "unary_us": over(lambda r: best(r.unary).request_us),
        "unary_vs_locust": over(lambda r: best(r.unary).request_us / r.locust_unary.request_us),
        "streams_5000_mb": many_rss_bytes / MB,
        "chunk_4_processes_vs_1": over(lambda r: r.by_processes[-1].chunk_us / r.by_processes[0].chunk_us),
        "control": over(lambda r: r.again.chunk_us / r.harness[0].chunk_us),
    }


def tokens_per_s(step: Step) -> float:
    return step.window.tokens_per_s


def run_round(folder: Path, size: Size) -> Round:
    load = Load(TOKENS, streamed=True, step_s=size.step_s)
    with reference_server(folder, ttft_ms=TTFT_MS, itl_ms=ITL_MS) as server:
        climbed = [said("cotenant", harness(server, load, rate, folder)) for rate in size.harness]
        theirs = [said("GuideLLM", step) for step in guidellm(server, load, size.guidellm, folder)]
        users = [said("locust", locust(server, load, count, folder)) for count in size.locust]
        again = said("cotenant again", harness(server, load, size.harness[0], folder))
        by_processes = [
            said(f"{count} processes", harness(server, load, size.per_process_per_s * count, folder, processes=count))
            for count in PROCESSES
        ]
    with reference_server(folder, ttft_ms=0, itl_ms=0) as server:
        unary = [said("cotenant, whole answers", harness(server, UNARY, rate, folder)) for rate in size.unary]
        locust_unary = said("locust, whole answers", locust(server, UNARY, size.unary_users, folder))
    return Round(climbed, again, theirs, users, unary, locust_unary, by_processes)


def many_streams(folder: Path) -> Step:
    """MANY_STREAMS at one time in one process."""
    lasts_s = (MANY.tokens - 1) * MANY_ITL_MS / 1000
    with reference_server(folder, ttft_ms=MANY_ITL_MS, itl_ms=MANY_ITL_MS) as server:
        return said("many streams", harness(server, MANY, MANY_STREAMS / lasts_s, folder))


def said(name: str, step: Step) -> Step:
    window = step.window
    print(
        f"{name}: {step.asked:.0f} asked, {window.tokens_per_s:.0f} tokens/s, {window.requests_per_s:.0f} answers/s, "
        f"p99 late {window.lateness_p99_ms:.1f} ms, CPU {step.chunk_us:.1f} µs a token, "
        f"{step.request_us:.0f} an answer, server {step.server_share:.0%}, {step.rss_bytes / MB:.0f} MB",
        file=sys.stderr,
        flush=True,
    )
    return step


def tables(rounds: Sequence[Round], many: Step) -> str:
    """Medians over the rounds."""

    def row(name: str, steps: Callable[[Round], Sequence[Step]]) -> list[str]:
        chosen, highest = [best(steps(one)) for one in rounds], [most(steps(one)) for one in rounds]
        return [
            name,
            f"{median(map(tokens_per_s, chosen)):,.0f}",
            f"{median(step.window.lateness_p99_ms for step in chosen):.1f}",
            f"{median(step.chunk_us for step in chosen):.1f}",
            f"{median(step.server_share for step in chosen):.0%}",
            f"{median(map(tokens_per_s, highest)):,.0f}",
            f"{median(step.window.lateness_p99_ms for step in highest):,.0f}",
        ]

    columns = [
        "one core",
        f"tokens/s, p99 late ≤ {LATE_MS:.0f} ms",
        "p99 late, ms",
        "CPU µs / chunk",
        "server's core",
    ]
    columns += ["tokens/s, however late", "p99 late, ms "]
    tools = [
        row("cotenant", lambda one: one.harness),
        row("GuideLLM", lambda one: one.guidellm),
        row("locust", lambda one: one.locust),
    ]
    unary = [
        [
            name,
            f"{median(step.window.requests_per_s for step in steps):,.0f}",
            f"{median(step.request_us for step in steps):.0f}",
        ]
        for name, steps in (
            ("cotenant", [best(one.unary) for one in rounds]),
            ("locust", [one.locust_unary for one in rounds]),
        )
    ]
    processes = [
        [str(count), f"{median(one.by_processes[at].chunk_us for one in rounds):.1f}"]
        for at, count in enumerate(PROCESSES)
    ]
    return "\n\n".join(
        [
            markdown(columns, tools),
            markdown(["whole answers", "answers / s", "CPU µs / answer"], unary),
            markdown(["processes, each the same load", "CPU µs / chunk"], processes),
            f"{MANY_STREAMS} streams at one time in one process: {many.rss_bytes / MB:.0f} MB for it and the process "
            f"that started it, p99 late {many.window.lateness_p99_ms:.1f} ms.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of few steps, under 2 minutes")
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    count = given.rounds or size.rounds
    raise_open_files()
    priority = "real-time" if comes_first() else "ordinary"
    print(f"{machine()}\n")
    print(f"Generator on core {GENERATOR_CORE}, server on core {SERVER_CORE}, {priority} priority. {count} rounds.\n")
    rounds = []
    with tempfile.TemporaryDirectory(prefix="cotenant-bench-") as name:
        for number in range(count):
            folder = Path(name) / str(number)
            folder.mkdir()
            rounds.append(run_round(folder, size))
        many = many_streams(folder)
    print(tables(rounds, many) + "\n")
    finish(ratios(rounds, many.rss_bytes))


def raise_open_files() -> None:
    """A connection is an open file, of the generator and of the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
