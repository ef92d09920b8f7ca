"""Records on disk while a run goes on, so that hours of them take no memory.

```
length (4 bytes, little endian) | record (msgpack) | length | record | …
```
One worker writes, anyone may read meanwhile. A record that is not whole yet is left for the next look.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from cotenant_loadtests.record import Record

_BUFFER_BYTES = 256 * 1024
_LENGTH_BYTES = 4
_DECODER = msgspec.msgpack.Decoder(Record)


class RecordsWriter:
    """Readers see what was flushed."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._file = path.open("wb", buffering=_BUFFER_BYTES)
        self._encoder = msgspec.msgpack.Encoder()
        self._buffer = bytearray(_LENGTH_BYTES)

    def write(self, record: Record) -> None:
        buffer = self._buffer
        self._encoder.encode_into(record, buffer, _LENGTH_BYTES)
        buffer[:_LENGTH_BYTES] = (len(buffer) - _LENGTH_BYTES).to_bytes(_LENGTH_BYTES, "little")
        self._file.write(buffer)
        self.count += 1

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_records(path: Path, offset: int = 0) -> tuple[list[Record], int]:
    """The whole records from `offset` bytes on, and the offset of the next; for a look while a run goes on."""
    records = []
    with path.open("rb") as file:
        file.seek(offset)
        while (body := _next_body(file)) is not None:
            records.append(_DECODER.decode(body))
            offset += _LENGTH_BYTES + len(body)
    return records, offset


def iterate_records(path: Path) -> Iterator[Record]:
    """All whole records in the order they ended, one in memory at a time."""
    with path.open("rb") as file:
        while (body := _next_body(file)) is not None:
            yield _DECODER.decode(body)


def _next_body(file: BinaryIO) -> bytes | None:
    head = file.read(_LENGTH_BYTES)
    length = int.from_bytes(head, "little")
    body = file.read(length)
    return body if len(head) == _LENGTH_BYTES and len(body) == length else None
