"""The state directory: whose it is, who may read it, and whether an `up` runs on it. Takes no lock."""

import contextlib
import json
import os
import shutil
from pathlib import Path

from cotenant_operator.doctor.snapshot import StateFacts
from cotenant_operator.processes import marked_processes
from cotenant_operator.state_dir import StateDir


def probe_state(path: Path) -> StateFacts:
    state = StateDir(path)
    where = state.path
    ray_temp = str(state.ray_temp)
    existing = next((folder for folder in (where, *where.parents) if folder.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    if not where.exists():
        writable = os.access(existing, os.W_OK | os.X_OK)
        return StateFacts(path=str(where), disk_free_bytes=free, writable=writable, ray_temp=ray_temp)
    pid = _pid(where / "control.json")
    alive = pid is not None and Path(f"/proc/{pid}").exists()
    return StateFacts(
        path=str(where),
        exists=True,
        foreign=where.stat().st_uid != os.getuid(),
        writable=os.access(where, os.W_OK | os.X_OK),
        open_to_others=_open_to_others(where),
        disk_free_bytes=free,
        running_pid=pid if alive else None,
        dead_pid=None if alive else pid,
        leftovers=0 if alive else len(marked_processes(where)),
        ray_temp=ray_temp,
    )


def _pid(control: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads(control.read_bytes())["pid"])
    return None


def _open_to_others(where: Path) -> tuple[str, ...]:
    """A private folder protects all that is in it; if it is not, its secrets are looked at too."""
    candidates = [where]
    with contextlib.suppress(OSError):
        candidates += [path for path in (where / "secrets", *(where / "secrets").iterdir()) if path.exists()]
    candidates += [path for name in ("gateway.json", "keys.json") if (path := where / name).exists()]
    found = []
    for path in candidates:
        with contextlib.suppress(OSError):
            if path.stat().st_mode & 0o077:
                found.append(str(path))
    return tuple(found)
