import pytest

from cotenant_loadtests.orders import (
    Done,
    Failed,
    FromWorker,
    Orders,
    Ready,
    Start,
    Stop,
    TenantTick,
    Tick,
    decode_from_worker,
    decode_orders,
    decode_to_worker,
    encode_line,
)

TICK = Tick(
    at_s=1.0,
    tenants={"search": TenantTick(sent=2, in_flight=1, ttft_us=(1500,))},
    lateness_us=(80, 120),
    cpu_s=0.2,
    rss_bytes=50_000_000,
    bytes_in=10,
    bytes_out=20,
)
DONE = Done(ended="finished", at_s=2.0, records=2, cpu_s=0.3, max_rss_bytes=1, bytes_in=1, bytes_out=1)


@pytest.mark.parametrize("message", [Ready(2), TICK, DONE, Failed("no such file")])
def test_what_a_worker_says_is_one_line_and_comes_back(message: FromWorker) -> None:
    line = encode_line(message)
    assert line.count(b"\n") == 1
    assert decode_from_worker(line) == message


@pytest.mark.parametrize("message", [Start(123), Stop(), Stop("unfinished")])
def test_what_a_worker_is_told_comes_back(message: Start | Stop) -> None:
    assert decode_to_worker(encode_line(message)) == message


def test_orders_come_back() -> None:
    orders = Orders(
        process=0,
        plan_file="p",
        records_file="r",
        url="http://h:1",
        addresses=("127.0.0.1", "::1"),
        keys={"a": "b"},
        duration_s=1,
        drain_s=1,
    )
    assert decode_orders(encode_line(orders)) == orders
