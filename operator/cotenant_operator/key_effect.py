"""Waiting until what a command has changed in `keys.json` holds at the gateway."""

import time
from collections.abc import Callable
from pathlib import Path

from cotenant_operator.control import ControlError, running_up
from cotenant_operator.gateway_client import GatewayClient, GatewayError
from cotenant_operator.published import NotPublishedError, read_published

PATIENCE_S = 5.0
SETTLE_S = 0.5
"""Each of several gateway workers looks at its configuration every 0.2 s; which of them answers is chance."""
STEP_S = 0.05


def wait_until_known(state: Path, key: str, digest: str) -> bool:
    """Wait until the gateway of this state directory takes a new key. True also when none runs: it will."""
    try:
        running = running_up(state)
    except ControlError:
        return True
    client = GatewayClient(running.gateway_url, key, timeout_s=PATIENCE_S)
    known_since = None

    def known() -> bool:
        nonlocal known_since
        if not _published(state, digest) or not client.takes_key():
            known_since = None
            return False
        known_since = known_since or time.monotonic()
        return running.gateway_workers == 1 or time.monotonic() - known_since > SETTLE_S

    try:
        return _wait(known)
    except GatewayError:  # it is being started again, and reads the file before it answers
        return _published(state, digest)


def wait_until_gone(state: Path, digest: str) -> bool:
    """Wait until `up` has taken a key away from the gateway. True also when none runs."""
    try:
        running_up(state)
    except ControlError:
        return True
    return _wait(lambda: not _published(state, digest))


def _published(state: Path, digest: str) -> bool:
    try:
        return any(digest in tenant.key_sha256 for tenant in read_published(state).tenants)
    except NotPublishedError:
        return False


def _wait(condition: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            return False
        time.sleep(STEP_S)
    return True
