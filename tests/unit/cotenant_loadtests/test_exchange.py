import pytest
from tests.builders.load_records import planned

from cotenant_loadtests.checks import Finding
from cotenant_loadtests.exchange import Exchange, TenantCount, make_record
from cotenant_loadtests.key_mask import KeyMask
from cotenant_loadtests.record import NEVER, Record

MS = 1_000_000


KEY = "sk-0123/456789abcdefgh+XYZ"


def told(request_id: str, timing: str, detail: str) -> tuple[str, str, str]:
    """What is kept of what a server says to the tenant with that key."""
    exchange = Exchange(planned(), b"", scheduled_ns=0, tenant=TenantCount(KeyMask(KEY)), expected=None)
    exchange.finding = Finding("http_error", detail)
    exchange.request_id, exchange.server_timing = request_id.encode("latin-1"), timing.encode("latin-1")
    record = make_record(exchange, process=0, start_ns=0, end_ns=MS)
    return record.request_id, record.server_timing, record.detail


def test_a_key_that_a_server_says_is_not_kept() -> None:
    """`/` and `+` are replaced where phases are kept."""
    assert told(f"id-{KEY}", f"a;desc={KEY}", f"bad:{KEY}") == ("hidden", "hidden", "hidden")
    assert told(f"id-{KEY[9:]}", f"a;desc={KEY[5:18]}", f"bad:{KEY[-13:]}") == ("hidden", "hidden", "hidden")


def test_what_a_server_says_is_kept_fit_to_be_shown() -> None:
    assert told("id 7\u00e9", "queue;dur=1\u00e9", "limit") == ("id?7?", "queue;dur=1?", "limit")


def record_of(*, dialled_ms: int | None, opened_after_ms: int = 0, sent_ms: int | None = None) -> Record:
    """Due at 10 ms, ended at 100 ms."""
    exchange = Exchange(planned(), b"", scheduled_ns=10 * MS, tenant=TenantCount(), expected=None)
    exchange.finding = Finding("timeout")
    exchange.dialled_ns = NEVER if dialled_ms is None else dialled_ms * MS
    exchange.connect_ns = opened_after_ms * MS
    exchange.sent_ns = NEVER if sent_ms is None else sent_ms * MS
    return make_record(exchange, process=0, start_ns=0, end_ns=100 * MS)


WAITS = [
    ("its connection opened", {"dialled_ms": 12, "opened_after_ms": 30, "sent_ms": 43}, 30_000, 3_000),
    ("its connection never opened", {"dialled_ms": 12}, 88_000, NEVER),
    ("it found a connection that was open", {"dialled_ms": None, "sent_ms": 11}, 0, 1_000),
    ("there was no connection for it", {"dialled_ms": None}, 0, NEVER),
]


@pytest.mark.parametrize(
    ("times", "connect_us", "lateness_us"), [row[1:] for row in WAITS], ids=[row[0] for row in WAITS]
)
def test_the_wait_for_a_connection_is_told_apart_from_lateness(
    times: dict[str, int | None], connect_us: int, lateness_us: int
) -> None:
    record = record_of(**times)
    assert (record.connect_us, record.lateness_us) == (connect_us, lateness_us)
