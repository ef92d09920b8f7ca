"""How far downloads and checks are, on stderr: bars on a terminal, a line every ten seconds anywhere else."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cotenant_cache.contract import Progress
from cotenant_operator.output import note
from cotenant_operator.quantity import show_bytes

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_EVERY_S = 10.0
_LONG = ("fetching", "verifying")


@contextmanager
def shown_progress() -> Iterator[Callable[[Progress], None]]:
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Bars(TextColumn("{task.description}", markup=False), *columns, console=console, transient=True) as bars:
        yield _Bars(bars)


class _Lines:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._phase, self._at = clock, "", -LINE_EVERY_S

    def __call__(self, said: Progress) -> None:
        now = self._clock()
        if said.phase == self._phase and now - self._at < LINE_EVERY_S:
            return
        if said.phase != self._phase or said.phase in _LONG:
            note(progress_line(said))
        self._phase, self._at = said.phase, now


def progress_line(said: Progress) -> str:
    """`hf://…: fetching, 3.1 of 8.0 GiB, 210 MiB/s, 24 s left`"""
    text = f"{said.source}: {said.phase}"
    if said.total_bytes:
        text += f", {show_bytes(said.done_bytes)} of {show_bytes(said.total_bytes)}"
    if said.rate_bytes_per_s:
        text += f", {show_bytes(round(said.rate_bytes_per_s))}/s"
    if said.eta_s is not None and said.phase in _LONG:
        text += f", {said.eta_s:.0f} s left"
    return text


class _Bars:
    """One for the whole, and one for each file that has begun and is not whole."""

    def __init__(self, bars: "Bars") -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __call__(self, said: Progress) -> None:
        self._set((said.source, ""), f"{said.source} {said.phase}", said.done_bytes, said.total_bytes)
        for file in said.files:
            key = (said.source, file.name)
            if 0 < file.done_bytes < file.total_bytes:
                self._set(key, f"  {file.name}", file.done_bytes, file.total_bytes)
            elif (task := self._tasks.pop(key, None)) is not None:
                self._bars.remove_task(task)

    def _set(self, key: tuple[str, str], text: str, done: int, total: int) -> None:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = self._bars.add_task(text, total=total or None)
        self._bars.update(task, description=text, completed=done, total=total or None)
