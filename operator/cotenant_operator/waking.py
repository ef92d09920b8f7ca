"""What a model that wakes is doing, for people: bars on a terminal, lines elsewhere.

WakeBoard    shows what it is told: `up` tells it all models once a second
watch_wake   a thread that asks the conductor about one model while a command waits for its first byte
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from cotenant_operator.control import ControlClient, ControlError
from cotenant_operator.output import harmless, output_may_be_full, paint
from cotenant_serving.contract import ModelStatus

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ASK_S = 0.5
JOIN_S = 2.0
_COLOURS = {"error": "red", "warning": "yellow", "ready": "green"}


@dataclass(frozen=True, slots=True)
class Wake:
    model: str
    doing: str
    fraction: float | None
    """0 to 1; None while nobody knows."""


def wake_of(status: ModelStatus) -> Wake | None:
    """How far a model is on its way to ready; None when it is not on its way. Pure."""
    if status.state == "waiting":
        return Wake(status.model, status.message or "waiting for room", None)
    if status.state != "waking":
        return None
    engines = [engine for engine in status.engines if engine.state in ("starting", "waiting", "loading")]
    if not engines:
        return Wake(status.model, "about to start", None)
    engine = max(engines, key=lambda one: one.progress)
    if engine.fetch is not None:
        done = engine.fetch.done_bytes / max(1, engine.fetch.total_bytes)
        return Wake(status.model, f"fetching its weights: {engine.fetch.words}", done)
    if engine.state == "loading":
        return Wake(status.model, engine.stage or "loading", engine.progress)
    return Wake(status.model, engine.stage or "its process starts", None)


class WakeBoard:
    """Owns the lower edge of a terminal while there is something to show. `live` is false where there is none."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.live = self._stream.isatty()
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, str] = {}

    def say(self, line: str) -> None:
        """A line that stays, above the bars, without control characters; a first word that matters in its colour."""
        line = harmless(line)
        word, colon, rest = line.partition(":")
        text = paint(word + colon, _COLOURS[word], self._stream) + rest if word in _COLOURS else line
        if self._progress is None:
            with output_may_be_full():
                print(text, file=self._stream, flush=True)
            return
        from rich.text import Text

        self._progress.console.print(Text.from_ansi(text), soft_wrap=True)

    def show(self, wakes: Sequence[Wake]) -> None:
        """Exactly these are on their way now."""
        if not self.live:
            return
        for model in self._tasks.keys() - {wake.model for wake in wakes}:
            self._bars().remove_task(self._tasks.pop(model))
        for wake in wakes:
            percent = "" if wake.fraction is None else f" {wake.fraction:.0%}"
            text = f"{wake.model}: {harmless(wake.doing)}{percent}"
            total, completed = None if wake.fraction is None else 100, round((wake.fraction or 0.0) * 100)
            if wake.model in self._tasks:
                self._bars().update(self._tasks[wake.model], description=text, total=total, completed=completed)
            else:
                self._tasks[wake.model] = self._bars().add_task(text, total=total, completed=completed)
        if not self._tasks:
            self.close()

    def lines(self, wakes: Sequence[Wake]) -> None:
        """As `show`, where there is no terminal: a line whenever a model does something else."""
        if self.live:
            self.show(wakes)
            return
        for wake in wakes:
            if self._said.get(wake.model) != wake.doing:
                self._said[wake.model] = wake.doing
                self.say(f"{wake.model}: {wake.doing}")

    def close(self) -> None:
        """Leave the terminal as it was. Bars may come again."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._tasks = None, {}

    def _bars(self) -> "Progress":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if self._progress is None:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                console=Console(file=self._stream),
                transient=True,
                refresh_per_second=4,
            )
            self._progress.start()
        return self._progress


@contextlib.contextmanager
def watch_wake(control: ControlClient | None, model: str) -> Iterator[Callable[[], None]]:
    """Show how the model wakes until the block ends, or what it yields is called. Without a conductor, nothing."""
    if control is None:
        yield lambda: None
        return
    answered = threading.Event()
    thread = threading.Thread(target=_watch, args=(control, model, answered), daemon=True, name="watch-wake")
    thread.start()

    def stop() -> None:
        if not answered.is_set():
            answered.set()
            thread.join(JOIN_S)

    try:
        yield stop
    finally:
        stop()


def bare(model: str) -> str:
    return model.rpartition("/")[2]


def _watch(control: ControlClient, model: str, answered: threading.Event) -> None:
    board = WakeBoard()
    try:
        while not answered.wait(ASK_S):
            with contextlib.suppress(ControlError):
                models = control.status().models
                seen = [wake_of(status) for status in models if model in (status.model, bare(status.model))]
                if not answered.is_set():
                    board.lines([wake for wake in seen if wake is not None])
    finally:
        board.close()
