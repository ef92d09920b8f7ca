"""Servers for the commands beside `run`, as functions: what they can do is exactly known, and nothing is sent."""

from collections.abc import Callable

from cotenant_loadtests.capacity import Beyond, Search
from cotenant_loadtests.extras import Soak
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.soak import soak
from tests.builders.load_results import group, quantiles, results

NOISE_MS = (0.1, -0.2, 0.3, -0.1, 0.2, -0.3)


def search(
    from_per_s: float = 10.0, to_per_s: float | None = None, *, repeats: int = 1, within: float = 0.05
) -> Search:
    return Search(scenario_per_s=10.0, from_per_s=from_per_s, to_per_s=to_per_s, repeats=repeats, within=within)


def server(
    capacity_per_s: float, tool_per_s: float = 1e9, limit_per_s: float = 1e9
) -> Callable[[float, int], Results | Beyond]:
    """Keeps its SLOs up to the one rate; the tool keeps up to the second, the scenario's limits end at the third."""

    def measure(factor: float, number: int) -> Results | Beyond:
        rate = factor * 10.0
        if rate > limit_per_s:
            return Beyond("limits.rate_per_s: too many")
        if rate > tool_per_s:
            return results("not_valid")
        return results("passed" if rate <= capacity_per_s else "missed", name=f"{rate:g}")

    return measure


def slowing(per_segment_ms: float) -> Callable[[int], Results]:
    """Each segment of a soak is so much slower than the one before."""

    def of(number: int) -> Results:
        ttft_ms = 50 + per_segment_ms * number + NOISE_MS[number % 6]
        return results(total=group(ttft_ms=quantiles(ttft_ms, 2 * ttft_ms)))

    return of


def soaked(
    hours: float,
    of: Callable[[int], Results | Failed],
    *,
    pause_s: float = 0.0,
    rss_bytes: Callable[[int], int] = lambda number: 1,
) -> tuple[Soak, Results]:
    """Segments of a minute each, on a clock that they move; one that fails does so at once."""
    now_s = 100.0

    def measure(number: int) -> tuple[Results | Failed, int]:
        results = of(number)
        if not isinstance(results, Failed):
            pause(60.0 + pause_s)
        return results, rss_bytes(number)

    def pause(seconds: float) -> bool:
        nonlocal now_s
        now_s += seconds
        return False

    return soak(hours, 60.0, measure, lambda: now_s, pause)
