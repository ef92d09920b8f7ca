"""Whether a file is another one than it was: its writers replace it by rename, as Kubernetes does what it mounts."""

import contextlib
import os
from pathlib import Path


def signature_of(path: Path) -> tuple[int, int, int] | None:
    """What changes with the file; None when it cannot be found."""
    with contextlib.suppress(OSError):
        stat = os.stat(path)
        return stat.st_mtime_ns, stat.st_ino, stat.st_size
    return None
