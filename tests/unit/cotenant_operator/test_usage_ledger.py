"""The ledger of a cluster's usage: each batch once, whoever writes it and however often it comes."""

import random
from itertools import count
from typing import Any

import pytest

from cotenant_operator.usage_ledger import (
    CLOSED_BYTES,
    LedgerError,
    changes,
    days_of,
    ledger_labels,
    ledger_name,
    usage_of,
)
from cotenant_operator.usage_report import usage_document, usage_rows
from cotenant_serving.contract_usage import UsageBatch, UsageTotal

DAY = "2026-11-26"
DAY_S = 1_795_651_200.0


def total(model: str = "search/chat", **fields: Any) -> UsageTotal:
    given = {"day": DAY, "tenant": "search", "outcome": "ok", "requests": 1, "first": DAY_S, "last": DAY_S}
    return UsageTotal(model=model, **{**given, **fields})


def batch(*totals: UsageTotal, sequence: int = 1, gateway: str = "gateway-a", boot: str = "b1") -> UsageBatch:
    return UsageBatch(gateway=gateway, boot=boot, sequence=sequence, totals=totals or (total(),))


class Ledger:
    """A day's ConfigMaps."""

    def __init__(self, closed_bytes: int = CLOSED_BYTES) -> None:
        self.parts: list[dict[str, str]] = []
        self._closed_bytes = closed_bytes

    def write(self, number: int, data: dict[str, str]) -> None:
        assert number <= len(self.parts)
        self.parts[number : number + 1] = [data]

    def add(self, one: UsageBatch, *, writes: int = 99) -> None:
        """`writes`: so many succeed."""
        for number, data in self.missing(one)[:writes]:
            self.write(number, data)

    def missing(self, one: UsageBatch) -> list[tuple[int, dict[str, str]]]:
        return changes(one, DAY, self.parts, closed_bytes=self._closed_bytes)

    @property
    def requests(self) -> int:
        return usage_of(self.parts, ("tenant",), None).total.requests


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_a_batch_that_comes_again_is_counted_once(ledger: Ledger) -> None:
    ledger.add(batch(total(requests=3)))
    ledger.add(batch(total(requests=3)))
    assert ledger.requests == 3
    assert changes(batch(total(requests=3)), DAY, ledger.parts) == []


def test_gateways_boots_and_sequences_are_counted_each(ledger: Ledger) -> None:
    ledger.add(batch())
    ledger.add(batch(sequence=2))
    ledger.add(batch(boot="b2"))
    ledger.add(batch(gateway="gateway-b"))
    assert ledger.requests == 4


def test_an_older_batch_that_was_on_its_way_for_long_is_not_added_again(ledger: Ledger) -> None:
    ledger.add(batch(sequence=1))
    ledger.add(batch(sequence=2))
    ledger.add(batch(sequence=1))
    assert ledger.requests == 2


def test_a_batch_over_midnight_is_added_to_each_of_its_days() -> None:
    over = batch(total(), total(day="2026-11-27", requests=2))
    assert days_of(over) == (DAY, "2026-11-27")
    found = [changes(over, day, []) for day in days_of(over)]
    parts = [data for one in found for _, data in one]
    usage = usage_of(parts, ("day",), None)
    assert {group: found.requests for group, found in usage.groups.items()} == {(DAY,): 1, ("2026-11-27",): 2}


def test_a_day_that_is_no_date_is_refused_because_it_becomes_a_name() -> None:
    with pytest.raises(LedgerError, match="is no date"):
        days_of(batch(total(day="../tokens")))


def test_the_report_of_a_cluster_has_the_rows_of_the_report_of_a_machine(ledger: Ledger) -> None:
    ledger.add(batch(total(requests=2, prompt_tokens=10, completion_tokens=5, estimated=1, duration_s=3.0)))
    ledger.add(batch(total(outcome="timeout", last=DAY_S + 60), total("search/embed"), sequence=2))
    usage = usage_of(ledger.parts, ("tenant", "model"), None)
    assert usage_rows(usage, wide=True) == (
        (
            *("TENANT", "MODEL", "REQUESTS", "ERRORS", "PROMPT", "COMPLETION", "ESTIMATED"),
            *("MEAN TIME", "FIRST", "LAST"),
        ),
        [
            (
                *("search", "search/chat", "3", "1", "10", "5", "1"),
                *("1.00 s", "2026-11-26T00:00:00Z", "2026-11-26T00:01:00Z"),
            ),
            (
                *("search", "search/embed", "1", "0", "0", "0", "0"),
                *("0.00 s", "2026-11-26T00:00:00Z", "2026-11-26T00:00:00Z"),
            ),
            (
                *("total", "", "4", "1", "10", "5", "1"),
                *("0.75 s", "2026-11-26T00:00:00Z", "2026-11-26T00:01:00Z"),
            ),
        ],
    )


def test_since_means_the_whole_day_and_the_report_says_so(ledger: Ledger) -> None:
    ledger.add(batch())
    yesterday = {**ledger.parts[0], "day": "2026-11-25"}
    usage = usage_of([yesterday, *ledger.parts], ("day",), DAY_S + 3600)
    assert list(usage.groups) == [(DAY,)]
    assert usage_document(usage)["since"] == "2026-11-26T00:00:00Z"


def test_a_damaged_config_map_is_said_and_the_others_count(ledger: Ledger) -> None:
    ledger.add(batch())
    usage = usage_of([{"day": DAY, "totals": "{"}, *ledger.parts], ("tenant",), None)
    assert (usage.damaged, usage.total.requests) == (1, 1)
    with pytest.raises(LedgerError, match="damaged"):
        changes(batch(sequence=2), DAY, [{"totals": "{"}])


def test_names_and_labels_say_the_day() -> None:
    assert [ledger_name(DAY), ledger_name(DAY, 1)] == ["cotenant-usage-2026-11-26", "cotenant-usage-2026-11-26-2"]
    assert ledger_labels(DAY) == {"cotenant.dev/usage": "true", "cotenant.dev/usage-day": DAY}


def test_no_config_map_grows_beyond_what_kubernetes_takes(ledger: Ledger) -> None:
    for sequence in range(1, 40):
        rows = (total(f"search/model-{sequence}-{n}", tenant="t" * 63) for n in range(250))
        ledger.add(batch(*rows, sequence=sequence))
    assert len(ledger.parts) > 1
    assert max(sum(map(len, data.values())) for data in ledger.parts) < 1 << 20
    assert ledger.requests == 39 * 250


@pytest.mark.parametrize("seed", range(20))
def test_writes_that_fail_and_are_tried_again_lose_nothing_and_count_nothing_twice(
    seed: int,
) -> None:
    ledger = Ledger(closed_bytes=400)
    rng = random.Random(seed)
    numbers = {"gateway-a": count(1), "gateway-b": count(1)}
    waiting = {name: _some(rng, name, next(numbers[name])) for name in numbers}
    sent = 0
    for _ in range(200):
        name = rng.choice(sorted(waiting))
        ledger.add(waiting[name], writes=rng.randrange(3))
        if not ledger.missing(waiting[name]):  # all is written: the operator says so
            sent += sum(one.requests for one in waiting[name].totals)
            waiting[name] = _some(rng, name, next(numbers[name]))
    for one in waiting.values():
        ledger.add(one)
        sent += sum(each.requests for each in one.totals)
    assert ledger.requests == sent
    assert len(ledger.parts) > 1


def _some(rng: random.Random, gateway: str, sequence: int) -> UsageBatch:
    names = rng.sample([f"m{n}" for n in range(40)], rng.randint(1, 4))
    return batch(*(total(name, requests=rng.randint(1, 9)) for name in names), gateway=gateway, sequence=sequence)
