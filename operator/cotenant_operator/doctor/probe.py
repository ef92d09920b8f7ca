"""Looking at this machine for `cotenant doctor`. Reads only; imports no torch, for that takes seconds."""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import resource
import shutil
import sys
import time
from pathlib import Path

from cotenant_operator.doctor.gpu_probe import probe_gpus
from cotenant_operator.doctor.hub_probe import probe_hub
from cotenant_operator.doctor.snapshot import Package, Snapshot, Torch
from cotenant_operator.doctor.state_probe import probe_state
from cotenant_operator.processes import port_is_free
from cotenant_serving.contract import ENGINE_PORTS

EXTRAS = ("gateway", "conductor", "cache", "engine", "tracing")
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[^\]]*\])?(?P<wanted>[^;]*)(;\s*extra == '(?P<extra>[\w-]+)')?")


def look(state: Path, *, port: int, hub: bool) -> Snapshot:
    import psutil

    from cotenant_operator.machine import host_memory_bytes

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    total = host_memory_bytes()
    return Snapshot(
        system=platform.system(),
        python=sys.version_info[:3],
        cpus=os.cpu_count() or 1,
        extras={extra: _packages(extra) for extra in EXTRAS},
        memory_bytes=total,
        memory_free_bytes=min(total, int(psutil.virtual_memory().available)),
        shm_bytes=_free_bytes(Path("/dev/shm")),  # noqa: S108
        open_files=soft,
        open_files_most=hard,
        engine_ports_free=sum(port_is_free("127.0.0.1", number) for number in ENGINE_PORTS),
        gateway_port=port,
        gateway_port_free=port_is_free("127.0.0.1", port),
        gpus=probe_gpus(),
        torch=_torch(),
        state=probe_state(state),
        now_s=time.time(),
        installed_s=Path(__file__).stat().st_mtime,
        hub=probe_hub() if hub else None,
    )


def _packages(extra: str) -> tuple[Package, ...]:
    """What the extra asks for, from cotenant's own metadata, with what is installed of it."""
    found = []
    for text in _requirements():
        match = _REQUIREMENT.match(text)
        if match and match["extra"] == extra and match["name"] != "cotenant":
            found.append(Package(match["name"], match["wanted"].strip(), _version(match["name"])))
    return tuple(found)


def _requirements() -> list[str]:
    """Nothing for a program that runs from its source tree."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.requires("cotenant") or []
    return []


def _version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _free_bytes(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return shutil.disk_usage(path).free
    return None


def _torch() -> Torch | None:
    """From its version.py, which says what it was built for."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        with contextlib.suppress(OSError):
            text = (Path(folder) / "version.py").read_text()
            version = re.search(r"__version__ = '([^']+)'", text)
            cuda = re.search(r"^cuda(?:: [^=]+)? = '([^']+)'", text, re.MULTILINE)
            return Torch(version[1] if version else "of unknown version", cuda[1] if cuda else None)
    return None
