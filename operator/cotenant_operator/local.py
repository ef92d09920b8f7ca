"""`cotenant up`: the core's shell on one machine. Reads the files, plans, starts the programs, keeps them.

files ──▶ read_world ──▶ plan ──▶ render ──▶ conductor (PUT /v1/desired)
                                        └──▶ gateway (gateway.json, which it watches)
programs: ray (head), conductor, gateway; each with a log, a mark, and a tether to this process.
"""

import asyncio
import contextlib
import importlib.util
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cotenant_operator.control import ControlClient, ControlError, ControlRefusedError, answers
from cotenant_operator.desk import Desk, Orders
from cotenant_operator.manifests import ManifestErrors
from cotenant_operator.output import harmless, output_may_be_full
from cotenant_operator.processes import end_leftovers, free_port, port_is_free
from cotenant_operator.programs import PAUSE_S, GaveUpError, Programs, Say
from cotenant_operator.state_dir import StateDir, StateInUseError
from cotenant_operator.waking import Wake, WakeBoard, wake_of

WATCH_S = 0.25
"""Between two looks at the files: an edit takes effect within a second."""
TELL_S = 1.0
START_TIMEOUT_S = 90.0
NEEDED = ("ray", "uvicorn", "aiohttp", "fastapi", "huggingface_hub")
"""Of the children; torch is needed by engines of every task but echo, whose own error says so."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What a caller of `run` gets once the gateway answers."""

    host: str
    port: int
    control: ControlClient
    state: StateDir


Show = Callable[[Sequence[Wake]], None]
Then = Callable[[Running], Awaitable[int | None]]


def up(files: Sequence[Path], *, host: str, port: int, state: Path, gateway_workers: int = 1) -> int:
    """Serve what the files describe until Ctrl-C or SIGTERM. Returns the exit code; speaks on stderr."""
    board = WakeBoard(sys.stderr)
    show = board.show if board.live else None
    try:
        running = run(
            files, host=host, port=port, state=state, gateway_workers=gateway_workers, say=board.say, show=show
        )
        return asyncio.run(running)
    finally:
        board.close()


def say_on_stderr(line: str) -> None:
    with output_may_be_full():
        print(harmless(line), file=sys.stderr, flush=True)


async def run(
    files: Sequence[Path],
    *,
    host: str,
    port: int,
    state: Path,
    gateway_workers: int = 1,
    prepare: Callable[[], None] = lambda: None,
    then: Then | None = None,
    say: Say = say_on_stderr,
    show: Show | None = None,
) -> int:
    """As `up`. `prepare` may write the files once the state directory is ours; `then` runs once everything
    answers, and ends the run when it returns an exit code. `show` gets what is on its way now, once a second;
    without it `say` tells the stages too.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        say(f"error: {', '.join(missing)} is not installed. Run: pip install 'cotenant[local]'")
        return EXIT_USAGE
    where = StateDir(state)
    try:
        where.acquire()
    except StateInUseError as error:
        say(f"error: {error}")
        return EXIT_USAGE
    except OSError as error:
        say(
            f"error: the state directory {str(state)[:200]} cannot be used: {error.strerror}. "
            "Give another one with --state."
        )
        return EXIT_USAGE
    code = EXIT_USAGE
    try:
        prepare()
        if ended := end_leftovers(where.path):
            say(f"ended {ended} processes that an earlier run left behind")
        where.clear()
        port = port or free_port(host)
        if not port_is_free(host, port):
            say(f"error: {host}:{port} cannot be used: another program has it, or it is not an address of this")
            say("machine. Choose another one with --port or --host.")
            return EXIT_USAGE
        desk = Desk(files, where, conductor_port=free_port())
        try:
            orders = desk.read()
        except ManifestErrors as error:
            say(str(error))
            return EXIT_USAGE
        code = EXIT_FAILED
        programs = Programs(where, desk, host=host, port=port, gateway_workers=gateway_workers, say=say)
        code = await _Local(where, desk, programs, host=host, port=port, say=say, show=show).run(orders, then)
        return code
    finally:
        if code != EXIT_FAILED:  # after a failure Ray's own logs may say why
            where.remove_ray_temp()
        where.release()


class _Local:
    """One run."""

    def __init__(
        self,
        state: StateDir,
        desk: Desk,
        programs: Programs,
        *,
        host: str,
        port: int,
        say: Say,
        show: Show | None = None,
    ) -> None:
        self._state, self._desk, self._say, self._show = state, desk, say, show
        self._host, self._port = host, port
        self._url = _url(host, port)
        self._programs = programs
        self._control = ControlClient(desk.conductor_url, state.secret("control-token"))
        self._told: dict[str, str] = {}
        self._complained = ""

    async def run(self, orders: Orders, then: Then | None) -> int:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop_asked, stop)
        for line in orders.notes:
            self._say(line)
        tasks = [asyncio.create_task(self._serve(orders, then)), asyncio.create_task(_until(stop))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            await _cancel(*tasks)  # first: it would start again what is being ended
            self._on_its_way()
            self._say("stopping: open streams may finish (Ctrl-C again to end at once)")
            await self._programs.end()
            self._say("stopped")

    def _stop_asked(self, stop: asyncio.Event) -> None:
        if stop.is_set():
            self._programs.kill()
        stop.set()

    async def _serve(self, orders: Orders, then: Then | None) -> int:
        self._desk.publish(orders)
        self._say(f"starting Ray, conductor and gateway (logs in {self._state.logs})")
        self._on_its_way(Wake("up", "Ray, conductor and gateway start", None))
        await self._programs.start()
        self._state.announce(
            conductor_url=self._control.url,
            gateway_url=self._url,
            gateway_workers=self._programs.gateway_workers,
        )
        if not await self._all_answer(orders):
            return EXIT_FAILED
        self._on_its_way()
        self._say(f"ready: {self._url}/v1")
        watch = asyncio.create_task(self._watch(orders))
        running = Running(host=self._host, port=self._port, control=self._control, state=self._state)
        follow_up = asyncio.ensure_future(then(running) if then else asyncio.sleep(0))
        try:
            await asyncio.wait({watch, follow_up}, return_when=asyncio.FIRST_COMPLETED)
            if follow_up.done() and (code := follow_up.result()) is not None:
                return code
            return await watch
        finally:
            await _cancel(watch, follow_up)

    async def _all_answer(self, orders: Orders) -> bool:
        """Send the desired state as soon as the conductor takes it, then wait for it to see Ray."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        sent = False
        while time.monotonic() < deadline_s:
            if await self._programs.start_slow_ray_again():
                deadline_s, sent = time.monotonic() + START_TIMEOUT_S, False
            for child in self._programs.ended():
                self._say(f"error: {child.name} ended at its start; {child.log} says:\n{child.last_lines()}")
                return False
            sent = sent or await self._send(orders)
            sees_ray = sent and await asyncio.to_thread(self._control.ready)
            if sees_ray and await asyncio.to_thread(answers, self._url + "/readyz"):
                return True
            await asyncio.sleep(0.1)
        self._say(f"error: not ready within {START_TIMEOUT_S:.0f} s. The logs in {self._state.logs} say why.")
        return False

    async def _send(self, orders: Orders) -> bool:
        """False when the conductor does not answer now; what it refuses is told, and not sent again."""
        try:
            await asyncio.to_thread(self._control.put_desired, orders.desired)
        except ControlRefusedError as error:
            self._say(f"error: {error}")
        except ControlError:
            return False
        return True

    async def _watch(self, orders: Orders) -> int:
        """Keep the programs alive, apply edits, and tell how models change."""
        pending: Orders | None = None
        told_s = 0.0
        while True:
            try:
                await self._programs.keep_alive()
            except GaveUpError as error:
                self._say(f"error: {error}")
                return EXIT_FAILED
            except OSError as error:  # no room, no descriptors, too many processes: that passes
                self._say(f"error: a program cannot be started, it is tried again: {error}")
                await asyncio.sleep(PAUSE_S)
            news = await self._look(orders)
            if news.desired is not orders.desired:
                pending = news
            orders = news
            if pending is not None and await self._send(pending):
                pending = None
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                await self._tell()
            await asyncio.sleep(WATCH_S)

    async def _look(self, orders: Orders) -> Orders:
        """The orders after this look. Nothing that a file does to its reader ends what runs."""
        try:
            news = await asyncio.to_thread(self._desk.look, orders)
            if news is not None:
                self._desk.publish(news)
        except Exception as error:
            complaint = f"reading the files: {type(error).__name__}: {error}; what ran before goes on"
            if complaint != self._complained:
                self._say(f"error: {complaint}")
            self._complained = complaint
            return orders
        for line in news.notes if news else ():
            self._say(line)
        return news or orders

    async def _tell(self) -> None:
        try:
            status = await asyncio.to_thread(self._control.status)
        except ControlError:
            return
        self._on_its_way(*(wake for model in status.models if (wake := wake_of(model))))
        for model in status.models:
            line = model.state if model.state == "cold" else f"{model.state}: {model.message}"
            if model.state in ("failed", "waiting"):
                line = f"{model.state} ({model.reason}): {model.message}"
            shown = self._show is not None and model.state == "waking"
            if self._told.get(model.model, "cold") != line and not shown:
                self._say(f"{model.model}: {line}")
            self._told[model.model] = line

    def _on_its_way(self, *wakes: Wake) -> None:
        if self._show is not None:
            self._show(wakes)


def _url(host: str, port: int) -> str:
    """Where this machine reaches a gateway that listens on `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


async def _until(stop: asyncio.Event) -> int:
    await stop.wait()
    return EXIT_OK


async def _cancel(*tasks: "asyncio.Future[int] | asyncio.Future[int | None]") -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
