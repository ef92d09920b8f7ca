"""A torch.export archive (`.pt2`) as a file: which parts it has, and their bytes. Nothing is unpickled or executed.

    ROOT/archive_format, archive_version, byteorder, .data/…   fixed words
    ROOT/models/model.json                                     the program
    ROOT/data/weights/model_weights_config.json, weight_0 …    raw tensors, and what they are
    ROOT/data/constants/model_constants_config.json, tensor_0 … the same
    ROOT/data/sample_inputs/model.pt                           a pickle that torch always writes; it is never read
    ROOT/extra/…                                               files of the user's; never read

torch's own reader unpickles sample inputs and whatever a config calls pickled, so it is not used: what is checked
here is what is read here. Anything else in the archive is refused. torch stores all parts uncompressed, one after the
other, so that an archive that is larger inside than outside is a trap.
"""

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError

PROGRAM = "models/model.json"
WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
CONFIGS = {WEIGHTS: f"{WEIGHTS}model_weights_config.json", CONSTANTS: f"{CONSTANTS}model_constants_config.json"}
MAX_JSON_BYTES = 64 * 2**20
MAX_PARTS = 100_000
CHUNK_BYTES = 2**20
_WORDS = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/weights/(weight_[0-9]{1,9}|model_weights_config\.json)"
    r"|data/constants/(tensor_[0-9]{1,9}|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|extra/[^\x00-\x1f\\]+"
)
_PICKLES = re.compile(r"data/(weights|constants)/(model\.pt|custom_obj_.*|opaque_obj_.*)|.*\.(pt|pkl|pickle)")
_COMPILED = re.compile(r"data/(aotinductor|executorch|mtia)/.*|.*\.(so|cpp|o)")
_AGAIN = "Save the model again with torch.export.save."


class Archive:
    """Open for reading. `max_bytes`: more than that is refused, as it would not fit."""

    def __init__(self, file: Path, max_bytes: int) -> None:
        self._file = file
        try:
            self._zip = zipfile.ZipFile(file)
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise LoadError(Reason.CORRUPT_WEIGHTS, f"{file} is no whole zip file: {error}. {_AGAIN}") from None
        try:
            self._parts = self._checked_parts(max_bytes)
            for name, word in _WORDS.items():
                if self.read(name) != word:
                    raise self._unknown(f"its {name} is not {word.decode()!r}")
        except BaseException:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._zip.close()

    def size(self, part: str) -> int:
        return self._part(part).file_size

    def read(self, part: str) -> bytes:
        """Raises LoadError when it is not there or damaged."""
        try:
            return self._zip.read(self._part(part))
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise self._damaged(part, error) from None

    def read_buffer(self, part: str) -> bytearray:
        """As `read`, into memory that may be written to, without holding it twice."""
        buffer, filled = bytearray(self.size(part)), 0
        try:
            with self._zip.open(self._part(part)) as stream:
                while chunk := stream.read(CHUNK_BYTES):  # to the end, where the checksum is compared
                    buffer[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
        except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise self._damaged(part, error) from None
        if filled != len(buffer):
            raise self._damaged(part, f"{filled} of {len(buffer)} bytes")
        return buffer

    def json(self, part: str) -> Any:
        if self.size(part) > MAX_JSON_BYTES:
            raise LoadError(
                Reason.UNSUPPORTED_ARCHITECTURE,
                f"{self._file}: {part} has {self.size(part)} bytes, and at most {MAX_JSON_BYTES} are read.",
            )
        try:
            return json.loads(self.read(part))
        except (ValueError, RecursionError):
            raise LoadError(Reason.CORRUPT_WEIGHTS, f"{self._file}: {part} is not JSON. {_AGAIN}") from None

    def _part(self, name: str) -> zipfile.ZipInfo:
        found = self._parts.get(name)
        if found is None:
            raise self._unknown(f"it has no {name}")
        return found

    def _checked_parts(self, max_bytes: int) -> Mapping[str, zipfile.ZipInfo]:
        entries = self._zip.infolist()
        if len(entries) > MAX_PARTS:
            raise self._unsafe(f"it has {len(entries)} parts")
        root = entries[0].filename.partition("/")[0] + "/" if entries else "/"
        parts: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            # Not what zipfile made of it: a name is cut there at its first null byte.
            name = entry.orig_filename.removeprefix(root)
            if not entry.orig_filename.startswith(root) or name in parts:
                raise self._unsafe(f"it has the part {entry.orig_filename!r} twice, or outside {root!r}")
            self._check_name(name)
            if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
                raise self._unsafe(f"its part {name} is compressed, which torch.export.save never does")
            if entry.flag_bits & 0x1:
                raise self._unsafe(f"its part {name} is encrypted")
            parts[name] = entry
        self._check_size(sum(entry.file_size for entry in entries), max_bytes)
        return parts

    def _check_name(self, name: str) -> None:
        if _COMPILED.fullmatch(name):
            raise self._unsafe(f"{name} is compiled code, which is never run")
        if name != "data/sample_inputs/model.pt" and _PICKLES.fullmatch(name):
            raise self._unsafe(f"{name} is a pickle, which may run code when it is read")
        if not _KNOWN.fullmatch(name) or ".." in name.split("/"):
            raise self._unsafe(f"it has a part {name!r}, which torch.export.save does not write for one model")

    def _check_size(self, inside_bytes: int, max_bytes: int) -> None:
        if inside_bytes > self._file.stat().st_size:
            raise self._unsafe(f"its parts have {inside_bytes} bytes together, more than the file")
        if inside_bytes > max_bytes:
            raise LoadError(
                Reason.DOES_NOT_FIT,
                f"{self._file} has {inside_bytes} bytes inside, and the share is {max_bytes} bytes. Give the model "
                "more memory (spec.gpu.memory).",
            )

    def _damaged(self, part: str, why: object) -> LoadError:
        return LoadError(Reason.CORRUPT_WEIGHTS, f"{self._file}: {part} is damaged: {why}. {_AGAIN}")

    def _unsafe(self, why: str) -> LoadError:
        return LoadError(Reason.UNSAFE_FILES, f"{self._file}: {why}. {_AGAIN}")

    def _unknown(self, why: str) -> LoadError:
        return LoadError(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"{self._file} is no archive of one torch.export program: {why}. Save it with torch.export.save of torch "
            "2.9 or newer.",
        )
