"""Old usage goes, once a day, by whole days, and nothing else does."""

from datetime import date, timedelta

import pytest

from cotenant_operator.cluster import Listing
from cotenant_operator.cluster_errors import NotFoundError, UnreachableError
from cotenant_operator.kinds import CONFIG_MAPS, Kind, Object
from cotenant_operator.usage_ledger import ledger_labels, ledger_name
from cotenant_operator.usage_retention import UsageRetention, expired

TODAY = date(2026, 11, 26)
NOON_S = 1_795_694_400.0
DAY_S = 86_400.0


def ledger(day: date, part: int = 0) -> Object:
    item = CONFIG_MAPS.new(ledger_name(day.isoformat(), part), "ours")
    item["metadata"] |= {"labels": ledger_labels(day.isoformat()), "uid": f"uid-{day}-{part}"}
    return item


def days_ago(*numbers: int) -> list[Object]:
    return [ledger(TODAY - timedelta(days=number)) for number in numbers]


class ApiServer:
    def __init__(self, *items: Object) -> None:
        self.items = list(items)
        self.lists = 0
        self.fails: Exception | None = None
        self.deleted: list[str] = []

    async def list(
        self, kind: Kind, namespace: str = "", *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        assert (kind, namespace, labels, metadata_only) == (CONFIG_MAPS, "ours", "cotenant.dev/usage=true", True)
        self.lists += 1
        return Listing(list(self.items), "1")

    async def delete(self, kind: Kind, name: str, namespace: str = "", *, uid: str = "") -> None:
        if self.fails is not None:
            raise self.fails
        assert uid == next(item["metadata"]["uid"] for item in self.items if item["metadata"]["name"] == name)
        self.items = [item for item in self.items if item["metadata"]["name"] != name]
        self.deleted.append(name)


@pytest.mark.parametrize("days", [1, 2, 30, 400, 1_000_000])
def test_no_day_inside_the_retention_is_deleted_and_each_beyond_it_is(days: int) -> None:
    ages = (-400, -1, 0, 1, 2, 3, 29, 30, 31, 399, 400, 401, 4000)
    found = expired(days_ago(*ages), TODAY, days)
    assert found == days_ago(*(age for age in reversed(ages) if age > days)), "the oldest first"


def test_all_parts_of_a_day_go_with_it() -> None:
    old = TODAY - timedelta(days=401)
    parts = [ledger(old, part) for part in (0, 1, 11)]
    assert len(expired(parts, TODAY, 400)) == 3


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("cotenant-made", "2020-01-01"),
        ("123", "2020-01-01"),
        ("cotenant-usage-2020-01-01x2", "2020-01-01"),
        ("my-cotenant-usage-2020-01-01", "2020-01-01"),
        ("cotenant-usage-2026-11-26", "2020-01-01"),
        ("cotenant-usage-2020-01-01-mine", "2020-01-01"),
        ("cotenant-usage-20200101", "20200101"),
        ("cotenant-usage-long-ago", "long-ago"),
        ("cotenant-usage-2020-01-01", ""),
    ],
)
def test_what_the_ledger_did_not_name_is_nobodys_to_delete(name: str, day: str) -> None:
    item = CONFIG_MAPS.new(name, "ours")
    item["metadata"]["labels"] = ledger_labels(day)
    assert expired([item], TODAY, 1) == []


async def test_it_is_done_once_a_day() -> None:
    api = ApiServer(*days_ago(0, 400, 401, 500))
    now_s = NOON_S
    retention = UsageRetention(api, api, "ours", 400, wall=lambda: now_s)
    for _ in range(3):
        await retention.look()
    assert api.lists == 1
    assert api.deleted == ["cotenant-usage-2025-07-14", "cotenant-usage-2025-10-21"]
    now_s += DAY_S
    await retention.look()
    assert (api.lists, len(api.items)) == (2, 1)


async def test_without_a_retention_nothing_is_even_looked_for() -> None:
    api = ApiServer(*days_ago(4000))
    await UsageRetention(api, api, "ours", 0, wall=lambda: NOON_S).look()
    assert (api.lists, api.deleted) == (0, [])


async def test_what_fails_is_said_and_tried_again_at_the_next_look(caplog: pytest.LogCaptureFixture) -> None:
    api = ApiServer(*days_ago(401))
    api.fails = UnreachableError("no answer")
    retention = UsageRetention(api, api, "ours", 400, wall=lambda: NOON_S)
    await retention.look()
    assert "older than 400 days cannot be deleted now: no answer" in caplog.text
    api.fails = NotFoundError("somebody was quicker", status=404)
    await retention.look()
    await retention.look()
    assert api.lists == 2
