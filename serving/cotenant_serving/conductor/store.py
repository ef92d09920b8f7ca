"""What a conductor keeps on the disk beside the head: the desired state and where it placed what.

    <state>/desired.json      contract.Desired, the last one accepted
    <state>/placements.json   app → contract.EngineArgs

Both are replaced by rename, so a crash leaves the old or the new one, never half of it. Files are 0600.
"""

import os
from pathlib import Path
from typing import TypeVar

import msgspec

from cotenant_serving.contract import Desired, EngineArgs

T = TypeVar("T")


class Store:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def desired(self) -> Desired | None:
        return self._read("desired.json", Desired)

    def placements(self) -> dict[str, EngineArgs]:
        return self._read("placements.json", dict[str, EngineArgs]) or {}

    def keep_desired(self, desired: Desired) -> None:
        self._write("desired.json", msgspec.json.encode(desired))

    def keep_placements(self, placements: dict[str, EngineArgs]) -> None:
        self._write("placements.json", msgspec.json.encode(placements))

    def _read(self, name: str, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode((self._folder / name).read_bytes(), type=kind)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None  # adopt what runs; `up` or the operator sends the desired state again

    def _write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        new = path.with_suffix(".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
