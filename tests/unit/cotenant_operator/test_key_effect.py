"""A command that has made a key returns when every worker of the gateway takes it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.builders.small_gateway import Answer, SmallGateway

from cotenant_operator.created_keys import hash_of
from cotenant_operator.key_effect import wait_until_gone, wait_until_known
from cotenant_operator.state_dir import StateDir, write_private
from cotenant_serving.contract_gateway import GatewayConfig, GatewayTenant

KEY = "ct-one"


class Workers:
    """Answers of a gateway in which some look-ups still come to a worker that has not read the key yet."""

    def __init__(self, *statuses: int) -> None:
        self.left = list(statuses)

    def __call__(self, path: str, body: dict[str, Any], key: str) -> Answer:
        return (self.left.pop(0) if self.left else 200), {}


def run(folder: Path, url: str, *, workers: int, keys: tuple[str, ...] = (KEY,)) -> Path:
    """A state directory as `up` leaves it, with these keys published."""
    state = StateDir(folder)
    tenant = GatewayTenant(name="ads", key_sha256=tuple(map(hash_of, keys)))
    write_private(state.gateway_config, msgspec.json.encode(GatewayConfig(generation=1, tenants=(tenant,))))
    state.announce(conductor_url="http://127.0.0.1:1", gateway_url=url, gateway_workers=workers)
    return folder


@pytest.mark.parametrize(("workers", "asked"), [(1, 3), (2, 6)])
def test_a_key_is_known_when_the_gateway_takes_it_and_with_several_workers_goes_on_taking_it(
    tmp_path: Path, workers: int, asked: int
) -> None:
    lagging = Workers(401, 401, 200, 401, 200)
    with SmallGateway(lagging) as gateway:
        assert wait_until_known(run(tmp_path, gateway.url, workers=workers), KEY, hash_of(KEY))
    assert len(gateway.asked) >= asked
    assert bool(lagging.left) == (workers == 1)


def test_where_no_up_runs_nothing_is_waited_for(tmp_path: Path) -> None:
    assert wait_until_known(tmp_path, KEY, hash_of(KEY))
    assert wait_until_gone(tmp_path, hash_of(KEY))


def test_a_gateway_that_is_being_started_again_will_read_the_key(tmp_path: Path) -> None:
    with SmallGateway(Workers()) as gateway:
        pass
    assert wait_until_known(run(tmp_path, gateway.url, workers=1), KEY, hash_of(KEY))


def test_a_key_that_is_not_published_is_gone(tmp_path: Path) -> None:
    assert wait_until_gone(run(tmp_path, "http://127.0.0.1:1", workers=1, keys=()), hash_of(KEY))
