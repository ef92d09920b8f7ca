"""What a gateway's first process has to do with the operator: two threads, beside everything that serves.

    follow   long poll for newer configurations    → `config_keeper`, from where workers read them
    send     every SEND_S the new usage lines      → `usage_sender`

Both go on for ever, whatever the operator does; the only news of it is one log line when it goes and one when it
comes back.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from cotenant_serving.contract_usage import UsageBatch
from cotenant_serving.gateway.board import Count
from cotenant_serving.gateway.config_keeper import ConfigKeeper
from cotenant_serving.gateway.config_source import SharedSource, read_token
from cotenant_serving.gateway.operator_client import OperatorClient, OperatorError
from cotenant_serving.gateway.options import KEPT_CONFIG, Options
from cotenant_serving.gateway.usage_file import UsageFile
from cotenant_serving.gateway.usage_sender import UsageSender

log = logging.getLogger("cotenant.gateway")

WAIT_S = 30
SEND_S = 5.0
"""Usage that is younger is lost with its node; older is not, while the operator answers."""
FLUSH_S = 10.0
"""The longest that an ending gateway tries to bring out its last usage."""
BACK_OFF_S = (0.2, 2.0)
_MOST = (1 << 32) - 1
"""What a count of the board holds."""
QUICK_S = 0.05
"""An answer without news that comes sooner was not waited for."""


class Client(Protocol):
    """`operator_client.OperatorClient`."""

    def newer(self, after: int, wait_s: int) -> bytes | None: ...

    def add(self, batch: UsageBatch) -> None: ...


def link_to_operator(options: Options, usage: UsageFile, unsent: Count) -> tuple["OperatorLink", int]:
    """The link, not started yet, and the file with the configuration, from which workers read it.

    `unsent`: bytes of usage lines. Raises OSError.
    """
    assert options.pool_token_file is not None
    shared = SharedSource.create()
    keeper = ConfigKeeper(options.config, options.state / KEPT_CONFIG, shared)
    keeper.start()
    token = partial(read_token, options.pool_token_file)
    sender = UsageSender(options.state, usage, options.name)
    link = OperatorLink(keeper, sender, lambda: OperatorClient(options.operator, token), options.operator, unsent)
    return link, shared.fileno()


class OperatorLink:
    def __init__(
        self, keeper: ConfigKeeper, sender: UsageSender, clients: Callable[[], Client], url: str, unsent: Count
    ) -> None:
        """`clients` makes one for each thread."""
        self._keeper, self._sender, self._url, self._unsent = keeper, sender, url, unsent
        self._follower, self._poster = clients(), clients()
        self._ending = threading.Event()
        self._hurry = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._follow, self._send)]
        self._answers = dict.fromkeys(("configuration", "usage"), True)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def look(self) -> None:
        """What is due every second."""
        self._keeper.look()
        self._unsent.set(min(self._sender.waiting_bytes(), _MOST))

    def finish(self, within_s: float = FLUSH_S) -> bool:
        """After the last line of usage was written. False when not all of it could be brought out."""
        self._ending.set()
        self._hurry.set()
        self._threads[1].join(within_s)
        waiting = self._sender.waiting_bytes()
        if waiting:
            log.error("%d bytes of usage are not sent; they are lost with the state directory, if that goes", waiting)
        return not waiting

    def _follow(self) -> None:
        delay_s = BACK_OFF_S[0]
        while not self._ending.is_set():
            began_s = time.monotonic()
            try:
                content = self._follower.newer(self._keeper.generation, WAIT_S)
                self._note("configuration", None)
                if content is None:
                    waited = time.monotonic() - began_s >= QUICK_S
                else:
                    waited = self._keeper.offer(content, f"operator {self._url}")
                if waited:
                    delay_s = BACK_OFF_S[0]
                    continue
            except OperatorError as problem:
                self._note("configuration", problem)
            except Exception:  # whatever it is, a gateway goes on with what it has
                log.exception("following the operator has failed; it goes on")
            self._ending.wait(delay_s * random.uniform(0.75, 1.25))  # noqa: S311 spreads load, guards nothing
            delay_s = min(BACK_OFF_S[1], delay_s * 2)

    def _send(self) -> None:
        while not self._ending.is_set():
            self._hurry.wait(SEND_S)
            self._send_all()
        while not self._send_all():  # `finish` waits no longer than it wants to
            time.sleep(BACK_OFF_S[0])

    def _send_all(self) -> bool:
        """False when some is left."""
        try:
            while self._sender.step(self._poster.add):
                pass
        except OperatorError as problem:
            self._note("usage", problem)
        except Exception:
            log.exception("usage is not sent; it is tried again")
        else:
            self._note("usage", None)
            return True
        return False

    def _note(self, what: str, problem: Exception | None) -> None:
        before, self._answers[what] = self._answers[what], problem is None
        if problem is None and not before:
            log.info("operator %s answers again (%s)", self._url, what)
        elif problem is not None and before:
            log.warning("operator %s does not answer (%s), tried again: %s", self._url, what, problem)
