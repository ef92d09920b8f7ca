"""The files of an engine's model: brought to this machine and checked, and kept there until the engine closes.

That needs no device, and may take hours. So it comes before the start lease is asked for, and other engines of the
device start meanwhile.
"""

import threading
from typing import TYPE_CHECKING

from cotenant_serving.amounts import of_bytes
from cotenant_serving.contract import EngineArgs
from cotenant_serving.engine.base import LoadError, Progress
from cotenant_serving.engine.load_errors import load_errors
from cotenant_serving.engine.model_files import check_tokenizer

if TYPE_CHECKING:
    from cotenant_cache.client import OpenModel


class ModelSource:
    """Of one engine. Opened once, by whoever comes first; its lease in the weight cache lasts until `close`."""

    def __init__(self, args: EngineArgs) -> None:
        self._args = args
        self._turn = threading.Lock()
        self._opened: OpenModel | None = None
        self._closed = threading.Event()
        self._given_back = False

    def open(self, progress: Progress) -> "OpenModel":
        """Blocks. Raises LoadError, whatever happens."""
        with self._turn, load_errors(self._args):
            if self._opened is None:
                self._opened = open_source(self._args, progress)
            opened = self._opened
        if self._closed.is_set():  # while files came: nobody else will give the lease back
            self.close()
        return opened

    def close(self) -> None:
        """Gives the lease back. Does not wait for files that still come."""
        self._closed.set()
        if self._turn.acquire(blocking=False):
            try:
                if self._opened is not None and not self._given_back:
                    self._given_back = True
                    self._opened.close()
            finally:
                self._turn.release()


def open_source(args: EngineArgs, progress: Progress) -> "OpenModel":
    """The checked model of `args.spec.source`, fetched when it is not on this machine yet.

    Its lease lasts until it is closed. Raises CacheError, or LoadError(FileMissing) for want of a tokenizer.
    """
    from cotenant_cache.client import open_checked

    def fetched(done: int, total: int) -> None:
        # In steps of 0.1 GB: each new stage is a line in the log.
        progress(f"fetching its weights: {of_bytes(done, total)}", 0.1 * done / max(1, total), fetched=(done, total))

    progress("checking files", 0.0)
    opened = open_checked(args.spec.source, args.cache_dir, fetched, lease=args.app, socket=args.cache_socket)
    try:
        if args.spec.task != "tensor":
            check_tokenizer(opened.folder)
    except LoadError:
        opened.close()
        raise
    return opened
