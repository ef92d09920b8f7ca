"""The operator's rights against its code; test_chart.py holds them against docs/rbac.md."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.builders.chart import Object, one, rendered
from tests.golden_chart.situations import NO_HELM, has_helm

from cotenant_operator.caches import Caches
from cotenant_operator.cluster import Event, Listing
from cotenant_operator.kinds import Kind
from cotenant_operator.operator_settings import OperatorSettings

pytestmark = pytest.mark.skipif(not has_helm(), reason=NO_HELM)


class _Listed:
    """Writes down what is listed, and answers nothing."""

    def __init__(self, until: int) -> None:
        self.seen: set[tuple[str, str, str]] = set()
        self.all, self._until = asyncio.Event(), until

    async def list(self, kind: Kind, namespace: str = "", *, labels: str = "") -> Listing:
        self.seen.add((kind.api_version.rpartition("/")[0], kind.plural, namespace))
        if len(self.seen) == self._until:
            self.all.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    async def watch(self, kind: Kind, namespace: str = "", **_: Any) -> AsyncIterator[Event]:
        raise AssertionError("nothing was listed")
        yield


async def test_the_operator_may_follow_exactly_what_it_follows() -> None:
    default: list[Object] = rendered()
    listed = _Listed(until=9)
    caches = Caches(listed, OperatorSettings(), lambda: pytest.fail("nothing changes"))
    following = asyncio.create_task(caches.run())
    await asyncio.wait_for(listed.all.wait(), 10)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert len(listed.seen) == len(caches.all)

    allowed = {
        (group, resource, where)
        for kind, where in (("ClusterRole", ""), ("Role", "cotenant-system"))
        for rule in one(default, kind, "cotenant-operator")["rules"]
        if {"list", "watch"} & set(rule["verbs"])
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    old_usage = ("", "configmaps", "cotenant-system")  # looked for once a day, by `usage_retention`
    assert allowed == listed.seen | {old_usage}
