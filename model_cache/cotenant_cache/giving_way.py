"""A preload gives its flight up for what is needed now, also when other instances have them.

What instances say to each other are signs beside a flight's lock: locks as well, so that a sign of one that has died
is none, and what is left of it is a file that says nothing.

    KEY@preload   the holder of the flight is a preload
    KEY@needed    somebody waits for just this model, and needs it now: the flight goes on
    KEY@wanted    somebody needs the room or the flight now
"""

import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from cotenant_cache.holders import Flight, flight_taken
from cotenant_cache.store import Store

Word = Literal["preload", "needed", "wanted"]
GIVE_WAY_S = 60.0
"""How long one that is asked may take; it looks every second, and may be in the middle of a large write."""
_LOOK_S = 1.0


class Sign:
    """Up from the first `show` that finds it free until `lower`; of several who show one, any one has it up."""

    def __init__(self, root: Path, key: str, word: Word) -> None:
        self.word = word
        self._root, self._name = root, _name(key, word)
        self._up: Flight | None = None

    def show(self) -> None:
        """Called again and again: another may have it up, or look at it just now. A full disk keeps it down."""
        if self._up is None:
            with suppress(OSError):
                self._up = Flight.try_enter(self._root, self._name)

    def lower(self) -> None:
        if self._up is not None:
            self._up.leave()
            self._up = None


class Yielding:
    """What a flight has to look at while a preload holds it (`preload`); any other is never asked to give way."""

    def __init__(self, store: Store, key: str, *, preload: bool) -> None:
        self._store, self._key, self._preload = store, key, preload
        self._sign = Sign(store.root, key, "preload")
        self._turn = threading.Lock()
        self._look_at = float("-inf")
        self._asked = False

    def asked(self) -> bool:
        """Whether it has to end, from then on. Threads may ask at any rate: it looks once a second."""
        if not self._preload:
            return False
        with self._turn:
            now = self._store.clock.monotonic()
            if not self._asked and now >= self._look_at:
                self._look_at = now + _LOOK_S
                self._sign.show()
                self._asked = _is_up(self._store.root, self._key, "wanted") and not is_needed(
                    self._store.root, self._key
                )
            return self._asked

    def end(self) -> None:
        """Before the flight is left."""
        self._sign.lower()


class Asking:
    """Asks flights to give way, until the block ends."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._signs: dict[str, Sign] = {}
        self._until: float | None = None

    def ask(self, keys: Iterable[str]) -> bool:
        """False: those that were asked had time enough."""
        now = self._store.clock.monotonic()
        self._until = now + GIVE_WAY_S if self._until is None else self._until
        for key in keys:
            self._signs.setdefault(key, Sign(self._store.root, key, "wanted")).show()
        return now < self._until

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sign in self._signs.values():
            sign.lower()


def gives_way(root: Path, key: str) -> bool:
    """Whether only a preload has this flight."""
    return _is_up(root, key, "preload") and not is_needed(root, key)


def is_needed(root: Path, key: str) -> bool:
    return _is_up(root, key, "needed")


def _is_up(root: Path, key: str, word: Word) -> bool:
    try:
        return flight_taken(root, _name(key, word))
    except OSError:
        return False


def _name(key: str, word: Word) -> str:
    """No repository has an `@` in its name."""
    return f"{key}@{word}"
