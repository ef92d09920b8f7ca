"""Starting a gateway process between fakes, and calling it."""

import asyncio

import aiohttp
import msgspec
import openai
import orjson

from cotenant_serving.contract_gateway import GatewayConfig
from tests.builders.gateway import (
    KEYS,
    FakeConductor,
    FakeEngine,
    GatewayProcess,
    Seen,
    Wire,
    chat,
    config,
    eventually,
    model_row,
    say_hello,
)

HELLO = [{"role": "user", "content": "hi"}]


async def run(
    gateway: GatewayProcess,
    conductor: FakeConductor,
    *engines: FakeEngine,
    client: openai.AsyncOpenAI | None = None,
    value: GatewayConfig | None = None,
    options: tuple[str, ...] = (),
) -> None:
    """Starts the gateway with these engines in its table."""
    value = value or config()
    gateway.write_config(with_conductor(value, conductor))
    if engines:
        conductor.publish(*(engine.row() for engine in engines), models=(model_row(),))
    await gateway.start(*options)
    if client is not None:
        client.base_url = f"{gateway.url}/v1"
    if engines:
        await eventually((gateway.state / "table.json").exists)


def with_conductor(value: GatewayConfig, conductor: FakeConductor) -> GatewayConfig:
    return msgspec.structs.replace(value, conductors=(conductor.url,))


async def get(gateway: GatewayProcess, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return await request(gateway, "GET", path, headers=headers)


async def request(
    gateway: GatewayProcess,
    method: str,
    path: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, gateway.url + path, data=body, headers=headers) as response,
    ):
        return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()


async def post_chat(
    gateway: GatewayProcess, key: str = KEYS["search"], *, headers: dict[str, str] | None = None, **fields: object
) -> tuple[int, dict[str, str], bytes]:
    given = {"authorization": f"Bearer {key}", **(headers or {})}
    return await request(gateway, "POST", "/v1/chat/completions", body=chat(**fields), headers=given)


async def until_ready(gateway: GatewayProcess, *, ready: bool = True, within_s: float = 30) -> str:
    """Waits until the gateway wants traffic, or does not. The reason it gives; empty when it wants some."""
    async with asyncio.timeout(within_s):
        while True:
            code, _, body = await get(gateway, "/readyz")
            if code == (200 if ready else 503):
                return str(orjson.loads(body)["reason"])
            await asyncio.sleep(0.05)


def error_of(body: bytes) -> dict:
    return orjson.loads(body)["error"]


def gate() -> tuple[asyncio.Event, object]:
    """An event, and a script that answers when it is set."""
    opened = asyncio.Event()

    async def script(seen: Seen, wire: Wire) -> None:
        await opened.wait()
        await say_hello(seen, wire)

    return opened, script
