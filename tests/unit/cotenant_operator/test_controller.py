"""What a replica that leads does when a Secret has changed."""

from typing import Any

import pytest

from cotenant_operator.controller import Operator
from cotenant_operator.kinds import SECRETS
from cotenant_operator.operator_settings import OperatorSettings


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


@pytest.mark.parametrize(
    ("name", "heard"),
    [("cotenant-gateway", ["gateways"]), ("cotenant-tokens", ["first", "plan"]), ("search-key", ["plan"])],
)
async def test_a_new_plan_is_made_of_every_secret_but_the_one_that_is_made_from_the_plan(
    name: str, heard: list[str]
) -> None:
    nowhere: Any = None
    operator, term = Operator(nowhere, nowhere, OperatorSettings()), Term()
    operator._term = term  # type: ignore[assignment]
    for version in ("1", "2"):
        secret = SECRETS.new(name, "cotenant-system")
        secret["metadata"]["resourceVersion"] = version
        operator._secrets.put(secret)
    assert term.heard == heard
