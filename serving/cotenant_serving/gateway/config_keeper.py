"""Which configuration holds where there are several: the mounted file, the operator's, and the one kept on disk.

The highest generation does, wherever it comes from. So a gateway starts with what it has, follows the operator as
soon as that answers, and is not set back by a mounted file that lags behind. Workers read it from shared memory.

    STATE/gateway.json   the one that holds, for the next start
"""

import logging
import threading
from pathlib import Path

from cotenant_serving.gateway.config import ConfigError, parse
from cotenant_serving.gateway.config_source import FileSource, SharedSource
from cotenant_serving.gateway.private_file import replace_private

log = logging.getLogger("cotenant.gateway")


class ConfigKeeper:
    """The only one who decides it. May be asked by several threads."""

    def __init__(self, mounted: Path, kept: Path, shared: SharedSource) -> None:
        self._mounted = FileSource(mounted)
        self._kept = kept
        self._shared = shared
        self._lock = threading.Lock()
        self._unsaved: bytes | None = None
        self._complained = ""
        self.generation = -1
        """Of the one that holds; below 0 while there is none."""

    def start(self) -> None:
        """Takes what there is without anybody's answer."""
        try:
            self._take(self._kept.read_bytes(), f"kept file {self._kept}")
        except FileNotFoundError:
            pass
        except OSError as problem:
            log.error("kept configuration %s cannot be read: %s", self._kept, problem.strerror)
        self._unsaved = None
        self.look()

    def look(self) -> None:
        """What is due every second: has the mounted file changed, can be written what could not?"""
        content = self._mounted.changed()
        if content is not None:
            self.offer(content, self._mounted.name)
        self._save()

    def offer(self, content: bytes, origin: str) -> bool:
        """`content`: JSON. `origin`: for people. False when it is not the one that holds now: as old, or broken."""
        with self._lock:
            taken = self._take(content, origin)
        if taken:
            self._save()
        return taken

    def _take(self, content: bytes, origin: str) -> bool:
        try:
            generation = parse(content).config.generation
        except ConfigError as problem:
            if str(problem) != self._complained:
                log.error("%s is not used, what is loaded stays: %s", origin, problem)
            self._complained = str(problem)
            return False
        if generation <= self.generation:
            if generation < self.generation:
                log.warning("%s has generation %d, older than %d: not used", origin, generation, self.generation)
            return False
        log.info("configuration generation %d, from %s", generation, origin)
        self._shared.write(content)
        self.generation, self._unsaved = generation, content
        return True

    def _save(self) -> None:
        """A full disk is said once, and tried again."""
        with self._lock:
            if self._unsaved is None:
                return
            try:
                replace_private(self._kept, self._unsaved)
                self._unsaved = None
            except OSError as problem:
                if str(problem) != self._complained:
                    log.error("configuration cannot be kept for the next start: %s", problem)
                self._complained = str(problem)
