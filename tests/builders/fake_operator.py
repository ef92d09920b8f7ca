"""What a gateway sees of an operator: the newest configuration by long poll, and a place for usage."""

import asyncio
import contextlib
from collections import Counter

import msgspec

from cotenant_serving.contract_gateway import GatewayConfig
from cotenant_serving.contract_usage import UsageBatch, UsageReceipt
from tests.builders.gateway import POOL_TOKEN, GatewayProcess
from tests.builders.gateway_http import HttpFake, Seen, Wire


class FakeOperator(HttpFake):
    """`polls`: the generations that gateways named. `batches`: what they sent, also again."""

    def __init__(self) -> None:
        super().__init__()
        self.content = b""
        self.polls: list[int] = []
        self.batches: list[UsageBatch] = []
        self.usage_status = 200
        self.lose_receipts = False
        """Batches are kept, and nobody is told."""
        self._generation = -1
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def options(self, gateway: GatewayProcess) -> tuple[str, ...]:
        return ("--operator", self.url, "--pool-token-file", str(gateway.directory / "pool-token"))

    def publish(self, value: GatewayConfig) -> None:
        self.publish_raw(msgspec.json.encode(value), value.generation)

    def publish_raw(self, content: bytes, generation: int) -> None:
        self.content, self._generation = content, generation
        self._changed.set()
        self._changed = asyncio.Event()

    def ledger(self) -> dict[tuple[str, str, int], UsageBatch]:
        """Each batch once."""
        return {(one.gateway, one.boot, one.sequence): one for one in self.batches}

    def requests(self) -> Counter[tuple[str, str]]:
        """By tenant and outcome."""
        found: Counter[tuple[str, str]] = Counter()
        for batch in self.ledger().values():
            for total in batch.totals:
                found[total.tenant, total.outcome] += total.requests
        return found

    async def handle(self, seen: Seen, wire: Wire) -> None:
        assert seen.headers["authorization"] == f"Bearer {POOL_TOKEN}"
        if seen.path == "/v1/usage":
            await self._usage(seen, wire)
            return
        assert seen.path == "/v1/gateway-config"
        after, changed = int(seen.query["after"]), self._changed
        self.polls.append(after)
        if self._generation <= after:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), float(seen.query["wait_s"]))
        if self._generation <= after:
            await wire.head(204, {})
        else:
            await wire.answer(200, self.content)

    async def _usage(self, seen: Seen, wire: Wire) -> None:
        if self.usage_status != 200:
            await wire.answer(self.usage_status)
            return
        batch = msgspec.json.decode(seen.body, type=UsageBatch)
        self.batches.append(batch)
        if self.lose_receipts:
            wire.reset()
            return
        receipt = UsageReceipt(gateway=batch.gateway, boot=batch.boot, sequence=batch.sequence)
        await wire.answer(200, msgspec.json.encode(receipt))
