"""The gateway's first process: owns the port, what the workers share, and the workers. It serves nothing itself.

    STATE/lock          held while a gateway runs on this state directory
    STATE/usage.jsonl   see `usage_file`
    STATE/journals/     of workers (`journal`); when they are dead, settled (`recovery`)
    STATE/metrics/      counts of workers (`metrics`); made anew at each start
    STATE/gateway.json, usage-sent.json, usage.sending.jsonl
                        with an operator only (`operator_link`)

A worker that dies is started again; its counts of what runs are cleared, and its requests get their usage records.
One that gives no sign of life is killed, and then it is as if it had died.
Level-triggered: every turn of the loop looks at all workers and does what is to do now. Nothing heavy is imported.
"""

import contextlib
import fcntl
import logging
import math
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_serving.gateway.board import LEAVING, SIGNS_OF_LIFE, USAGE_DROPPED, USAGE_UNSENT, SharedBoard
from cotenant_serving.gateway.listening import Port, take_port
from cotenant_serving.gateway.metric_files import make_files
from cotenant_serving.gateway.options import JOURNALS, METRICS, USAGE_FILE, Options, Place, parse_options
from cotenant_serving.gateway.recovery import Recovery
from cotenant_serving.gateway.usage_file import UsageFile
from cotenant_serving.logs import log_to_stderr

if TYPE_CHECKING:
    from cotenant_serving.gateway.operator_link import OperatorLink

log = logging.getLogger("cotenant.gateway")

LOOK_S = 1.0
"""The longest pause between two turns of the loop."""
SOON_S = 5.0
"""A worker that lives less long has failed, and the next one waits."""
LONGEST_DELAY_S = 5.0
SILENT_S = 15.0
"""A worker without a sign of life for so long hangs, or was stopped, and is killed. Signs come every half second."""
STARTING_S = 60.0
"""As SILENT_S, until the first sign."""
SPARED_S = 3.0
"""After that kill the others are spared: perhaps they only waited for a lock that the dead one held."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until SIGTERM or SIGINT. Exit status 1 when it cannot start."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parse_options(given)
    os.umask(0o077)
    log_to_stderr()
    columns = options.workers + 1  # the last one is the supervisor's own
    board = SharedBoard.create(column=options.workers, columns=columns)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_sole_gateway(options.state))
            shared = _prepare(options, board)
        except OSError as problem:
            place = f"{options.host}:{options.port}, state {options.state}"
            sys.stderr.write(f"gateway cannot start on {place}: {problem}\n")
            return 1
        return Supervisor(options, given, board, shared).run()


@dataclass(frozen=True, slots=True)
class Shared:
    """What the supervisor holds for all workers, beside the board."""

    recovery: Recovery
    port: Port
    admin: Port | None
    """For health and metrics, where they have a port of their own."""
    link: "OperatorLink | None"
    """Where there is an operator."""
    config: int
    """As in `Place`."""


def _prepare(options: Options, board: SharedBoard) -> Shared:
    """Raises OSError."""
    usage = UsageFile(options.state / USAGE_FILE, board.usage_open)
    usage.repair()
    recovery = Recovery(options.state / JOURNALS, usage, board.count("usage recovered"))
    recovery.prepare()
    make_files(options.state / METRICS, options.workers)
    port = take_port(options.host, options.port, shared=options.workers > 1, ending=recovery.held)
    admin = None
    if options.admin_port is not None:
        admin = take_port(options.host, options.admin_port, shared=False, ending=recovery.held)
    if not options.operator:
        return Shared(recovery, port, admin, None, -1)
    from cotenant_serving.gateway.operator_link import link_to_operator

    usage = UsageFile(options.state / USAGE_FILE, board.usage_open)
    link, config = link_to_operator(options, usage, board.count(USAGE_UNSENT))
    return Shared(recovery, port, admin, link, config)


@contextlib.contextmanager
def _sole_gateway(state: Path) -> Iterator[None]:
    """Two supervisors would both take the other one's journals for those of the dead. Raises OSError."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError("another gateway runs on this state directory; give each its own --state") from None
        yield
    finally:
        os.close(lock)


@dataclass(slots=True)
class Worker:
    """One of the workers, whichever process it is now."""

    number: int
    process: "subprocess.Popen[bytes] | None" = None
    """None while none runs."""
    began_s: float = 0.0
    due_s: float = 0.0
    """When the next process starts, if none runs."""
    failures: int = 0
    """Ends in a row that came soon after the start."""
    signs: int = 0
    silent_s: float = 0.0
    """Since its start, or since `signs` became what it is; only while somebody looked."""

    def listen(self, signs: int, passed_s: float) -> None:
        """`signs` of life it has given so far. Pauses of the one who looks count as one look: all slept then."""
        self.silent_s = self.silent_s + min(passed_s, 2 * LOOK_S) if signs == self.signs else 0.0
        self.signs = signs


class Supervisor:
    def __init__(self, options: Options, arguments: Sequence[str], board: SharedBoard, shared: Shared) -> None:
        """`arguments`: the command line that `options` come from; workers get the same."""
        self._options, self._arguments = options, arguments
        self._board, self._shared = board, shared
        self._port, self._recovery, self._link = shared.port, shared.recovery, shared.link
        self._name = f"gateway-{secrets.token_hex(4)}"
        self._workers = [Worker(number) for number in range(options.workers)]
        self._wakes = tuple(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in self._workers)
        self._ready, self._tell_ready = os.pipe()
        self._restarts = board.count("restarts")
        self._signs = board.count(SIGNS_OF_LIFE)
        board.count(USAGE_DROPPED)
        self._looked_s = self._silenced_s = -math.inf
        self._serves = False
        """A worker accepted connections, now or once."""
        self._stop = self._hurried = False
        """A signal came; another one came."""
        self._draining = False
        self._leaving = board.count(LEAVING)
        self._drained_s = 0.0
        """When the drain begins; 0 before the signal."""
        self._killed_s = 0.0
        """When workers that drain for too long are killed; 0 before the drain."""

    def run(self) -> int:
        if self._link is not None:
            self._link.start()
        with _signals(self._stop_asked) as signals, selectors.DefaultSelector() as events:
            for file in (signals, self._ready):
                os.set_blocking(file, False)
                events.register(file, selectors.EVENT_READ)
            try:
                while self._turn(time.monotonic()):
                    pause = pause_s(self._workers, time.monotonic(), self._drained_s, stopping=self._draining)
                    for key, _ in events.select(pause):
                        self._heard(os.read(key.fd, 4096) if key.fd == self._ready else _drained(key.fd))
            finally:
                self._kill()
                self._recovery.run()
                if self._link is not None:
                    self._link.finish()
        return 0 if self._serves or self._stop else 1

    def _stop_asked(self) -> None:
        self._hurried, self._stop = self._stop, True

    def _turn(self, now_s: float) -> bool:
        """False when all is over."""
        self._draining = self._stop and self._left(now_s)
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is not None:
                self._ended(worker, worker.process, now_s)
        self._recovery.run()
        if self._link is not None:
            self._link.look()
        alive = any(worker.process for worker in self._workers)
        if self._draining:
            self._drain(now_s)
            return alive
        self._end_silent(now_s)
        if not alive and not self._serves and self._workers[0].began_s:
            sys.stderr.write("gateway cannot start: its workers end before they serve; the lines above say why\n")
            return False
        for worker in self._workers:
            if worker.process is None and now_s >= worker.due_s:
                self._start(worker, now_s)
        return True

    def _heard(self, ready: bytes) -> None:
        if ready and not self._serves:
            self._serves = True
            with contextlib.suppress(OSError):  # the disk of its log is full
                if self._shared.admin is not None:
                    sys.stderr.write(f"gateway answers for health and metrics on {self._shared.admin.url}\n")
                sys.stderr.write(f"gateway listening on {self._port.url} (pid {os.getpid()})\n")
                sys.stderr.flush()

    def _start(self, worker: Worker, now_s: float) -> None:
        worker.began_s, worker.signs, worker.silent_s = now_s, 0, 0.0
        try:
            worker.process = self._process(worker)
        except OSError as problem:  # the machine has too much to do: later, perhaps
            worker.failures += 1
            worker.due_s = now_s + restart_delay_s(worker.failures)
            log.error("worker %d cannot be started: %s", worker.number, problem)

    def _process(self, worker: Worker) -> "subprocess.Popen[bytes]":
        listener = self._port.listener(worker.number).fileno()
        admin = -1 if self._shared.admin is None else self._shared.admin.listener(0).fileno()
        place = Place(
            worker=worker.number,
            parent=os.getpid(),
            gateway=self._name,
            listener=listener,
            board=self._board.fileno(),
            ready=self._tell_ready,
            config=self._shared.config,
            admin=admin,
            wakes=self._wakes,
        )
        files = (listener, self._board.fileno(), self._tell_ready, self._shared.config, admin, *self._wakes)
        return subprocess.Popen(
            [sys.executable, "-m", "cotenant_serving.gateway.worker", *self._arguments, place.argument()],
            stdin=subprocess.DEVNULL,
            pass_fds=[file for file in files if file >= 0],
        )

    def _end_silent(self, now_s: float) -> None:
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        for one, signs in zip(self._workers, self._signs.parts(), strict=False):
            one.listen(signs, passed_s)
        worker = most_silent(self._workers)
        if worker is None or worker.process is None or now_s - self._silenced_s < SPARED_S:
            return
        log.error(
            "worker %d (process %d) gives no sign of life for %.0f s: it is killed",
            *(worker.number, worker.process.pid, worker.silent_s),
            extra={"fields": {"event": "worker_silent", "worker": worker.number, "silent_s": round(worker.silent_s)}},
        )
        worker.process.kill()
        worker.silent_s, self._silenced_s = 0.0, now_s

    def _ended(self, worker: Worker, process: "subprocess.Popen[bytes]", now_s: float) -> None:
        worker.process = None
        self._board.clear(worker.number, keep=(USAGE_DROPPED,))
        if self._draining:
            return
        worker.failures = worker.failures + 1 if now_s - worker.began_s < SOON_S else 0
        delay_s = restart_delay_s(worker.failures)
        worker.due_s = now_s + delay_s
        self._restarts.add(1)
        if delay_s:
            self._port.drop(worker.number)
        fields = {"event": "worker_ended", "worker": worker.number, "code": process.returncode}
        log.error(
            "worker %d (process %d) ended with code %d; the next one starts in %g s",
            *(worker.number, process.pid, process.returncode, delay_s),
            extra={"fields": fields},
        )

    def _left(self, now_s: float) -> bool:
        """Whether those who send clients here have had their time to see that it ends."""
        if not self._drained_s:
            self._leaving.set(1)
            self._drained_s = now_s + (self._options.settings.pre_stop_s if self._serves else 0.0)
            if self._drained_s > now_s:
                log.info("ending: all is served for %g s more", self._drained_s - now_s)
        return self._hurried or now_s >= self._drained_s

    def _drain(self, now_s: float) -> None:
        if not self._killed_s:
            self._killed_s = now_s + self._options.settings.ended_within_s
            self._port.close()
            if self._shared.admin is not None:
                self._shared.admin.close()
            for worker in self._workers:
                if worker.process is not None:
                    worker.process.terminate()
        elif now_s > self._killed_s:
            self._kill()

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()
                worker.process = None


def pause_s(workers: Sequence[Worker], now_s: float, drained_s: float = 0.0, *, stopping: bool) -> float:
    """Until a worker is to be started, or the drain begins, at most LOOK_S. `stopping`: none is started. Pure."""
    due_s = [worker.due_s for worker in workers if worker.process is None and not stopping]
    if drained_s > now_s:
        due_s.append(drained_s)
    return max(0.0, min([now_s + LOOK_S, *due_s]) - now_s)


def most_silent(workers: Sequence[Worker]) -> Worker | None:
    """Whom to kill, if anybody. Pure."""
    running = [worker for worker in workers if worker.process is not None]
    silent = [one for one in running if one.silent_s >= (SILENT_S if one.signs else STARTING_S)]
    return max(silent, key=lambda worker: worker.silent_s, default=None)


def restart_delay_s(failures: int) -> float:
    """Before the next start of a worker that has failed so many times in a row. Pure."""
    return min(LONGEST_DELAY_S, 0.2 * 2.0 ** (failures - 1)) if failures else 0.0


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[int]:
    """Calls `stop` on SIGTERM and SIGINT. Yields a file that becomes readable when they, or a worker's end, come."""
    heard, wake = os.pipe()
    os.set_blocking(wake, False)
    before = signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield heard
    finally:
        signal.set_wakeup_fd(before)
        os.close(heard)
        os.close(wake)


def _drained(file: int) -> bytes:
    os.read(file, 4096)
    return b""
