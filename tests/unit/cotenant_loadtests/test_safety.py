import pytest

from cotenant_loadtests.planned import Planned
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.safety import HEAD_BYTES, SAMPLE, addresses_of, check_hosts, check_limits, extent_of
from cotenant_loadtests.spec import Limits, Scenario

NAMES = {
    "here.example": ["127.0.0.1", "::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "both.example": ["127.0.0.1", "192.0.2.1"],
    "there.example": ["192.0.2.1"],
    "empty.example": [],
}


def resolve(host: str) -> list[str]:
    if host not in NAMES:
        raise OSError("no such name")
    return NAMES[host]


def scenario(**fields: object) -> Scenario:
    stream = {"name": "s", "tenant": "t", "model": "m", "arrivals": {"process": "constant", "rate_per_s": 1}}
    return Scenario.model_validate({"name": "x", "streams": [stream], "duration_s": 60, "drain_s": 10, **fields})


def planned(number: int, at_s: float | None = None, **fields: object) -> Planned:
    values = {"stream": "s", "tenant": "t", "model": "m", "api": "chat", "deadline_s": 5.0, **fields}
    return Planned(id=number, at_s=at_s, **values)  # type: ignore[arg-type]


def check_target(url: str, *permitted: str, metrics_url: str | None = None) -> None:
    check_hosts(scenario(target={"url": url}, observe={"metrics_url": metrics_url}), permitted, resolve)


def refusal(url: str, *permitted: str, metrics_url: str | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        check_target(url, *permitted, metrics_url=metrics_url)
    return str(caught.value)


@pytest.mark.parametrize("url", ["http://here.example:80", "https://mapped.example/base"])
def test_a_name_that_is_only_loopback_may_be_loaded(url: str) -> None:
    check_target(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:8080", "http://127.8.8.8"]
)
def test_addresses_of_loopback_may_be_loaded(url: str) -> None:
    check_hosts(scenario(target={"url": url}), (), addresses_of)


@pytest.mark.parametrize("host", ["both.example", "there.example", "empty.example"])
def test_any_other_host_must_be_named(host: str) -> None:
    assert refusal(f"http://{host}:8080") == (
        f"target.url: {host} is not this machine; if you may put load on it, say --i-may-load-this {host}"
    )
    check_target(f"http://{host}:8080", host)
    check_target(f"http://{host.upper()}", host)


@pytest.mark.parametrize("permitted", ["example", "xthere.example", "there.example:8080", "here.example", "*", ""])
def test_it_must_be_exactly_that_host(permitted: str) -> None:
    assert "the target is there.example, not that" in refusal("http://there.example:8080", permitted)


def test_another_host_that_is_asked_for_metrics_must_be_named_as_well() -> None:
    metrics_url = "http://there.example:9090/metrics"
    assert refusal("http://here.example", metrics_url=metrics_url) == (
        "observe.metrics_url: there.example is not this machine; if you may put load on it, "
        "say --i-may-load-this there.example"
    )
    check_target("http://here.example", "there.example", metrics_url=metrics_url)
    check_target("http://there.example", "there.example", metrics_url=metrics_url)
    check_target("http://here.example", metrics_url="http://mapped.example:9090/metrics")
    assert "both.example is not this machine" in refusal(
        "http://both.example", "there.example", metrics_url=metrics_url
    )


def test_an_unknown_host_is_told_before_the_start() -> None:
    assert "the host gone.example is unknown" in refusal("http://gone.example")
    assert "the host gone.example is unknown" in refusal("http://gone.example", "gone.example")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://here.example",
        "http://",
        "http://here.example:x",
        "http://here.example?a=1",
        "http://[x",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    assert "is no address of a server" in refusal(url)


def test_a_password_in_an_address_is_not_repeated() -> None:
    assert "hunter2" not in refusal("http://me:hunter2@here.example")


def test_an_extent_counts_requests_the_busiest_second_and_bytes() -> None:
    plan = [planned(0, 0.0), planned(1, 0.5), planned(2, 0.99), planned(3, 1.0), planned(4, 3.0)]

    extent = extent_of(plan, scenario(), lambda request: 10 * request.id)

    assert (extent.requests, extent.peak_per_s, extent.duration_s) == (5, 3, 60)
    assert (extent.bytes, extent.estimated) == (5 * HEAD_BYTES + 100, False)


def test_turns_of_conversations_count_in_the_busiest_second_as_if_answers_took_no_time() -> None:
    at_once = [planned(0, 1.0), *(planned(turn, after=turn - 1) for turn in range(1, 100))]
    thinking = [planned(0, 1.0), *(planned(turn, after=turn - 1, think_s=0.5) for turn in range(1, 100))]
    after_the_end = [planned(0, 59.0), *(planned(turn, after=turn - 1, think_s=2.0) for turn in range(1, 100))]

    peaks = [extent_of(plan, scenario(), lambda _: 0).peak_per_s for plan in (at_once, thinking, after_the_end)]
    assert peaks == [100, 2, 1]


def test_connections_are_those_of_answers_that_use_their_whole_deadline() -> None:
    apart = [planned(number, 5.0 * number) for number in range(4)]
    together = [planned(number, 4.0 * number) for number in range(4)]

    assert extent_of(apart, scenario(), lambda _: 0).connections == 1
    assert extent_of(together, scenario(), lambda _: 0).connections == 2
    assert extent_of(together, scenario(limits={"connections": 1}), lambda _: 0).connections == 1


def test_a_conversation_is_one_connection_that_lasts() -> None:
    plan = [planned(0, 0.0), planned(1, after=0), planned(2, 30.0), planned(3, 36.0)]

    assert extent_of(plan, scenario(), lambda _: 0).connections == 2


def test_the_bytes_of_a_long_plan_are_estimated_from_some_of_it() -> None:
    asked: list[int] = []

    def size_of(request: Planned) -> int:
        asked.append(request.id)
        return 100

    extent = extent_of([planned(number, 0.01 * number) for number in range(4 * SAMPLE)], scenario(), size_of)

    assert (len(asked), extent.estimated) == (SAMPLE, True)
    assert extent.bytes == 4 * SAMPLE * (HEAD_BYTES + 100)


def test_every_limit_that_a_plan_exceeds_is_named_with_both_figures() -> None:
    extent = extent_of([planned(number, 0.1 * number) for number in range(20)], scenario(), lambda _: 1000)

    with pytest.raises(RefusedError) as caught:
        check_limits(extent, Limits(requests=19, rate_per_s=9, duration_s=59, bytes=1000))

    problems = str(caught.value).splitlines()
    assert [problem.split(":")[0] for problem in problems] == [
        "limits.requests",
        "limits.rate_per_s",
        "limits.duration_s",
        "limits.bytes",
    ]
    assert "the plan has 20, more than 19" in problems[0]
    check_limits(extent, Limits(requests=20, rate_per_s=10, duration_s=60, bytes=30_000))
