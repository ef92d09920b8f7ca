"""An `Exchange` between an engine and a client that a test writes down: chunks in, pieces out, real usage."""

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cotenant_serving.contract import Usage
from cotenant_serving.contract_gateway import EngineRow, Limits, Table
from cotenant_serving.gateway.account import Call
from cotenant_serving.gateway.admission import TenantLimits
from cotenant_serving.gateway.board import LocalAccount, LocalBoard, LocalCount
from cotenant_serving.gateway.bodies import BodyBudget
from cotenant_serving.gateway.dispatch import Dispatcher
from cotenant_serving.gateway.exchange import Exchange
from cotenant_serving.gateway.journal import Journal
from cotenant_serving.gateway.metrics import Metrics
from cotenant_serving.gateway.reply import Reply
from cotenant_serving.gateway.settings import Settings
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.table import combine, merge
from cotenant_serving.gateway.upstream import MAX_ANSWER_BYTES, Outgoing
from cotenant_serving.gateway.usage import UsageLog
from cotenant_serving.gateway.usage_file import UsageFile
from tests.builders.client import FakeClient
from tests.builders.gateway import model_row, row

MODEL = "search/echo"


class WrittenAnswer:
    """An engine's answer: these chunks, then its end. An exception among them is raised in its place."""

    def __init__(self, *chunks: bytes | Exception, content_type: str = "text/event-stream") -> None:
        self.status = 200
        self.complete = False
        size = sum(len(chunk) for chunk in chunks if isinstance(chunk, bytes))
        length = {} if content_type == "text/event-stream" else {"content-length": str(size)}
        self.headers: Mapping[str, str] = {"content-type": content_type, **length}
        self._chunks = chunks

    async def relay(self, put: Callable[[bytes], bool]) -> None:
        for chunk in self._chunks:
            if isinstance(chunk, Exception):
                raise chunk
            if not put(chunk):
                return

    def body(self) -> bytes:
        raise AssertionError("it is not complete")

    async def read(self, limit: int = MAX_ANSWER_BYTES) -> bytes:
        return b"".join([chunk for chunk in self._chunks if isinstance(chunk, bytes)])

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def close(self) -> None:
        pass


class WrittenUpstream:
    def __init__(self, answer: WrittenAnswer) -> None:
        self._answer = answer

    async def send(self, row: EngineRow, outgoing: Outgoing, request_id: str) -> WrittenAnswer:
        return self._answer

    async def cancel(self, row: EngineRow, request_id: str) -> Usage | None:
        return None

    async def close(self) -> None:
        pass


class ExchangeStage:
    """`client`: what it was sent. `lines_at`: how many usage records there were at each piece."""

    def __init__(self, folder: Path, answer: WrittenAnswer, *, budget: BodyBudget | None = None) -> None:
        self.client = FakeClient(on_sent=lambda: self.lines_at.append(len(self.records())))
        self.lines_at: list[int] = []
        self.dispatcher = Dispatcher(clock=time.monotonic, rng=random.Random(1))
        self.file = folder / "usage.jsonl"
        self._budget = budget or BodyBudget()
        self._upstream = WrittenUpstream(answer)
        self._usage = UsageLog(
            UsageFile(self.file, LocalCount()), Journal.in_memory(16), waiting=LocalCount(), dropped=LocalCount()
        )

    async def run(self, *, stream: bool = True) -> None:
        outgoing = Outgoing("POST", "/v1/chat/completions", b"{}", {})
        limits = TenantLimits("search", Limits(), LocalAccount(), 0.0)
        now = time.monotonic()
        call = Call("req-1", outgoing, "search", MODEL, stream, prompt_tokens=1, tokens=1, limits=limits, began=now)
        await Exchange(self._gateway(), call, Reply(self.client, "req-1"), self.client).run()

    def records(self) -> list[bytes]:
        """Usage records, in the file or kept for it."""
        return self.file.read_bytes().splitlines()

    def _gateway(self) -> Gateway:
        table = Table(epoch="e", sequence=1, engines=(row("i1", model=MODEL),), models=(model_row(model=MODEL),))
        self.dispatcher.set_view(combine([merge(None, table)]))
        return Gateway(
            settings=Settings(),
            clock=time.monotonic,
            board=LocalBoard(),
            dispatcher=self.dispatcher,
            upstream=self._upstream,
            usage=self._usage,
            metrics=Metrics(),
            bodies=self._budget,
            pool_known=lambda: True,
        )
