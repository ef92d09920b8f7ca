"""The gateways' configuration that an operator hands out: the newest that it wrote or saw."""

import asyncio

import msgspec

from cotenant_serving.contract_gateway import GatewayConfig


class PublishedConfig:
    """Owns the newest GatewayConfig of this process. A lower generation never replaces a higher one."""

    def __init__(self) -> None:
        self.config: GatewayConfig | None = None
        self.raw = b""
        self._newer = asyncio.Event()

    @property
    def generation(self) -> int:
        return self.config.generation if self.config else 0

    def offer(self, raw: bytes) -> bool:
        """JSON of a GatewayConfig. True when it is newer and can be read."""
        try:
            config = msgspec.json.decode(raw, type=GatewayConfig)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        if config.generation <= self.generation:
            return False
        self.config, self.raw = config, raw
        self._newer.set()
        self._newer = asyncio.Event()
        return True

    async def after(self, generation: int, wait_s: float) -> bytes | None:
        """JSON of what is newer than `generation`; None when nothing comes in time."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while self.generation <= generation:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return None
            try:
                async with asyncio.timeout(left_s):
                    await self._newer.wait()
            except TimeoutError:
                return None
        return self.raw
