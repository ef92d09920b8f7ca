"""The Secret of the gateways as an operator finds it: packed, of an older operator, damaged, or not there."""

import base64
from typing import Any

import msgspec
import pytest

from cotenant_operator.first_objects import gateway_secret
from cotenant_operator.gateway_secret import GatewaySecret
from cotenant_operator.kinds import SECRETS, Kind, Object
from cotenant_operator.secrets_by_name import SecretsByName
from cotenant_serving.contract_gateway import GatewayConfig

RAW = msgspec.json.encode(GatewayConfig(generation=7, conductors=("http://one",)))


class NoCluster:
    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        raise AssertionError("nothing is read here")


def holding(data: dict[str, Any] | None) -> GatewaySecret:
    secrets = SecretsByName(NoCluster(), "ours", lambda name: None)
    if data is not None:
        secrets.put(SECRETS.new("cotenant-gateway", "ours", data=data))
    return GatewaySecret(secrets)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_what_this_operator_wrote_is_read_again() -> None:
    found = holding(gateway_secret("ours", RAW)["data"])
    assert found.json() == RAW
    config = found.config()
    assert config is not None
    assert config.generation == 7
    assert found.config() is config, "the same content is read once"


def test_what_an_older_operator_wrote_is_handed_out_and_written_anew() -> None:
    found = holding({"gateway.json": encoded(RAW)})
    assert found.json() == RAW
    assert found.config() is None


def test_of_both_the_packed_one_holds() -> None:
    older = msgspec.json.encode(GatewayConfig(generation=3))
    found = holding({**gateway_secret("ours", RAW)["data"], "gateway.json": encoded(older)})
    assert found.json() == RAW


@pytest.mark.parametrize("data", [None, {}, {"gateway.json.gz": encoded(b"\x1f\x8bno gzip")}])
def test_what_is_not_there_or_damaged_is_nothing(data: dict[str, str] | None) -> None:
    found = holding(data)
    assert found.config() is None
    assert found.json() == b""
