"""A gateway that follows an operator: the newest configuration holds, wherever it comes from, and nobody waits."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import orjson
import pytest
from tests.builders.fake_operator import FakeOperator
from tests.builders.gateway import (
    KEYS,
    FakeConductor,
    FakeEngine,
    GatewayProcess,
    config,
    eventually,
    model_row,
    tenant,
)
from tests.builders.gateway_calls import error_of, get, post_chat, until_ready, with_conductor
from tests.builders.gateway_watch import until

from cotenant_serving.contract_gateway import GatewayConfig

pytestmark = pytest.mark.integration


@pytest.fixture
async def operator() -> AsyncIterator[FakeOperator]:
    async with FakeOperator() as fake:
        yield fake


async def status(gateway: GatewayProcess, key: str = KEYS["search"]) -> int:
    return (await post_chat(gateway, key))[0]


async def until_status(gateway: GatewayProcess, wanted: int, key: str = KEYS["search"]) -> None:
    async with asyncio.timeout(30):
        while await status(gateway, key) != wanted:
            await asyncio.sleep(0.05)


def without_key(conductor: FakeConductor, generation: int) -> GatewayConfig:
    """As `config`, but the key is revoked."""
    value = config(msgspec.structs.replace(tenant(), key_sha256=()), generation=generation)
    return with_conductor(value, conductor)


async def begin(
    gateway: GatewayProcess, operator: FakeOperator, conductor: FakeConductor, engine: FakeEngine, *options: str
) -> None:
    """Generation 5 stands in the mounted file."""
    conductor.publish(engine.row(), models=(model_row(),))
    gateway.write_config(with_conductor(config(generation=5), conductor))
    await gateway.start(*operator.options(gateway), *options)
    await until_ready(gateway)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_revoked_key_stops_while_the_mounted_file_still_has_it(gateway, operator, conductor, engine, workers):
    await begin(gateway, operator, conductor, engine, "--workers", workers)
    assert await status(gateway) == 200

    operator.publish(without_key(conductor, 6))

    async def all_refuse() -> bool:
        return {await status(gateway) for _ in range(8)} == {401}

    await until(all_refuse)
    await asyncio.sleep(1.5)  # the file, which is older, is looked at meanwhile
    assert await all_refuse()
    assert operator.polls[0] == 5


async def test_the_higher_generation_holds_whether_it_is_mounted_or_the_operators(
    gateway, operator, conductor, engine
):
    await begin(gateway, operator, conductor, engine)
    operator.publish(without_key(conductor, 6))
    await until_status(gateway, 401)

    gateway.write_config(with_conductor(config(generation=7), conductor))

    await until_status(gateway, 200)


async def test_a_gateway_starts_without_an_operator_with_the_newest_it_has_known(
    gateway, operator, conductor, engine
):
    await begin(gateway, operator, conductor, engine)
    operator.publish(without_key(conductor, 6))
    await until_status(gateway, 401)
    await gateway.stop()
    await operator.stop()

    again = GatewayProcess(gateway.directory)
    try:
        await again.start(*operator.options(gateway))
        await until_ready(again)
        assert await status(again) == 401
        gateway.write_config(with_conductor(config(generation=7), conductor))
        await until_status(again, 200)
    finally:
        await again.stop()
    assert (gateway.state / "gateway.json").stat().st_mode & 0o777 == 0o600


async def test_requests_do_not_feel_an_operator_that_is_away_and_its_return_is_followed(
    gateway, operator, conductor, engine
):
    await begin(gateway, operator, conductor, engine)
    await operator.stop()
    await eventually(lambda: "does not answer (configuration)" in "".join(gateway.log))
    assert await status(gateway) == 200

    operator.publish(without_key(conductor, 6))
    await operator.start()

    await until_status(gateway, 401)
    said = "".join(gateway.log)
    assert said.count("does not answer (configuration)") == said.count("answers again (configuration)") == 1


async def test_what_cannot_be_used_never_replaces_what_could(gateway, operator, conductor, engine):
    await begin(gateway, operator, conductor, engine)
    operator.publish_raw(b'{"generation": 6, "gateways": 0}', 6)
    await eventually(lambda: "gateways: is 0; it must be 1 or more" in "".join(gateway.log))
    assert await status(gateway) == 200

    operator.publish(without_key(conductor, 7))
    await until_status(gateway, 401)


async def test_a_gateway_of_a_new_cluster_lives_without_any_configuration_and_is_ready_with_an_empty_one(
    gateway, operator
):
    await operator.stop()
    await gateway.start(*operator.options(gateway))
    assert (await get(gateway, "/healthz"))[0] == 200
    code, _, body = await get(gateway, "/readyz")
    assert (code, orjson.loads(body)["reason"]) == (503, "no configuration is loaded")

    await operator.start()
    operator.publish(GatewayConfig(generation=1))

    await until_ready(gateway)
    assert await status(gateway) == 401
    operator.publish(config(generation=2))
    async with asyncio.timeout(30):
        while (found := await post_chat(gateway, model="unknown"))[0] != 404:
            await asyncio.sleep(0.05)
    assert error_of(found[2])["code"] == "model_not_found"


async def test_conductors_that_have_never_answered_keep_a_gateway_unready_for_a_moment_only(gateway, conductor):
    await conductor.stop()
    gateway.write_config(with_conductor(config(), conductor))
    await gateway.start()
    assert b"no conductor has answered" in (await get(gateway, "/readyz"))[2]
    await until_ready(gateway)


async def test_limits_are_those_of_all_gateways_while_one_becomes_three_and_one_again(
    tmp_path: Path, operator, conductor, engine
):
    engine.slots = 100
    conductor.publish(engine.row(), models=(model_row(),))

    def publish(generation: int, gateways: int) -> None:
        value = config(tenant(requests_per_minute=60), generation=generation, gateways=gateways)
        operator.publish(with_conductor(value, conductor))

    async def started(name: str) -> GatewayProcess:
        (tmp_path / name).mkdir()
        gateway = GatewayProcess(tmp_path / name)
        await gateway.start(*operator.options(gateway), "--name", name)
        await until_ready(gateway)
        return gateway

    async def admitted(gateway: GatewayProcess, count: int) -> int:
        codes = [one[0] for one in await asyncio.gather(*(post_chat(gateway) for _ in range(count)))]
        assert set(codes) <= {200, 429}
        return codes.count(200)

    async def part_is(gateway: GatewayProcess, limit: int) -> None:
        """Costs one request at most each time."""
        async with asyncio.timeout(30):
            while (await post_chat(gateway))[1]["x-ratelimit-limit-requests"] != str(limit):
                await asyncio.sleep(0.2)

    publish(1, 1)
    several = [await started("first")]
    began_s = time.monotonic()
    try:
        first = await admitted(several[0], 30)
        assert first == 30, "half of what a bucket holds"

        several += [await started("second"), await started("third")]
        publish(2, 3)
        for gateway in several:
            await part_is(gateway, 20)
        three = [await admitted(gateway, 40) for gateway in several]

        publish(3, 1)
        await part_is(several[0], 60)
        last = await admitted(several[0], 60)

        passed_s = time.monotonic() - began_s
        asked = 2 * 3  # by `part_is`, at least one of each
        total = first + sum(three) + last
        assert total <= 60 + 2 * 20 + passed_s + 3, "the limit, what two new gateways bring, and what came back"
        assert total >= 30 + 10 + 2 * 20 - asked
        assert 10 - asked <= three[0] <= 10 + passed_s / 3 + 1, "a bucket that was half full is so at a third, too"
        assert max(three[1:]) <= 20 + passed_s / 3 + 1
        assert last <= passed_s + 1, "what was taken at three does not come back at one"
    finally:
        for gateway in several:
            await gateway.stop()
