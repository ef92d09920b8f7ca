"""A pool gives back what it took, however an exchange ends."""

import asyncio

from tests.builders.loadtest_worker import chat

from cotenant_loadtests.checks import Finding
from cotenant_loadtests.exchange import Exchange, TenantCount
from cotenant_loadtests.pool import Pool, make_endpoint


def exchange() -> Exchange:
    return Exchange(chat(1), b"POST", scheduled_ns=0, tenant=TenantCount(), expected=None)


async def test_a_dial_given_up_before_its_first_step_leaves_its_place_to_the_next() -> None:
    """A stalled loop sends a request and finds it too late in one turn."""
    ended: list[tuple[Exchange, str]] = []
    ports = make_endpoint("http://127.0.0.1:1", ("127.0.0.1",), ca_file=None, verify_tls=True)
    pool = Pool(ports, 1, lambda exchange, finding, _now_ns: ended.append((exchange, finding.outcome)))
    late, following = exchange(), exchange()
    pool.submit(late)
    pool.submit(following)
    late.finding = Finding("timeout", "not_sent")
    pool.give_up(late)
    async with asyncio.timeout(30):
        while not ended:
            await asyncio.sleep(0.01)
    assert ended == [(following, "connect")]
    assert (late.dial, pool.waiting) == (None, 0)
