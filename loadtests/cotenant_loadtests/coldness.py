"""Is a model cold? By cotenant's own sign, engines in its gateway's routing table, or by waiting long enough."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotenant_loadtests.coldstart import Coldness
from cotenant_loadtests.observed import ENGINES, engines_of
from cotenant_loadtests.observing import PageError, fetch, metrics_url
from cotenant_loadtests.prometheus_text import PrometheusTextError, parse
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.spec import Observe, Scenario

POLL_S = 1.0
LOOK_S = 1.5
"""The most for one look: a page that drips would else hold up a wish to stop."""
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
            page = parse(fetch(url, self.scenario.target, most_s=LOOK_S), lambda name: name == ENGINES)
        except (PageError, PrometheusTextError):
            return None
        found = engines_of(page) or {}
        told = [number for name, number in found.items() if model in (name, name.rpartition("/")[2])]
        return sum(told) if told else None


def check(models: Sequence[str], look: Look, idle_s: float | None) -> None:
    """That it can be known for each model. Raises RefusedError."""
    untold = next((model for model in models if look(model) is None), None) if idle_s is None else None
    if untold is not None:
        raise RefusedError(
            f"model {untold}: the target does not tell whether it has an engine (no {ENGINES} of it at /metrics, "
            "nor at observe.metrics_url); say with --idle-s after how many seconds without requests it is cold"
        )


def why_warm(idle_s: float | None, patience_s: float) -> str:
    """And what to do."""
    if idle_s is not None:
        return (
            f"the target says that it still had an engine after --idle-s {idle_s:g}; give it longer, or leave "
            "--idle-s out: then it is waited for until it has none"
        )
    return (
        f"the target did not say within --patience-s {patience_s:g} that it has no engine; give it longer, and look "
        "whether the model may sleep, and who else uses it"
    )


def wait_until_cold(
    model: str,
    look: Look,
    *,
    idle_s: float | None,
    patience_s: float,
    pause: Pause,
    first: bool,
    now_s: Callable[[], float] = time.monotonic,
) -> Coldness:
    """`first`: no request was sent yet. `warm`: the model still had an engine after `patience_s` without requests, or
    after `idle_s`, where the target tells.

    What a look takes counts, on the clock `now_s`.
    """
    if idle_s is not None:
        return "stopped" if pause(idle_s) else "warm" if look(model) else "cold"
    if not first and pause(SETTLE_S):
        return "stopped"
    began_s = now_s()
    while look(model) != 0:
        if now_s() - began_s >= patience_s:
            return "warm"
        if pause(POLL_S):
            return "stopped"
    return "cold"
