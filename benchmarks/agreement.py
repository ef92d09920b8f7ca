"""`make bench-agreement`: do the load test and GuideLLM say the same of the same server?

Both send the same prompts at the same constant rate for answers of the same length, in turns, to the reference server
of the tests, whose truth is known. Each figure has the interval of its rounds, from the smallest to the largest. Two
agree where their intervals overlap or are no further apart than the server's own uncertainty: its answers leave at
whole milliseconds. GuideLLM counts from when it sent; the harness from when it should have.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loadtest_tools import WARMUP_S, Load, reference_server, run_guidellm, run_harness
from benchmarks.measuring import finish, machine, markdown
from cotenant_loadtests.ranks import at_percentile

TTFT_MS, ITL_MS, TOKENS = 50.0, 20.0, 40
E2E_MS = TTFT_MS + (TOKENS - 1) * ITL_MS
GRID_MS = 1.0
PERCENTS = (50, 99)

Values = Mapping[str, float]
"""Figures of one round by `name p50`, milliseconds."""


@dataclass(frozen=True)
class Figure:
    """A latency that both tools know, whatever they call it."""

    name: str
    truth_ms: float
    ours: str
    """Of a group in results.json."""
    theirs: Callable[[Mapping[str, Any]], float]
    """From a request in GuideLLM's JSON, milliseconds."""
    per_token: bool = False
    """Ours is divided by the answer's tokens."""


FIGURES = (
    Figure("TTFT", TTFT_MS, "ttft_ms", lambda request: request["time_to_first_token_ms"]),
    Figure(
        "TTFT, both from the schedule",
        TTFT_MS,
        "ttft_ms",
        lambda request: request["time_to_first_token_ms"] + 1000 * request["request_dispatch_delay"],
    ),
    Figure(
        "TPOT; GuideLLM: inter-token latency", ITL_MS, "tpot_ms", lambda request: request["inter_token_latency_ms"]
    ),
    Figure(
        "E2E / tokens; GuideLLM: time per output token",
        E2E_MS / TOKENS,
        "e2e_ms",
        lambda request: request["time_per_output_token_ms"],
        per_token=True,
    ),
    Figure("E2E; GuideLLM: request latency", E2E_MS, "e2e_ms", lambda request: 1000 * request["request_latency"]),
    Figure(
        "E2E, both from the schedule", E2E_MS, "e2e_ms", lambda request: 1000 * request["request_scheduled_latency"]
    ),
)


@dataclass(frozen=True)
class Interval:
    """From the smallest to the largest of the rounds."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.1f} – {self.high:.1f}"


def interval(rounds: Sequence[Values], key: str) -> Interval:
    values = [one[key] for one in rounds]
    return Interval(min(values), max(values))


def apart(one: Interval, other: Interval) -> float:
    """Between the nearest ends; 0 where they overlap."""
    return max(0.0, one.low - other.high, other.low - one.high)


def of_harness(results: Mapping[str, Any]) -> Values:
    """What results.json reports of all requests in the window."""
    total = results["total"]
    values = {
        f"{figure.name} p{percent}": total[figure.ours][f"p{percent}"] / (TOKENS if figure.per_token else 1)
        for figure in FIGURES
        for percent in PERCENTS
    }
    return values | {"lateness p99": results["validity"]["lateness_ms"]["p99"]}


def of_guidellm(benchmark: Mapping[str, Any]) -> Values:
    """From the requests after the warm-up, by GuideLLM's own figures of each."""
    requests = benchmark["requests"]["successful"]
    begun_s = min(request["request_start_time"] for request in requests) + WARMUP_S
    within = [request for request in requests if request["request_start_time"] >= begun_s]
    values = {
        f"{figure.name} p{percent}": at_percentile([figure.theirs(request) for request in within], percent)
        for figure in FIGURES
        for percent in PERCENTS
    }
    late_ms = [1000 * request["request_dispatch_delay"] for request in within]
    return values | {"lateness p99": at_percentile(late_ms, 99)}


def table(ours: Sequence[Values], theirs: Sequence[Values]) -> str:
    rows = []
    for figure in FIGURES:
        for percent in PERCENTS:
            key = f"{figure.name} p{percent}"
            one, other = interval(ours, key), interval(theirs, key)
            far = apart(one, other)
            verdict = "agree" if far <= GRID_MS else f"{far:.1f} ms apart"
            rows.append([figure.name, f"p{percent}", f"{figure.truth_ms:.1f}", str(one), str(other), verdict])
    late = [str(interval(rounds, "lateness p99")) for rounds in (ours, theirs)]
    rows.append(["own lateness", "p99", "0.0", *late, ""])
    return markdown(["ms", "", "the server's", "cotenant", "GuideLLM", ""], rows)


def worst(ours: Sequence[Values], theirs: Sequence[Values], percent: int) -> dict[str, float]:
    """Figure → how far apart the intervals are, milliseconds; both from the schedule where there is a choice."""
    keys = {f"{figure.ours}_p{percent}_apart_ms": f"{figure.name} p{percent}" for figure in FIGURES}
    return {short: apart(interval(ours, key), interval(theirs, key)) for short, key in keys.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each round and tool")
    given = parser.parse_args()
    load = Load(TOKENS, streamed=True, step_s=given.seconds)
    ours, theirs = [], []
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory(prefix="cotenant-bench-") as name:
        folder = Path(name)
        with reference_server(folder, ttft_ms=TTFT_MS, itl_ms=ITL_MS) as server:
            for _ in range(given.rounds):
                ours.append(of_harness(run_harness(server, load, given.rate, folder)[0]))
                theirs.append(of_guidellm(run_guidellm(server, load, [given.rate], folder)[0][0]))
    print(f"{given.rate:.0f} requests a second of {TOKENS} tokens, {given.rounds} rounds of {given.seconds:.0f} s.\n")
    print(table(ours, theirs) + "\n")
    finish(worst(ours, theirs, 50) | worst(ours, theirs, 99))


if __name__ == "__main__":
    main()
