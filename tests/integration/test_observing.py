"""A server's metrics, sampled while it behaves and while it does not."""

import itertools
import time
from collections.abc import Callable, Iterator

import pytest
from tests.builders.pages import answering_with, page
from tests.builders.up import until

from cotenant_loadtests import observing
from cotenant_loadtests.observed import MOST_VALUES
from cotenant_loadtests.observing import Observer, PageError, fetch
from cotenant_loadtests.results import ServerSide
from cotenant_loadtests.spec import Observe, Scenario, Target

pytestmark = pytest.mark.integration

FAST_S = 0.2


def scenario(url: str, **observe: object) -> Scenario:
    stream = {"name": "s", "tenant": "t", "model": "m", "arrivals": {"process": "constant", "rate_per_s": 1}}
    options = {"interval_s": FAST_S, **observe}
    return Scenario.model_validate({"name": "x", "target": {"url": url}, "streams": [stream], "observe": options})


class Clock:
    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() - self._began


def observe_until(
    url: str, condition: Callable[[], bool], *, most_values: int = MOST_VALUES, **observe: object
) -> ServerSide:
    observer = Observer(scenario(url, **observe), Clock(), most_values=most_values)
    observer.start()
    try:
        until(condition, "enough was asked for", limit_s=20)
    finally:
        seen = observer.stop()
    return seen


def gateway(number: int) -> list[bytes]:
    return page(
        "# TYPE cotenant_engines gauge\n"
        f'cotenant_engines{{model="search/left"}} {number % 2}\n'
        "# TYPE cotenant_requests_total counter\n"
        f'cotenant_requests_total{{tenant="search"}} {100 * number}\n'
        f"go_threads {number}\n"
    )


def test_metrics_and_table_of_a_gateway_come_with_their_times_and_rates():
    with answering_with(gateway) as pages:
        seen = observe_until(pages.url, lambda: len(pages.asked) > 4, table=True)
    assert seen.problems == ()
    assert [sample.values for sample in seen.table[:4]] == [{"search/left": engines} for engines in (0, 1, 0, 1)]
    times = [sample.at_s for sample in seen.metrics]
    assert times == [sample.at_s for sample in seen.table] == sorted(times)
    assert times[0] >= 0
    requests = 'cotenant_requests_total{tenant="search"}'
    for (before, now), number in zip(itertools.pairwise(seen.metrics), itertools.count(1)):
        assert now.values == {
            'cotenant_engines{model="search/left"}': number % 2,
            requests: 100 * number,
            f"rate({requests})": pytest.approx(100 / (now.at_s - before.at_s)),
        }


def test_it_asks_with_get_and_sends_no_key():
    with answering_with(gateway) as pages:
        observe_until(pages.url, lambda: bool(pages.asked), metrics=["go_"])
    head = pages.asked[0].lower()
    assert head.startswith(b"get /metrics http/1.1\r\n")
    assert b"authorization" not in head
    assert b"cookie" not in head


def test_a_metrics_url_of_its_own_is_asked_instead_of_the_target():
    with answering_with(gateway) as pages:
        observe_until(
            "http://127.0.0.1:9", lambda: bool(pages.asked), metrics_url=f"{pages.url}/stats/prometheus?all=1"
        )
    assert pages.asked[0].startswith(b"GET /stats/prometheus?all=1 HTTP/1.1\r\n")


def test_names_choose_what_is_kept():
    with answering_with(gateway) as pages:
        seen = observe_until(pages.url, lambda: len(pages.asked) > 1, metrics=["go_"])
    assert seen.metrics[0].values == {"go_threads": 0}
    assert seen.table == ()


def test_without_anything_to_observe_nobody_is_asked():
    observer = Observer(scenario("http://127.0.0.1:9"), Clock())
    observer.start()
    assert observer.stop() == ServerSide()


def test_another_server_has_no_table_and_a_scenario_that_wants_one_is_told():
    with answering_with(lambda _: page("vllm:num_requests_running 3\n")) as pages:
        seen = observe_until(pages.url, lambda: len(pages.asked) > 2, table=True)
    assert seen.table == ()
    assert seen.metrics[0].values == {"vllm:num_requests_running": 3}
    [problem] = seen.problems
    assert "not that of a cotenant gateway" in problem
    assert problem.endswith(" times)")


def test_pages_that_fail_between_good_ones_cost_their_samples_and_are_told_once():
    def now_and_then(number: int) -> list[bytes]:
        return gateway(number) if number % 2 else page("busy", "503 Service Unavailable")

    with answering_with(now_and_then) as pages:
        seen = observe_until(pages.url, lambda: len(pages.asked) > 5, table=True)
    assert seen.problems[0].startswith(f"{pages.url}/metrics: HTTP 503 (")
    assert len(seen.problems) == 1
    assert [sample.values for sample in seen.table] == [{"search/left": 1}] * len(seen.table)
    assert len(seen.table) >= 2


def test_too_many_series_are_cut_and_told():
    many = "".join(f'x{{n="{number}"}} 1\n' for number in range(600))
    with answering_with(lambda _: page(many)) as pages:
        seen = observe_until(pages.url, lambda: len(pages.asked) > 1, metrics=["x"])
    assert len(seen.metrics[0].values) == 500
    assert "600 series, the first 500 are kept" in seen.problems[0]


def test_a_long_run_keeps_every_second_sample_and_asks_half_as_often():
    with answering_with(lambda number: page(f"x {number}\n")) as pages:
        seen = observe_until(pages.url, lambda: len(pages.asked) > 8, most_values=6, metrics=["x"])
    numbers = [sample.values["x"] for sample in seen.metrics]
    assert numbers[:3] == [0, 2, 4]
    assert len(numbers) <= 6


def endless_lines() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield b"x 1\n" * 10_000


def drip() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    while True:
        time.sleep(0.05)
        yield b"x"


def dripping_head() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nx-slow: "
    while True:
        time.sleep(0.05)
        yield b"x"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: page("", "302 Found", "location: http://127.0.0.1:9/elsewhere"), "HTTP 302"),
        (lambda: page("", "404 Not Found"), "HTTP 404"),
        (lambda: [], "RemoteDisconnected"),
        (lambda: [b"what is this\r\n\r\n"], "BadStatusLine"),
        (lambda: [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx 1\n"], "the page was cut short"),
        (lambda: [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nx 1\n\r\nfff"], "IncompleteRead"),
        (lambda: [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n"], "IncompleteRead"),
        (lambda: [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe"], "the page is not UTF-8"),
        (endless_lines, "a page of more than 8000000 bytes"),
        (drip, "no whole page within 0.5 s"),
        (dripping_head, "no whole page within 0.5 s"),
    ],
    ids=[
        "redirect",
        "missing",
        "closed",
        "no-http",
        "short",
        "half-chunk",
        "no-chunk",
        "no-text",
        "endless",
        "drip",
        "head",
    ],
)
def test_nonsense_is_a_problem_with_a_name_and_never_a_hang(answer, words):
    with answering_with(lambda _: answer()) as pages, pytest.raises(PageError) as failed:
        fetch(f"{pages.url}/metrics", Target(), most_s=0.5 if "0.5" in words else 20.0)
    assert words in str(failed.value)
    assert len(pages.asked) == 1


def test_chunked_pages_are_read_whole():
    chunked = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"4\r\nx 1\n\r\n4\r\ny 2\n\r\n0\r\n\r\n"]
    with answering_with(lambda _: chunked) as pages:
        assert fetch(pages.url, Target()) == "x 1\ny 2\n"


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "/metrics", "http://", "http://user:canary@host/", "http://[::1/", "http://h:99999/"]
)
def test_a_url_that_cannot_be_asked_is_refused_without_being_shown(url):
    with pytest.raises(PageError, match=r"^not an http or https URL with a host and without a password$"):
        fetch(url, Target())


def test_a_server_that_is_not_there_is_a_problem_and_the_password_of_a_url_is_not_shown():
    assert observing.metrics_url(Observe(table=True), Target(url="http://h:1/base/")) == "http://h:1/base/metrics"
    with pytest.raises(PageError, match="Connection refused"):
        fetch("http://127.0.0.1:9/metrics", Target())
    observer = Observer(scenario("http://h", metrics_url="http://user:canary@h/metrics?token=canary"), Clock())
    observer.start()
    until(lambda: observer._problems, "a problem")
    assert "canary" not in str(observer.stop())


def test_stopping_does_not_wait_for_a_page_that_is_on_its_way():
    with answering_with(lambda _: drip()) as pages:
        observer = Observer(scenario(pages.url, table=True), Clock())
        observer.start()
        until(lambda: pages.asked, "it asks")
        assert observer.stop() == ServerSide()  # the page itself would end as a problem
