"""What a run does, while it does it: a table on a terminal, renewed each second; its last state stays."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.run_output import Progress
from cotenant_loadtests.spec import Scenario

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

COLUMNS = ("TENANT", "SENT/S", "SUCCEEDED", "FAILED", "IN FLIGHT", "TOKENS/S", "TTFT P50")
OnProgress = Callable[[Progress], None]


@contextmanager
def watching(
    scenario: Scenario, plan: Sequence[Planned], *, quiet: bool, stream: TextIO | None = None
) -> Iterator[OnProgress | None]:
    """A view for the length of the block; none where nobody looks: `quiet`, or no terminal."""
    out = stream or sys.stdout
    if quiet or not out.isatty():
        yield None
        return
    from rich.console import Console
    from rich.live import Live

    view = View(scenario.duration_s, tuple(sorted({request.tenant for request in plan})))
    live = Live(view.drawn(), console=Console(file=out), auto_refresh=False, redirect_stderr=False)
    seen = True

    def show(progress: Progress) -> None:
        nonlocal seen
        view.take(progress)
        try:
            if seen:
                live.update(view.drawn(), refresh=True)
        except OSError:  # the terminal has gone, the run goes on
            seen = False

    with _unless_gone(live):
        yield show


@contextmanager
def _unless_gone(live: "Live") -> Iterator[None]:
    """On the screen for the length of the block; a terminal that is gone does not disturb it."""
    with suppress(OSError):
        live.start()
    try:
        yield
    finally:
        with suppress(OSError):
            live.stop()


class View:
    """The last two seconds of a run, as rows."""

    def __init__(self, duration_s: float, tenants: Sequence[str]) -> None:
        self._duration_s, self._tenants = duration_s, tenants
        self._now = self._before = Progress(
            at_s=0.0, sent={}, succeeded={}, failed={}, in_flight={}, tokens={}, ttft_p50_ms={}, lateness_p99_ms=0.0
        )

    def take(self, progress: Progress) -> None:
        self._before, self._now = self._now, progress

    def rows(self) -> list[tuple[str, ...]]:
        """As COLUMNS; all tenants together last, where there are several."""
        rows = [self._row(tenant, [tenant]) for tenant in self._tenants]
        return [*rows, self._row("all", self._tenants)] if len(self._tenants) > 1 else rows

    def headline(self) -> str:
        now = self._now
        left_s = max(0.0, self._duration_s - now.at_s)
        draining = sum(now.in_flight.values()) if not left_s else 0
        rest = f"waiting for {draining:,} answers" if draining else f"{left_s:.0f} s left"
        return f"{now.at_s:.0f} s, {rest}; lateness p99 {now.lateness_p99_ms:.1f} ms" + self._errors()

    def drawn(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table(
            *COLUMNS, title=Text(self.headline()), title_justify="left", box=None, pad_edge=False, header_style="bold"
        )
        for column in table.columns[1:]:
            column.justify = "right"
        for row in self.rows():
            failed = row[COLUMNS.index("FAILED")]
            table.add_row(*(Text(cell, style="red" if cell is failed and cell != "0" else "") for cell in row))
        return table

    def _row(self, name: str, tenants: Sequence[str]) -> tuple[str, ...]:
        now = self._now
        first_tokens = [now.ttft_p50_ms[tenant] for tenant in tenants if tenant in now.ttft_p50_ms]
        return (
            name,
            f"{self._per_s('sent', tenants):,.1f}",
            *(f"{_sum(counts, tenants):,}" for counts in (now.succeeded, now.failed, now.in_flight)),
            f"{self._per_s('tokens', tenants):,.0f}",
            f"{first_tokens[0]:,.1f} ms" if len(first_tokens) == len(tenants) == 1 else "",
        )

    def _per_s(self, field: str, tenants: Sequence[str]) -> float:
        span_s = self._now.at_s - self._before.at_s
        now, before = getattr(self._now, field), getattr(self._before, field)
        return (_sum(now, tenants) - _sum(before, tenants)) / span_s if span_s > 0 else 0.0

    def _errors(self) -> str:
        counts = sorted(self._now.errors.items(), key=lambda item: -item[1])
        return "; " + ", ".join(f"{outcome} {count:,}" for outcome, count in counts) if counts else ""


def _sum(counts: Mapping[str, int], tenants: Sequence[str]) -> int:
    return sum(counts.get(tenant, 0) for tenant in tenants)
