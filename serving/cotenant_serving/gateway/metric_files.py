"""The files in which workers count metrics; see `metrics`, which is not imported by the supervisor."""

import os
from pathlib import Path

KINDS = ("counter", "histogram")
FILE_BYTES = 1 << 20
"""Of each file: the series of a few hundred pairs of tenant and model. More make it grow."""


def make_files(folder: Path, workers: int) -> None:
    """Empty ones, with their blocks: a mapped hole on a full disk would end a worker. Raises OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for worker in range(workers):
        for kind in KINDS:
            file = os.open(folder / f"{kind}_{worker}.db", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, FILE_BYTES)
            finally:
                os.close(file)
