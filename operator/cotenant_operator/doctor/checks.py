"""Snapshot → findings: what this machine lacks, and the command that fixes it. Pure."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from cotenant_operator.doctor.snapshot import Package, Snapshot
from cotenant_operator.quantity import GIB, MIB, show_bytes
from cotenant_serving.contract import ENGINE_PORTS

Level = Literal["ok", "warning", "problem"]

PYTHON = (3, 11)
SHM_BYTES = 128 * MIB
"""Ray's object store takes 80 MB of it."""
OPEN_FILES = 8192
"""4096 connections of clients, as many to engines."""
DISK_BYTES = 5 * GIB
MEMORY_BYTES = 2 * GIB
"""Ray, conductor and gateway take 0.7 GiB, an engine with torch 0.6 GiB before its model."""
SOCKET_PATH = 107
"""Bytes of a Unix socket's path, at most."""
RAY_SOCKET = len("/session_2026-11-26_10-00-00_000000_0000000/sockets/plasma_store")
CLOCK_SKEW_S = 60.0
NEEDED = {"gateway": "", "conductor": "", "cache": "", "engine": "models other than echo need it", "tracing": None}
"""Extra → what needs it; None: nothing does unless it is asked for."""


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    check: str
    message: str
    fix: str = ""
    """A command, or what to do; empty for `ok`."""


def examine(seen: Snapshot) -> list[Finding]:
    """Every finding, in the order of `_CHECKS`."""
    return [finding for check in _CHECKS for finding in check(seen)]


def _system(seen: Snapshot) -> Iterator[Finding]:
    if seen.system == "Linux":
        yield Finding("ok", "system", f"Linux, {seen.cpus} CPU cores")
    else:
        yield Finding("problem", "system", f"{seen.system}; `cotenant up` runs on Linux", "use Linux, or a container")


def _python(seen: Snapshot) -> Iterator[Finding]:
    version = ".".join(map(str, seen.python))
    if seen.python[:2] >= PYTHON:
        yield Finding("ok", "python", version)
    else:
        yield Finding("problem", "python", f"{version} is older than 3.11", "python3.11 -m venv .venv")


def _packages(seen: Snapshot) -> Iterator[Finding]:
    if not any(seen.extras.values()):
        said = "cotenant runs from its source tree, so what it needs was not compared with what is there"
        yield Finding("warning", "packages", said, "make install")
        return
    for extra, packages in seen.extras.items():
        check, fix = f"packages: {extra}", f"pip install 'cotenant[{extra}]'"
        missing = [package.name for package in packages if package.version is None]
        wrong = [_wrong(package) for package in packages if not _fits(package)]
        if not missing and not wrong:
            yield Finding("ok", check, ", ".join(f"{package.name} {package.version}" for package in packages))
        elif NEEDED.get(extra, "") is None and missing:  # Ray brings a part of it
            yield Finding("ok", check, "not installed; nothing needs it until it is asked for")
        else:
            lacking = [f"not installed: {', '.join(missing)}"] if missing else []
            needed_by = [text] if (text := NEEDED.get(extra)) else []
            yield Finding("problem", check, "; ".join([*lacking, *wrong, *needed_by]), fix)


def _wrong(package: Package) -> str:
    return f"{package.name} {package.version} does not fit {package.wanted}"


def _fits(package: Package) -> bool:
    """`<1,>=0.34`; what is not installed is not wrong."""
    if package.version is None:
        return True
    have = _numbers(package.version)
    for part in package.wanted.split(","):
        match = re.fullmatch(r"(>=|<)([\d.]+)", part.strip())
        if match and (have >= _numbers(match[2])) != (match[1] == ">="):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """`2.9.0+cpu` → (2, 9), so that 2.9 and 2.9.0 are the same."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _memory(seen: Snapshot) -> Iterator[Finding]:
    text = f"{show_bytes(seen.memory_free_bytes)} of {show_bytes(seen.memory_bytes)} free"
    if seen.memory_free_bytes >= MEMORY_BYTES:
        yield Finding("ok", "memory", text)
    else:
        fix = "end other programs: `cotenant up` and one small model take 2 GiB"
        yield Finding("warning", "memory", text, fix)


def _disk(seen: Snapshot) -> Iterator[Finding]:
    text = f"{show_bytes(seen.state.disk_free_bytes)} free for {seen.state.path}"
    if seen.state.disk_free_bytes >= DISK_BYTES:
        yield Finding("ok", "disk", text)
    else:
        yield Finding("warning", "disk", text, "free some, or use another disk: cotenant up --state DIR")


def _shm(seen: Snapshot) -> Iterator[Finding]:
    if seen.shm_bytes is not None and seen.shm_bytes >= SHM_BYTES:
        yield Finding("ok", "shared memory", f"{show_bytes(seen.shm_bytes)} free in /dev/shm")
        return
    text = "there is no /dev/shm" if seen.shm_bytes is None else f"{show_bytes(seen.shm_bytes)} free in /dev/shm"
    fix = "mount -o remount,size=1g /dev/shm, or of a container: docker run --shm-size=1g"
    yield Finding("warning", "shared memory", f"{text}; Ray then uses the disk, which is slower", fix)


def _open_files(seen: Snapshot) -> Iterator[Finding]:
    if seen.open_files >= OPEN_FILES:
        yield Finding("ok", "open files", f"{seen.open_files} at most")
        return
    most = min(65_536, seen.open_files_most)
    fix = f"ulimit -n {most}"
    if most < OPEN_FILES:
        fix = "raise the hard limit: `* hard nofile 65536` in /etc/security/limits.conf, and log in again"
    yield Finding("warning", "open files", f"{seen.open_files} at most; 4096 clients need {OPEN_FILES}", fix)


def _ports(seen: Snapshot) -> Iterator[Finding]:
    port, state = seen.gateway_port, seen.state
    if seen.gateway_port_free:
        yield Finding("ok", "gateway port", f"{port} is free")
    elif state.running_pid is not None:
        yield Finding("ok", "gateway port", f"{port} is taken, perhaps by the `cotenant up` that runs here")
    else:
        yield Finding("problem", "gateway port", f"{port} is taken", "cotenant up --port 0 takes a free one")
    first, last = ENGINE_PORTS[0], ENGINE_PORTS[-1]
    text = f"{seen.engine_ports_free} of {len(ENGINE_PORTS)} free ({first} to {last})"
    if seen.engine_ports_free >= 10:
        yield Finding("ok", "engine ports", text)
    else:
        fix = f"ss -ltnp 'sport >= {first} and sport <= {last}' shows who has them; each engine takes one"
        yield Finding("warning" if seen.engine_ports_free else "problem", "engine ports", text, fix)


def _gpu(seen: Snapshot) -> Iterator[Finding]:
    gpus = seen.gpus
    if gpus.names:
        cuda = ".".join(map(str, gpus.cuda)) if gpus.cuda else "unknown"
        yield Finding("ok", "gpu", f"{', '.join(gpus.names)}; driver {gpus.driver}, CUDA {cuda}")
    elif gpus.device_files and gpus.visible is not None and not gpus.problem.startswith("NVML: "):
        text = f"CUDA_VISIBLE_DEVICES={gpus.visible!r} hides {gpus.device_files} GPU(s)"
        yield Finding("warning", "gpu", text, "unset CUDA_VISIBLE_DEVICES, if models shall run on them")
    elif gpus.device_files:
        text = f"{gpus.device_files} GPU(s) are there, but: {gpus.problem}"
        fix = "pip install 'cotenant[engine]'" if "not installed" in gpus.problem else "nvidia-smi says what is wrong"
        yield Finding("problem", "gpu", text, fix)
    else:
        yield Finding("ok", "gpu", f"none, so models run on device cpu ({gpus.problem})")


def _torch(seen: Snapshot) -> Iterator[Finding]:
    torch, gpus = seen.torch, seen.gpus
    if torch is None:
        return  # the packages say so
    build = f"{torch.version}, built for {f'CUDA {torch.cuda}' if torch.cuda else 'the CPU'}"
    if gpus.names and torch.cuda is None:
        fix = "pip install --force-reinstall torch"
        yield Finding("problem", "torch", f"{build}; it cannot use the GPU", fix)
    elif gpus.names and gpus.cuda and torch.cuda and _numbers(torch.cuda)[:1] > gpus.cuda[:1]:
        index = f"https://download.pytorch.org/whl/cu{gpus.cuda[0]}{gpus.cuda[1]}"
        have = f"{build}; driver {gpus.driver} supports CUDA {gpus.cuda[0]}.{gpus.cuda[1]} at most"
        fix = f"install a newer driver, or: pip install --force-reinstall torch --index-url {index}"
        yield Finding("problem", "torch", have, fix)
    else:
        yield Finding("ok", "torch", build)


def _state(seen: Snapshot) -> Iterator[Finding]:
    state = seen.state
    if len(state.ray_temp.encode()) + RAY_SOCKET > SOCKET_PATH:
        text = f"{state.ray_temp} is too long: Ray's sockets below it do not fit in {SOCKET_PATH} bytes"
        yield Finding("problem", "temporary folder", text, "export TMPDIR=/tmp")
    if not state.exists:
        yield Finding("ok", "state directory", f"{state.path} is made by the first `cotenant up`")
    elif state.foreign:
        fix = "run as its owner, or use one of your own: --state DIR"
        yield Finding("problem", "state directory", f"{state.path} belongs to another user", fix)
    elif not state.writable:
        yield Finding("problem", "state directory", f"{state.path} cannot be written", f"chmod u+rwx '{state.path}'")
    elif state.open_to_others:
        text = f"others may read {', '.join(state.open_to_others[:3])}"
        fix = f"chmod -R go= '{state.path}'"
        yield Finding("problem", "state directory", text, fix)
    else:
        yield Finding("ok", "state directory", f"{state.path}, private")


def _lock(seen: Snapshot) -> Iterator[Finding]:
    state = seen.state
    if state.running_pid is not None:
        yield Finding("ok", "up", f"runs as process {state.running_pid}")
    elif state.leftovers:
        text = f"does not run, but has left {state.leftovers} process(es)"
        yield Finding("warning", "up", text, "the next `cotenant up` on this state directory ends them")
    elif state.dead_pid is not None:
        text = f"process {state.dead_pid} was ended by force, and control.json still names it"
        yield Finding("warning", "up", text, "the next `cotenant up` clears it away: cotenant up -f FILE")
    else:
        yield Finding("ok", "up", "does not run on this state directory")


def _clock(seen: Snapshot) -> Iterator[Finding]:
    skew = seen.hub.clock_skew_s if seen.hub else None
    if seen.now_s < seen.installed_s - CLOCK_SKEW_S:
        text = "the clock is behind the time at which cotenant was installed"
        yield Finding("problem", "clock", f"{text}; usage would be dated wrongly", "timedatectl set-ntp true")
    elif skew is not None and abs(skew) > CLOCK_SKEW_S:
        text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the hub's"
        yield Finding("warning", "clock", text, "timedatectl set-ntp true")
    else:
        yield Finding("ok", "clock", "plausible" if skew is None else f"{abs(skew):.0f} s from the hub's")


def _hub(seen: Snapshot) -> Iterator[Finding]:
    hub = seen.hub
    if hub is None:
        return
    if hub.offline:
        text = "HF_HUB_OFFLINE is set: only models that are on disk load"
        yield Finding("warning", "hub", text, "unset HF_HUB_OFFLINE")
    elif not hub.endpoint:
        yield Finding("problem", "hub", hub.problem, "set HF_ENDPOINT to the hub's address, or unset it")
    elif hub.problem:
        fix = f"curl -I {hub.endpoint}; set HTTPS_PROXY or HF_ENDPOINT if you need them"
        yield Finding("problem", "hub", f"{hub.endpoint} does not answer: {hub.problem}", fix)
    elif hub.token == "refused":  # noqa: S105
        yield Finding("problem", "hub", f"{hub.endpoint} refuses the token", "make a new one, then: hf auth login")
    else:
        said = {"none": "no token, so no gated models", "good": "the token is good"}.get(
            hub.token, "token not checked"
        )
        yield Finding("ok", "hub", f"{hub.endpoint} answers; {said}")


_CHECKS: tuple[Callable[[Snapshot], Iterator[Finding]], ...] = (
    _system,
    _python,
    _packages,
    _gpu,
    _torch,
    _memory,
    _disk,
    _shm,
    _open_files,
    _ports,
    _state,
    _lock,
    _clock,
    _hub,
)
