"""A real gateway process, and programmable fakes of what stands around it: engines and a conductor.

The fakes answer with scripts, so that a test decides about every byte and every broken connection.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import orjson
import psutil

from cotenant_serving import contract
from cotenant_serving.contract import Reason
from cotenant_serving.contract_gateway import (
    Demand,
    EngineRow,
    GatewayConfig,
    GatewayModel,
    GatewayTenant,
    Limits,
    ModelRow,
    Table,
)
from cotenant_serving.gateway import journal
from cotenant_serving.gateway.recovery import request_id
from tests.builders.gateway_http import HttpFake, Script, Seen, Wire
from tests.builders.ports import free_port

POOL_TOKEN = "pool-token-of-the-tests"
KEYS = {"search": "key-of-search-0123456789abcdef", "ads": "key-of-ads-fedcba9876543210"}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def tenant(name: str = "search", *, models: tuple[str, ...] = ("search/echo",), **limits: int) -> GatewayTenant:
    return GatewayTenant(name=name, key_sha256=(digest(KEYS[name]),), limits=Limits(**limits), models=models)


def config(
    *tenants: GatewayTenant, generation: int = 1, tasks: Mapping[str, contract.Task] | None = None, **fields: object
) -> GatewayConfig:
    """`tasks`: those of models that are not `echo`."""
    given = tenants or (tenant(),)
    names = sorted({model for one in given for model in one.models})
    models = tuple(
        GatewayModel(name=name, task=(tasks or {}).get(name, "echo"), created=1_700_000_000) for name in names
    )
    return GatewayConfig(generation=generation, tenants=given, models=models, **fields)


def row(instance: str = "i1", *, model: str = "search/echo", port: int = 0, slots: int = 4, **fields) -> EngineRow:
    """Each instance at an address of its own, unless one is given."""
    port = port or 8800 + int(hashlib.sha256(instance.encode()).hexdigest(), 16) % 50000
    given = {"revision": "0badcafe", "host": "127.0.0.1", **fields}
    return EngineRow(instance=instance, model=model, port=port, slots=slots, **given)


def model_row(
    state: str = "ready", *, model: str = "search/echo", reason: Reason = Reason.READY, **fields
) -> ModelRow:
    return ModelRow(model=model, state=state, reason=reason, **fields)


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}}
    chunk = {"object": "chat.completion.chunk", "model": "search/echo", "choices": [choice]}
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def stream_end(prompt: int = 3, completion: int = 2) -> bytes:
    usage = orjson.dumps({"prompt_tokens": prompt, "completion_tokens": completion})
    return contract.USAGE_COMMENT + usage + b"\n\ndata: [DONE]\n\n"


async def say_hello(seen: Seen, wire: Wire) -> None:
    """An engine's usual answer: `hello world`, streamed when asked."""
    body = orjson.loads(seen.body)
    if body.get("stream"):
        await wire.stream_head()
        for text in ("hello", " world"):
            await wire.chunk(event(text))
        await wire.chunk(stream_end())
        await wire.end()
        return
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello world"}}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [choice],
    }
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    headers = {contract.HEADER_USAGE: '{"prompt_tokens":3,"completion_tokens":2}'}
    await wire.answer(200, orjson.dumps(answer | {"usage": usage}), headers)


def refuse(status: int, reason: str) -> Script:
    async def script(_: Seen, wire: Wire) -> None:
        await wire.answer(status, b"{}", {contract.HEADER_REFUSED: reason})

    return script


def fail_with(status: int, body: bytes = b"oops") -> Script:
    async def script(_: Seen, wire: Wire) -> None:
        await wire.answer(status, body, {"content-type": "text/plain"})

    return script


async def hang_up(_: Seen, wire: Wire) -> None:
    wire.reset()


class FakeEngine(HttpFake):
    """Answers each request with the next script, or `usual` when none is left."""

    def __init__(self, instance: str = "i1", *, model: str = "search/echo", slots: int = 4) -> None:
        super().__init__()
        self.instance, self.model, self.slots = instance, model, slots
        self.usual: Script = say_hello
        self.scripts: deque[Script] = deque()
        self.requests: list[Seen] = []
        self.cancelled: list[str] = []
        self.cancel_usage: bytes | None = b'{"prompt_tokens":7,"completion_tokens":5}'
        self.running = 0
        self.most_running = 0

    def row(self, **fields) -> EngineRow:
        return row(self.instance, model=self.model, port=self.port, slots=self.slots, **fields)

    async def handle(self, seen: Seen, wire: Wire) -> None:
        assert seen.headers["authorization"] == f"Bearer {POOL_TOKEN}"
        if seen.method == "DELETE":
            self.cancelled.append(seen.path.rpartition("/")[2])
            await wire.answer(200 if self.cancel_usage else 404, self.cancel_usage or b"{}")
            return
        self.requests.append(seen)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await (self.scripts.popleft() if self.scripts else self.usual)(seen, wire)
        finally:
            self.running -= 1


class FakeConductor(HttpFake):
    """Publishes tables to long polls and keeps the demand reports."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Table(epoch="e1", sequence=0)
        self.demands: list[Demand] = []
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(
        self,
        *engines: EngineRow,
        models: tuple[ModelRow, ...] = (),
        gone: tuple[str, ...] = (),
        silent: tuple[str, ...] = (),
    ) -> None:
        """`silent` are also gone."""
        self.table = Table(
            epoch=self.table.epoch,
            sequence=self.table.sequence + 1,
            engines=engines,
            models=models,
            gone=(*gone, *silent),
            silent=silent,
        )
        self._changed.set()
        self._changed = asyncio.Event()

    def queued(self, model: str = "search/echo") -> list[int]:
        return [demand.models[model].queued if model in demand.models else 0 for demand in self.demands]

    async def handle(self, seen: Seen, wire: Wire) -> None:
        assert seen.headers["authorization"] == f"Bearer {POOL_TOKEN}"
        if seen.path == "/v1/demand":
            self.demands.append(msgspec.json.decode(seen.body, type=Demand))
            await wire.answer(204)
            return
        assert seen.path == "/v1/table"
        known = (seen.query.get("epoch", ""), int(seen.query["sequence"]))
        changed = self._changed
        if known == (self.table.epoch, self.table.sequence):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), float(seen.query["wait_s"]))
        if known == (self.table.epoch, self.table.sequence):
            await wire.head(204, {})
            return
        await wire.answer(200, msgspec.json.encode(self.table))


class GatewayProcess:
    """`python -m cotenant_serving.gateway` with its configuration file and state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config_file = directory / "gateway.json"
        self.state = directory / "state"
        self.port = 0
        self.log: list[str] = []
        self.environment: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        (directory / "pool-token").write_text(POOL_TOKEN + "\n")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def write_config(self, value: GatewayConfig) -> None:
        """Replaced by rename, as its writers do. The pool token file is filled in."""
        value = msgspec.structs.replace(value, pool_token_file=str(self.directory / "pool-token"))
        temporary = self.config_file.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(value))
        temporary.replace(self.config_file)

    async def start(self, *options: str) -> None:
        """Returns when it listens; `port` is then its own."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-X", "faulthandler", "-m", "cotenant_serving.gateway"),
            *("--config", str(self.config_file), "--state", str(self.state)),
            *("--port", str(free_port()), *options),
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
        )
        listening = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read_log(listening))
        self.port = await asyncio.wait_for(listening, 60)

    async def _read_log(self, listening: "asyncio.Future[int]") -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self.log.append(line.decode())
            found = re.search(r"listening on http://[^:]+:(\d+)", self.log[-1])
            if found and not listening.done():
                listening.set_result(int(found[1]))
        if not listening.done():
            listening.set_exception(RuntimeError("the gateway did not start:\n" + "".join(self.log)))

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, within_s: float = 30) -> int:
        """Of the first process; its workers may finish their requests."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), within_s)

    async def exited(self, within_s: float = 30) -> int:
        """Of all."""
        status = await self.ended(within_s)
        assert self._reader is not None
        await self._reader
        return status

    async def stop(self) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            workers = self.workers()
            self.signal(signal.SIGKILL)
            for worker in workers:  # they would finish their requests first
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        await self.exited()

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, in the order of their start."""
        return psutil.Process(self.pid).children()

    def usage(self) -> list[dict]:
        """Whole lines only: a kill may leave torn ones, and the last one may be in the middle of its write."""
        file = self.state / "usage.jsonl"
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        return [orjson.loads(line) for line in lines if line.endswith(b"}\n")]

    def settled(self) -> list[str]:
        """Requests whose usage a kill would not lose: it is in a journal or in the file, for a moment in both."""
        # In this order: lines go from the one to the other meanwhile.
        journals = [journal.read(path.read_bytes()) for path in (self.state / "journals").glob(f"*{journal.SUFFIX}")]
        kept = [request_id(line) for one in journals for line in one.lines]
        return sorted({*kept, *(record["request_id"] for record in self.usage())})


async def eventually(what: Callable[[], object], *, within_s: float = 30) -> None:
    """Waits until it holds. The bound only ends a test that would otherwise never end."""
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def raw_connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def raw_request(
    body: bytes, *, key: str = KEYS["search"], path: str = "/v1/chat/completions", extra: str = ""
) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {key}", f"content-length: {len(body)}")
    return ("\r\n".join(lines) + f"\r\n{extra}\r\n").encode() + body


def chat(text: str = "hi", *, model: str = "echo", **fields: object) -> bytes:
    return orjson.dumps({"model": model, "messages": [{"role": "user", "content": text}], **fields})
