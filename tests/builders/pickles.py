"""Pickles that leave a marker file when somebody reads them, in the wrappings in which models come."""

import io
import os
import pickle
import zipfile
from pathlib import Path


class _Touch:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self._marker),)


def malicious_pickle(marker: Path) -> bytes:
    """Makes the folder `marker` when it is unpickled."""
    return pickle.dumps(_Touch(marker), protocol=2)


def malicious_torch_file(marker: Path) -> bytes:
    """As `torch.save` lays it out since torch 1.6: a zip with the pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("archive/data.pkl", malicious_pickle(marker))
        opened.writestr("archive/version", b"3\n")
        opened.writestr("archive/byteorder", b"little")
    return buffer.getvalue()
