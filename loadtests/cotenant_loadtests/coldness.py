"""Is a model cold? By cotenant's own sign, engines in its gateway's routing table, or by waiting long enough."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotenant_loadtests.coldstart import Coldness
from cotenant_loadtests.observed import ENGINES, engines_of
from cotenant_loadtests.observing import PageError, fetch, metrics_url
from cotenant_loadtests.prometheus_text import PrometheusTextError, parse
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.spec import Observe, Scenario

POLL_S = 1.0
SETTLE_S = 2.5
"""After a wake, before the first look: what the gateway tells may be a second old, and would still be from before."""
Look = Callable[[str], float | None]
"""Model → engines that it has; None: not told."""
Pause = Callable[[float], bool]
"""Wait so many seconds; True: to be stopped."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """Asks a cotenant gateway for its metrics."""

    scenario: Scenario

    def engines(self, model: str) -> float | None:
        """Of a model, `name` or `namespace/name`. None where the page cannot be had or does not tell."""
        url = metrics_url(Observe(metrics_url=self.scenario.observe.metrics_url, table=True), self.scenario.target)
        assert url is not None
        try:
            page = parse(fetch(url, self.scenario.target), lambda name: name == ENGINES)
        except (PageError, PrometheusTextError):
            return None
        found = engines_of(page) or {}
        told = [number for name, number in found.items() if model in (name, name.rpartition("/")[2])]
        return sum(told) if told else None


def check(models: Sequence[str], look: Look, idle_s: float | None) -> None:
    """That it can be known for each model. Raises RefusedError."""
    untold = [model for model in models if look(model) is None] if idle_s is None else []
    if untold:
        raise RefusedError(
            f"model {untold[0]}: the target does not tell whether it has an engine (no {ENGINES} of it at /metrics, "
            "nor at observe.metrics_url); say with --idle-s after how many seconds without requests it is cold"
        )


def wait_until_cold(
    model: str, look: Look, *, idle_s: float | None, patience_s: float, pause: Pause, first: bool
) -> Coldness:
    """`first`: no request was sent yet. `warm`: the model still had an engine after `patience_s` without requests."""
    if idle_s is not None:
        return "stopped" if pause(idle_s) else "cold"
    if not first and pause(SETTLE_S):
        return "stopped"
    waited_s = 0.0
    while look(model) != 0:
        if waited_s >= patience_s:
            return "warm"
        if pause(POLL_S):
            return "stopped"
        waited_s += POLL_S
    return "cold"
