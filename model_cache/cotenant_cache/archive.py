"""torch.export archives (`.pt2`), judged by the zip's table of contents: nothing is unpickled. Pure.

    ROOT/archive_format         `pt2`
    ROOT/models/model.json      the graph
    ROOT/data/weights/          raw bytes of tensors, and a JSON that names them; constants/ likewise
    ROOT/data/sample_inputs/    a pickle that torch always writes and no engine needs to read

Format: https://docs.pytorch.org/docs/main/user_guide/torch_compiler/export/pt2_archive.html
"""

import json
import struct
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import IO

from cotenant_cache.errors import CorruptWeightsError, UnsafeFilesError, UnsupportedArchitectureError

_GRAPH = "models/model.json"
_PAYLOADS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_MOST_BYTES = 16 * 2**20
"""Of the table of contents, and of a description of tensors, packed or not; with 60,000 tensors they are shorter."""
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What is unpacked by as much as is asked for. torch only stores."""
_OBJECTS = ("data/constants/custom_obj_", "data/constants/opaque_obj_")
_OLD_PICKLES = ("data/weights/model.pt", "data/constants/model.pt")
_COMPILED = ("data/aotinductor/", "data/executorch/", "data/mtia")
_AGAIN = "save it again with torch.export.save"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OverflowError, struct.error)
"""What zipfile raises for bytes that are no zip file; ValueError for names that are no text."""


def archive_bytes(stream: IO[bytes], *, file: str) -> int:
    """Bytes of everything in the archive when it is unpacked.

    Raises CorruptWeightsError, UnsupportedArchitectureError, UnsafeFilesError. Whatever the stream itself has
    against being read goes through.
    """
    try:
        with zipfile.ZipFile(_Bounded(stream)) as opened:
            entries = {_inside(entry.filename): entry for entry in opened.infolist()}
            _refuse_other_kinds(entries, file)
            for name in _PAYLOADS:
                if name in entries:
                    _refuse_pickled_tensors(_payload(opened, entries[name], file), file)
            return sum(entry.file_size for entry in entries.values())
    except _DAMAGE as error:
        raise CorruptWeightsError(f"{file}: is no whole zip file ({error}); {_AGAIN}, or fetch it again") from None


class _Bounded:
    """Reads no more at once than an archive needs, whatever lengths it names."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _MOST_BYTES:
            raise zipfile.BadZipFile(f"its table of contents has {size} bytes, at most {_MOST_BYTES} are read")
        return self._stream.read(size)


def _inside(name: str) -> str:
    """Without the root folder, whose name is the one that the file was saved under."""
    return name.partition("/")[2] or name


def _refuse_other_kinds(names: Iterable[str], file: str) -> None:
    present = sorted(names)
    for name in present:
        if name.startswith(_COMPILED):
            raise UnsafeFilesError(f"{file}: has compiled code ({name!r}), which is never run; {_AGAIN}")
        if name.startswith(_OBJECTS) or name in _OLD_PICKLES:
            raise UnsafeFilesError(f"{file}: {name!r} is a pickle, which may run code when it is read; {_AGAIN}")
    if _GRAPH not in present or "archive_format" not in present:
        raise UnsupportedArchitectureError(
            f"{file}: is a zip file, but no torch.export archive with one model ({_GRAPH}); "
            f"{_AGAIN} of torch 2.8 or newer"
        )


def _payload(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, file: str) -> dict[str, object]:
    value: object = None
    if entry.file_size <= _MOST_BYTES and entry.compress_type in _PLAIN:
        with opened.open(entry) as stream, suppress(ValueError, RecursionError):
            value = json.loads(stream.read(entry.file_size))  # without a number all that is packed is unpacked first
    config = value.get("config") if isinstance(value, dict) else None
    if not isinstance(config, dict):
        raise CorruptWeightsError(f"{file}: {entry.filename!r} does not describe tensors; {_AGAIN}")
    return config


def _refuse_pickled_tensors(config: dict[str, object], file: str) -> None:
    for name, described in config.items():
        if not isinstance(described, dict) or described.get("use_pickle") is not False:
            raise UnsafeFilesError(
                f"{file}: tensor {name!r} is stored as a pickle, which may run code when it is read; "
                f"make it a plain dense tensor and {_AGAIN}"
            )
