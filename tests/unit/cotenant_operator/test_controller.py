"""What a replica that leads does when a Secret has changed."""

from typing import Any

import msgspec
import pytest

from cotenant_operator.controller import Operator
from cotenant_operator.first_objects import gateway_secret
from cotenant_operator.kinds import SECRETS, Object
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_serving.contract_gateway import GatewayConfig


class Term:
    """Keeps what it hears of."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def first_changed(self) -> None:
        self.heard.append("first")

    def gateways_changed(self) -> None:
        self.heard.append("gateways")

    def plan_changed(self) -> None:
        self.heard.append("plan")


def leader() -> tuple[Operator, Term]:
    nowhere: Any = None
    operator, term = Operator(nowhere, nowhere, OperatorSettings()), Term()
    operator._term = term  # type: ignore[assignment]
    return operator, term


def put(operator: Operator, secret: Object, version: int) -> None:
    secret["metadata"]["resourceVersion"] = str(version)
    operator._secrets.put(secret)


@pytest.mark.parametrize(("name", "heard"), [("cotenant-tokens", ["first", "plan"]), ("search-key", ["plan"])])
async def test_another_secret_of_the_same_name_is_planned_with(name: str, heard: list[str]) -> None:
    operator, term = leader()
    for version in (1, 2):
        put(operator, SECRETS.new(name, "cotenant-system"), version)
    assert term.heard == heard


async def test_the_gateways_secret_is_looked_at_when_somebody_else_changed_it_and_never_planned_with() -> None:
    operator, term = leader()
    raws = [msgspec.json.encode(GatewayConfig(generation=number)) for number in (1, 2)]
    for version, raw in enumerate(raws):
        operator._published.offer(raw)
        put(operator, gateway_secret("cotenant-system", raw), version)
    assert term.heard == [], "what was just written here"
    put(operator, gateway_secret("cotenant-system", raws[0]), 3)
    assert term.heard == ["gateways"]
    assert operator._published.raw == raws[1], "an older one is not handed out"
    newer = msgspec.json.encode(GatewayConfig(generation=3))
    put(operator, gateway_secret("cotenant-system", newer), 4)
    assert (term.heard, operator._published.raw) == (["gateways"] * 2, newer)
    put(operator, SECRETS.new("cotenant-gateway", "cotenant-system"), 5)
    assert term.heard == ["gateways"] * 3
