"""Keys for the tenants of a load test against the `cotenant up` of this machine: made, prolonged, revoked."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_loadtests.refusals import RefusedError
from cotenant_operator.failure import Failure

if TYPE_CHECKING:
    from cotenant_operator.caller import MadeKey

MADE_BY = "cotenant loadtest"
AT_ONCE = 8
"""Keys that are made at a time: each waits until the gateway takes it."""
PROLONGED_S = 120.0
"""How often; a fraction of a key's life."""
Make = Callable[[str], "MadeKey"]


class KeysOfUp:
    """`LocalKeys` of the load tests, from the `up` of a state directory. `make`: tenant → a key of its own."""

    def __init__(self, state: Path, make: Make | None = None, prolonged_s: float = PROLONGED_S) -> None:
        self._state, self._prolonged_s = state, prolonged_s
        self._make = make or self._made

    def gateway_url(self) -> str | None:
        from cotenant_operator.control import ControlError, running_up

        try:
            return running_up(self._state).gateway_url
        except ControlError:
            return None

    @contextmanager
    def keys(self, tenants: Sequence[str]) -> Iterator[Mapping[str, str]]:
        """A key for each tenant, good until the block ends. Raises RefusedError."""
        made: dict[str, MadeKey] = {}

        def add(tenant: str) -> None:
            made[tenant] = self._make(tenant)

        with ExitStack() as stack:
            stack.callback(_end, made)
            try:
                self._check_known(tenants)
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    list(pool.map(add, tenants))
                keys = {tenant: key.now() for tenant, key in made.items()}
            except Failure as failure:
                raise RefusedError(str(failure)) from None
            stack.enter_context(self._prolonging(made))
            yield keys

    def _made(self, tenant: str) -> "MadeKey":
        from cotenant_operator.caller import MadeKey
        from cotenant_operator.key_book import KeyBook

        return MadeKey(KeyBook(self._state), tenant, MADE_BY, time.time)

    def _check_known(self, tenants: Sequence[str]) -> None:
        from cotenant_operator.names import UnknownNameError, tenant_named
        from cotenant_operator.published import read_published

        known = [tenant.name for tenant in read_published(self._state).tenants]
        for tenant in tenants:
            try:
                tenant_named(tenant, known)
            except UnknownNameError as error:
                raise RefusedError(
                    f"no key can be made: {error}; name a tenant of `cotenant up` in the scenario, or say in "
                    f"tenants.{tenant}.key where its key is"
                ) from None

    @contextmanager
    def _prolonging(self, made: Mapping[str, "MadeKey"]) -> Iterator[None]:
        """Keys end by themselves if this process is killed, so they are kept alive while it is not."""
        over = threading.Event()

        def prolong() -> None:
            while not over.wait(self._prolonged_s):
                for key in made.values():
                    with contextlib.suppress(Failure):  # the next time may do; what is refused shows in the results
                        key.now()

        thread = threading.Thread(target=prolong, name="prolonging keys", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _end(made: Mapping[str, "MadeKey"]) -> None:
    """Revoke all of them, whatever happens to one."""
    for key in made.values():
        with contextlib.suppress(Failure):
            key.end()
