"""An archive that names lengths which no archive has, or unpacks to more than it says: little is read of it."""

import io
import struct
import tracemalloc
import zipfile
from typing import Any

import pytest

from cotenant_cache.archive import archive_bytes
from cotenant_cache.errors import CorruptWeightsError

DESCRIPTION = "m/data/weights/model_weights_config.json"
MIB = 2**20


class Listed(io.RawIOBase):
    """A file as large as a listing says, zeros but for its end, that notes the most it is asked for at once."""

    def __init__(self, size: int, end: bytes) -> None:
        super().__init__()
        self._size, self._end, self._at = size, end, 0
        self.most = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        self.most = max(self.most, len(buffer))
        assert self.most < 64 * MIB
        count = min(len(buffer), self._size - self._at)
        begin = self._size - len(self._end)
        buffer[:count] = bytes(
            self._end[at - begin] if at >= begin else 0 for at in range(self._at, self._at + count)
        )
        self._at += count
        return count


def packed(compression: int, unpacked_bytes: int) -> bytes:
    """An archive with a description of so many bytes, of which its headers say that they are 100."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as opened:
        opened.writestr("m/archive_format", "pt2")
        opened.writestr("m/models/model.json", "{}")
        opened.writestr(DESCRIPTION, bytes(unpacked_bytes))
    content, name = bytearray(stream.getvalue()), DESCRIPTION.encode()
    struct.pack_into("<I", content, content.find(name) - 8, 100)  # where the fixed parts of both headers have it
    struct.pack_into("<I", content, content.rfind(name) - 22, 100)
    return bytes(content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_unpacks_to_more_than_it_says_is_damage_and_takes_no_memory(compression: int) -> None:
    content = packed(compression, 64 * MIB)
    tracemalloc.start()
    try:
        with pytest.raises(CorruptWeightsError):
            archive_bytes(io.BytesIO(content), file="net.pt2")
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("size", "contents_bytes"), [(2**33, 2**32 - 2), (2**50, 2**49)])
def test_a_table_of_contents_that_no_archive_has_is_not_read(size: int, contents_bytes: int) -> None:
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, min(contents_bytes, 2**32 - 1), 0, 0)
    if contents_bytes >= 2**32:
        at = size - len(end) - 20 - 56
        end = (
            struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, contents_bytes, 0)
            + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
            + end
        )
    listed = Listed(size, end)
    with pytest.raises(CorruptWeightsError, match=f"its table of contents has {contents_bytes} bytes, at most"):
        archive_bytes(io.BufferedReader(listed), file="net.pt2")
    assert listed.most <= MIB
