"""Cache instances in processes of their own, which can be killed at any step, and the program that they run.

One program with everything imported forks a process for each instance: an instance then costs milliseconds. It is
told what to do as a list of calls (`["ensure", "hf://org/a", "lease"]`), and answers a JSON line for each.
"""

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil

from tests.builders.cached_models import volume_bytes, wrong_files

DEADLINE_S = 60.0
KILLED = -signal.SIGKILL


def asking(url: str) -> dict[str, str]:
    """Environment of an instance that asks the hub at `url`, whatever the shell says about hubs."""
    return {"HF_ENDPOINT": url, "HF_TOKEN": "", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass
class Instance:
    """A running instance, or one that was."""

    pid: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    exit: int | None = None
    """What the process ended with; minus the signal when one ended it."""

    def of(self, call: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["call"] == call]


class CacheProcesses:
    """Starts instances, on any volume. `environment` is added to theirs."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.cache_processes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        )
        self._changed = threading.Condition()
        self._instances: dict[int, Instance] = {}
        self._started: list[Instance] = []
        self._over = False
        """The program has ended."""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def start(
        self, root: Path, *calls: list[Any], budget: int | None = None, die_at: str = "", **more: Any
    ) -> Instance:
        """`die_at`: `STEP` or `STEP#2`, its second time; the process kills itself there."""
        case = {"root": str(root), "calls": calls, "budget": budget, "die_at": die_at, **more}
        assert self._program.stdin is not None
        count = len(self._started)
        self._program.stdin.write(json.dumps(case) + "\n")
        self._program.stdin.flush()
        self.until(lambda: len(self._started) > count, "an instance to start")
        return self._started[-1]

    def run(self, root: Path, *calls: list[Any], **more: Any) -> Instance:
        """As `start`, until it has ended."""
        return self.ended(self.start(root, *calls, **more))

    def ended(self, instance: Instance) -> Instance:
        self.until(lambda: instance.exit is not None, f"instance {instance.pid} to end")
        return instance

    def said(self, instance: Instance, call: str, **fields: Any) -> dict[str, Any]:
        """Waits for a line of it."""

        def found() -> list[dict[str, Any]]:
            return [line for line in instance.of(call) if fields.items() <= line.items()]

        self.until(lambda: bool(found()) or instance.exit is not None, f"{call} of instance {instance.pid}")
        assert found(), f"it ended with {instance.exit} and {instance.lines}"
        return found()[0]

    def kill(self, instance: Instance) -> None:
        os.kill(instance.pid, signal.SIGKILL)
        self.ended(instance)

    def go_on(self, instance: Instance) -> None:
        """After it has `stopped` at `stop_at`: it says so right before it does, and what comes sooner is lost."""
        until = time.monotonic() + DEADLINE_S
        while psutil.Process(instance.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < until, f"instance {instance.pid} does not stop"
            time.sleep(0.001)
        os.kill(instance.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for instance in self._started:
            if instance.exit is None:
                os.kill(instance.pid, signal.SIGKILL)
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.close()
        self._program.wait()
        self._reader.join()
        self._program.stdout.close()

    def until(self, true: Callable[[], bool], what: str) -> None:
        with self._changed:
            met = self._changed.wait_for(lambda: true() or self._over, DEADLINE_S)
            if not met or (self._over and not true()):
                raise AssertionError(f"waited {DEADLINE_S:g} s for {what}; said so far: {self._instances}")

    def _read(self) -> None:
        assert self._program.stdout is not None
        for text in self._program.stdout:
            line = json.loads(text)
            with self._changed:
                instance = self._instances.get(line["pid"])
                if line["call"] == "start" or instance is None:
                    instance = Instance(line["pid"])
                    self._instances[line["pid"]] = instance
                    self._started.append(instance)
                if line["call"] == "exit":
                    instance.exit = line["exit"]
                elif line["call"] != "start":
                    instance.lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


def fill_disk(file: Path) -> None:
    """Somebody else's file, as large as the disk lets it be."""
    with file.open("ab", buffering=0) as stream, suppress(OSError):
        for size in (2**20, 4096):
            with suppress(OSError):
                while stream.write(bytes(size)) == size:
                    pass


def main() -> None:
    """Reads cases, one a line, and forks for each. Says what they are called, and how they end."""
    import cotenant_cache.cache
    import cotenant_cache.fetch
    import cotenant_cache.hub  # noqa: F401 - so that an instance need not

    waiting, pending, running = b"", True, 0
    while pending or running:
        if pending and select.select([0], [], [], 0.01)[0]:
            more = os.read(0, 2**16)
            pending = bool(more)
            *cases, waiting = (waiting + more).split(b"\n")
            for case in cases:
                running += 1
                _fork(json.loads(case))
        elif not pending:
            time.sleep(0.01)
        while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            running -= 1
            _say("exit", pid=ended[0], exit=os.waitstatus_to_exitcode(ended[1]))


def _fork(case: dict[str, Any]) -> None:
    gate, opened = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opened)
        os.read(gate, 1)  # until its start was said
        status = 1
        try:
            _act(case)
            status = 0
        except BaseException:
            _say("broken", traceback=traceback.format_exc())
        finally:
            os._exit(status)
    os.close(gate)
    _say("start", pid=pid)
    os.close(opened)


def _say(call: str, *, pid: int = 0, **fields: Any) -> None:
    os.write(1, json.dumps({"pid": pid or os.getpid(), "call": call, **fields}).encode() + b"\n")


def _act(case: dict[str, Any]) -> None:
    """What one instance does, in a process of its own."""
    from cotenant_cache.backoff import Patience
    from cotenant_cache.cache import Cache
    from cotenant_cache.errors import CacheError
    from cotenant_cache.fetch import FetchLimits
    from cotenant_cache.supply import HubSupply

    if user := case.get("user"):
        _become(user)
    limits = dict(case.get("limits", {}))
    if "patience" in limits:
        limits["patience"] = Patience(**limits["patience"])
    supply = HubSupply(FetchLimits(**limits))
    most, wrong = [0], set[str]()
    step = _deadly(case, most)
    if case.get("watch_names"):
        step = _watching_names(Path(case["root"]), wrong, step)
    try:
        with Cache(Path(case["root"]), case["budget"], supply=supply, step=step) as cache:
            _say("open", repaired=asdict(cache.repaired))
            for name, *arguments in case["calls"]:
                try:
                    _say(name, **_CALLS[name](cache, *arguments))
                except CacheError as error:
                    _say(name, error=error.reason, message=error.message)
            if case.get("watch_bytes"):
                _say("most", bytes=most[0])
            if case.get("watch_names"):
                _say("wrong", names=sorted(wrong))
    except CacheError as error:
        _say("open", error=error.reason, message=error.message)


def _become(user: int) -> None:
    """What is imported only when it is needed may lie where this user cannot read."""
    import encodings.idna  # noqa: F401

    import cotenant_serving.weight_cache.verification  # noqa: F401

    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def _deadly(case: dict[str, Any], most: list[int]) -> Callable[[str], None]:
    """Counts steps; says each when asked to, keeps the most bytes that the volume had after one, and dies at one."""
    seen: Counter[str] = Counter()
    turn = threading.Lock()
    said = (case["die_at"], case.get("fill_at", ""), case.get("stop_at", ""))
    die_at, full_at, stop_at = (at if "#" in at else f"{at}#1" for at in said)

    def step(what: str) -> None:
        with turn:  # threads that fetch files are at the same step at once
            seen[what] += 1
            this = f"{what}#{seen[what]}"
        if case.get("tell_steps"):
            _say("step", step=what)
        if case.get("watch_bytes"):
            most[0] = max(most[0], volume_bytes(Path(case["root"])))
        if this == full_at:
            fill_disk(Path(case["root"]) / "filler")
        if this == stop_at:
            _say("stopped")
            os.kill(os.getpid(), signal.SIGSTOP)
        if this == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


def _watching_names(root: Path, wrong: set[str], then: Callable[[str], None]) -> Callable[[str], None]:
    """Adds what other tools would read and should not, before and after each step."""

    def step(what: str) -> None:
        wrong.update(wrong_files(root))
        then(what)

    return step


def _ensure(
    cache: Any, source: str, lease: str = "", deadline_s: float | None = None, priority: int | None = None
) -> dict[str, Any]:
    last = [""]

    def progress(said: Any) -> None:
        shown = f"{said.phase} {said.done_bytes}"
        if shown != last[0]:
            last[0] = shown
            _say("progress", phase=said.phase, done=said.done_bytes, total=said.total_bytes)

    leased = cache.ensure(source, lease, progress, deadline_s, priority=priority)
    if leased.lease_id:
        _TAKEN.append(leased.lease_id)
    files = {
        str(path.relative_to(leased.folder)): _digest(path) for path in leased.folder.rglob("*") if path.is_file()
    }
    return {"folder": str(leased.folder), "commit": leased.commit, "lease": leased.lease_id, "files": files}


def _release_all(cache: Any) -> dict[str, Any]:
    while _TAKEN:
        cache.release(_TAKEN.pop())
    return {}


def _take_turns(cache: Any, source: str) -> dict[str, Any]:
    """Ensures with a lease, reads every file, and gives the lease back, until it is killed."""
    while True:
        _say("turn", **_ensure(cache, source, "engine"))
        _release_all(cache)


def _evict_always(cache: Any, source: str) -> dict[str, Any]:
    """Whenever the model is there, until it is killed."""
    from cotenant_cache.errors import ModelNotFoundError

    while True:
        with suppress(ModelNotFoundError):
            plan = cache.evict([source], yes=True)
            _say("evicted" if plan.fits else "refused", why=plan.refusal)
        time.sleep(0.001)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _evict(cache: Any, sources: list[str], room_bytes: int = 0, yes: bool = True) -> dict[str, Any]:
    plan = cache.evict(sources, room_bytes, yes=yes)
    return {"gone": [[item.repo, item.commit] for item in plan.evict], "refusal": plan.refusal}


def _check_in_background(cache: Any) -> dict[str, Any]:
    """One round, as fast as the disk."""
    from cotenant_serving.weight_cache.verification import Verification

    verification = Verification(cache, 2**40)
    verification.round()
    return {"bytes": verification.read_bytes, "bad": verification.bad}


def _hold(cache: Any) -> dict[str, Any]:
    del cache
    _say("holding")
    time.sleep(DEADLINE_S * 10)
    return {}


_TAKEN: list[str] = []
_CALLS: dict[str, Callable[..., dict[str, Any]]] = {
    "ensure": _ensure,
    "evict": _evict,
    "take_turns": _take_turns,
    "evict_always": _evict_always,
    "hold": _hold,
    "lease": lambda cache, source, name: {"lease": cache.lease(source, name).lease_id},
    "release": lambda cache, lease: cache.release(lease) or {},
    "release_all": _release_all,
    "plan": lambda cache, source: msgspec.to_builtins(cache.plan(source)),
    "pin": lambda cache, source: {"commit": cache.pin(source)},
    "unpin": lambda cache, source: {"commit": cache.unpin(source)},
    "set_budget": lambda cache, size: cache._store.volume.set_budget(size) or {},
    "note_revision": lambda cache, *what: cache._store.volume.note_revision(*what) or {},
    "verify": lambda cache: asdict(cache.verify()),
    "check_in_background": _check_in_background,
    "adopt": lambda cache: {"adopted": [asdict(one) for one in cache.adopt()]},
    "models": lambda cache: {"models": [msgspec.to_builtins(model) for model in cache.models()]},
    "usage": lambda cache: msgspec.to_builtins(cache.usage()),
}


if __name__ == "__main__":
    main()
