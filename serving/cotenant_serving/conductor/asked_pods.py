"""Pods that Ray's autoscaler is to bring, each a thing of Ray's that waits for a device: as many as are asked for."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

Pending = Any
"""What Ray gave for one pod that was asked for."""


class AskedPods:
    """Owns them. Calls may come from several threads, and may fail or hang anywhere: what was made is not forgotten,
    for nobody else would take it back, and it would hold a device for ever.
    """

    def __init__(
        self, ask: Callable[[str], Pending], take_back: Callable[[Pending], None], waits: Callable[[Pending], bool]
    ) -> None:
        """`ask` for a pod of a group; `waits`: its device has not come yet."""
        self._ask, self._take_back, self._waits = ask, take_back, waits
        self._turn = threading.Lock()
        self._asked: dict[str, list[Pending]] = {}
        """By group, oldest first."""

    def set(self, pods: Mapping[str, int]) -> None:
        """So many of each group, and none of others. One that got its device has done its work, and is taken back."""
        with self._turn:
            for group in pods.keys() | self._asked.keys():
                self._set(self._asked.setdefault(group, []), group, pods.get(group, 0))

    def _set(self, asked: list[Pending], group: str, count: int) -> None:
        kept = 0
        while kept < len(asked):
            if kept < count and self._waits(asked[kept]):
                kept += 1
            else:
                self._take_back(asked[kept])
                del asked[kept]
        while len(asked) < count:
            asked.append(self._ask(group))
