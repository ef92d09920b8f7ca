"""What a worker tells each second stays small however much it sends."""

from types import SimpleNamespace

import pytest
from tests.builders.loadtest_worker import chat

from cotenant_loadtests.exchange import Exchange, TenantCount, Traffic
from cotenant_loadtests.worker_ticks import MOST_SHOWN, Ticker


@pytest.mark.parametrize("per_second", [10, 900, 20_000])
def test_of_many_requests_evenly_spread_ones_are_told(per_second: int) -> None:
    sender = SimpleNamespace(
        new=[], show_every=1, under_way=[], tenants={}, errors={}, pool=SimpleNamespace(traffic=Traffic(), waiting=0)
    )
    ticker = Ticker(sender, start_ns=0)  # type: ignore[arg-type]  # as much of a sender as is looked at
    exchange = Exchange(chat(0), b"", scheduled_ns=0, tenant=TenantCount(), expected=None)
    exchange.sent_ns = 5000
    told = []
    for second in range(1, 5):
        sender.new = [exchange] * (per_second // sender.show_every)
        told.append(len(ticker.tick(second * 10**9).lateness_us))
    assert told[0] == per_second
    assert all(min(per_second, MOST_SHOWN // 2) <= count <= MOST_SHOWN for count in told[1:])
