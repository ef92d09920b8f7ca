"""What the hub says of models, asked in the background: `up` never waits for a network to apply an edit."""

import threading
import time

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.model_facts import known_facts

AGAIN_S = 15.0
"""A hub that did not give a model is asked again this often."""


class HubFacts:
    """Facts hold for the run, so that a branch that moves restarts nothing; failures hold for a while."""

    def __init__(self, cache_dir: str) -> None:
        self._cache_dir = cache_dir
        self._said: dict[str, tuple[ModelFacts | CacheError, float]] = {}
        self._threads: dict[str, threading.Thread] = {}

    def ask(self, source: str) -> ModelFacts | CacheError | None:
        """What is known of an hf:// source now. None: it is being asked for; look again."""
        facts, at_s = self._said.get(source, (None, 0.0))
        if facts is None or (isinstance(facts, CacheError) and time.monotonic() - at_s > AGAIN_S):
            self._start(source)
        return facts

    def wait(self, limit_s: float) -> None:
        """Until everything that was asked has been answered, but not for longer than the limit."""
        for thread in list(self._threads.values()):
            began_s = time.monotonic()
            thread.join(max(0.0, limit_s))
            limit_s -= time.monotonic() - began_s

    def _start(self, source: str) -> None:
        if source not in self._threads:
            # A daemon: a hub that hangs must not keep `up` from ending.
            self._threads[source] = threading.Thread(target=self._read, args=(source,), name="hub", daemon=True)
            self._threads[source].start()

    def _read(self, source: str) -> None:
        try:
            self._said[source] = (known_facts(source, self._cache_dir), time.monotonic())
        finally:
            del self._threads[source]
