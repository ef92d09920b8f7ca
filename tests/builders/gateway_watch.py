"""What must hold of a gateway process after thousands of hostile requests, seen from outside."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psutil

from tests.builders.gateway import GatewayProcess, eventually
from tests.builders.gateway_calls import get

GROWN_BYTES = 24 << 20
"""More memory than that a warm gateway may not have afterwards: room for allocators, not for what requests leave."""
_LEVEL = re.compile(rb"^cotenant_(?:queue_depth|requests_in_flight)\{[^}]*\} ([0-9.]+)$", re.MULTILINE)


@dataclass
class Watch:
    gateway: GatewayProcess
    resident_bytes: int

    @classmethod
    async def begin(cls, gateway: GatewayProcess) -> "Watch":
        """`gateway` should have done already what it will do."""
        return cls(gateway, resident_bytes(gateway))

    async def check_at_rest(self) -> None:
        """Nothing waits, nothing runs, nobody is connected, and the memory is what it was."""
        await until(self._is_idle)
        await eventually(lambda: not connections(self.gateway))
        grown = resident_bytes(self.gateway) - self.resident_bytes
        assert grown < GROWN_BYTES, f"{grown >> 20} MiB more than after the warm-up"

    def check_log(self, *canaries: str) -> None:
        """No failure of the gateway itself, and nothing of what must never be logged."""
        log = "".join(self.gateway.log)
        assert "Traceback" not in log, log[log.index("Traceback") - 300 :][:3000]
        assert "internal_error" not in log
        for canary in canaries:
            assert canary not in log, f"{canary!r} is in the log: " + log[log.index(canary) - 300 :][:600]

    async def _is_idle(self) -> bool:
        levels = _LEVEL.findall((await get(self.gateway, "/metrics"))[2])
        return bool(levels) and not any(map(float, levels))


def resident_bytes(gateway: GatewayProcess) -> int:
    first = psutil.Process(gateway.pid)
    return sum(process.memory_info().rss for process in (first, *first.children()))


def connections(gateway: GatewayProcess) -> int:
    """Open connections of clients."""
    return sum(
        1
        for worker in gateway.workers()
        for one in worker.net_connections("tcp")
        if one.laddr.port == gateway.port and one.status == psutil.CONN_ESTABLISHED
    )


async def until(what: Callable[[], Awaitable[bool]], *, tries: int = 300) -> None:
    """As `eventually`, for a condition that must be waited for itself."""
    for _ in range(tries):
        if await what():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what.__name__} does not hold after {tries} looks")
