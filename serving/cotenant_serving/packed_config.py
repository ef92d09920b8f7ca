"""A GatewayConfig as it stands in a Secret: JSON, gzipped, because a Secret holds 1 MiB. Pure."""

import gzip
import zlib

_GZIP = b"\x1f\x8b"


def packed(raw: bytes) -> bytes:
    """The same bytes for the same content: no time and no name is in it."""
    return gzip.compress(raw, compresslevel=6, mtime=0)


def unpacked(content: bytes) -> bytes:
    """What was packed; what was not is given back as it is. Raises ValueError when it is damaged."""
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as problem:
        raise ValueError(f"it is no whole gzip file: {problem}") from None
