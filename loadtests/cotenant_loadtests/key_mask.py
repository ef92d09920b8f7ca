"""A tenant's key must stand in no record, whatever a server says. Pure."""

import re

WINDOW_BYTES = 12
"""So much of a key, from anywhere in it, is too much; of a shorter key, all of it."""
_BLOCK_BYTES = WINDOW_BYTES // 2


class KeyMask:
    """Knows a key, and parts of it, in what a server says. Asked for each request, so it looks for few blocks first:

    wherever a window begins in the key, it holds a whole one of the blocks that the key is cut into.
    """

    def __init__(self, key: str) -> None:
        """An empty key is in nothing."""
        raw = key.encode()
        starts = range(max(1, len(raw) - WINDOW_BYTES + 1))
        self._windows = {raw[start : start + WINDOW_BYTES] for start in starts if raw}
        blocks = _blocks(raw) if len(raw) >= WINDOW_BYTES else (raw,)
        self._may_hide = re.compile(b"|".join(map(re.escape, blocks))).search

    def hides(self, said: bytes) -> bool:
        """As it came: what is made fit to be shown may hide a key from this."""
        return self._may_hide(said) is not None and any(window in said for window in self._windows)


def _blocks(raw: bytes) -> tuple[bytes, ...]:
    return tuple(raw[start : start + _BLOCK_BYTES] for start in range(0, len(raw) - _BLOCK_BYTES + 1, _BLOCK_BYTES))
