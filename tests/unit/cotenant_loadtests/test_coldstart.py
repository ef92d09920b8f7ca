"""Zero → first token, with what came when."""

from collections.abc import Iterator

import msgspec
import pytest
from tests.builders.load_records import answered, failed, planned, run_of, scenario_of

from cotenant_loadtests.coldstart import (
    Coldness,
    Woken,
    by_model,
    cold_starts,
    joined,
    phases_of,
    requests_by_model,
    schedule,
    shifted,
    wake_each,
    wake_of,
)
from cotenant_loadtests.extras import Wake
from cotenant_loadtests.record import decode_times
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.run_output import Failed, RunOutput
from cotenant_loadtests.summary import summarise


def wake(ttft_ms: float, model: str = "echo") -> Wake:
    request, record = answered(ttft_ms=ttft_ms, gaps_ms=[5], model=model)
    found = wake_of(request, run_of([(request, record)]))
    assert found is not None
    return found


def test_models_are_woken_in_turn_each_with_the_next_of_its_requests() -> None:
    plan = [planned(id=0, model="a", max_tokens=1), planned(id=1, model="b"), planned(id=2, model="a", max_tokens=2)]

    woken = schedule(requests_by_model(plan), 3)

    assert [(one.model, one.max_tokens) for one in woken] == [
        ("a", 1), ("b", None), ("a", 2), ("b", None), ("a", 1), ("b", None),
    ]  # fmt: skip
    assert {(one.id, one.at_s) for one in woken} == {(0, 0.0)}


def test_later_turns_of_conversations_wake_nothing() -> None:
    plan = [planned(id=0, model="a"), planned(id=1, model="a", after=0)]

    assert requests_by_model(plan) == {"a": [plan[0]]}


def test_a_model_that_the_plan_does_not_have_is_refused() -> None:
    plan = [planned(model="b"), planned(model="a")]

    assert list(requests_by_model(plan, ["a"])) == ["a"]
    with pytest.raises(RefusedError, match="--model c: the plan has no such model; it has a, b"):
        requests_by_model(plan, ["c"])


def test_a_wake_is_the_time_from_due_to_first_token() -> None:
    found = wake(1500.0)

    assert (found.first_token_ms, found.outcome, found.model) == (1500.0, "ok", "echo")
    assert found.at_unix_s == 1_700_000_000.0


def test_a_failed_wake_has_no_first_token_and_its_reason() -> None:
    request, record = failed("overloaded", status=503, detail="no room")
    found = wake_of(request, run_of([(request, record)]))

    assert found is not None
    assert (found.first_token_ms, found.status, found.detail) == (None, 503, "no room")


def test_an_interrupted_wake_is_none() -> None:
    assert wake_of(planned(), run_of([failed("interrupted")])) is None
    assert wake_of(planned(), run_of([])) is None


def test_phases_follow_each_other_from_due_to_end() -> None:
    _, record = answered(at_s=2.0, ttft_ms=100, gaps_ms=[10, 10], late_ms=3)
    record = msgspec.structs.replace(record, connect_us=2_000, first_byte_us=2_040_000)

    phases = phases_of(record)

    assert [(one.name, one.from_ms, one.to_ms) for one in phases] == [
        ("late", 0.0, 1.0),
        ("connect", 1.0, 3.0),
        ("first byte", 3.0, 40.0),
        ("first token", 40.0, 100.0),
        ("rest", 100.0, 120.0),
    ]


def test_phases_that_the_server_tells_stand_in_for_what_the_client_sees() -> None:
    _, record = answered(ttft_ms=100, gaps_ms=[10])
    record = msgspec.structs.replace(record, server_timing="start;dur=30.5, load;dur=50, engine;dur=9.5")

    assert [(one.name, one.from_ms, one.to_ms) for one in phases_of(record)] == [
        ("start", 0.0, 30.5),
        ("load", 30.5, 80.5),
        ("engine", 80.5, 90.0),
        ("first token", 90.0, 100.0),
        ("rest", 100.0, 110.0),
    ]


def test_a_server_that_tells_more_time_than_there_was_is_not_believed_beyond_the_first_token() -> None:
    _, record = answered(ttft_ms=100)
    record = msgspec.structs.replace(record, server_timing="load;dur=99999, engine;dur=5")

    assert [(one.name, one.to_ms) for one in phases_of(record)] == [("load", 100.0)]


def test_it_is_said_who_told_the_phases() -> None:
    request, record = answered(ttft_ms=100)
    silent, told = (
        run_of([(request, record)]),
        run_of([(request, msgspec.structs.replace(record, server_timing="a;dur=1"))]),
    )

    def by(output: RunOutput) -> str:
        results = summarise(scenario_of(), output, "http://127.0.0.1:1")
        return cold_starts(Woken([request], [output], ""), None, results).phases_by

    assert (by(silent), by(told)) == ("client", "server")


def test_a_model_that_does_not_get_cold_ends_the_wakes_with_the_reason() -> None:
    request, record = answered(ttft_ms=100)
    states: Iterator[Coldness] = iter(["cold", "warm"])

    woken = wake_each([request, request], lambda model, first: next(states), lambda one: run_of([(request, record)]))

    assert (len(woken.outputs), woken.problem) == (1, "model echo did not get cold for wake 2: it was still warm")


def test_a_run_that_fails_ends_the_wakes_with_those_before_it() -> None:
    request, record = answered(ttft_ms=100)
    runs: Iterator[RunOutput | Failed] = iter([run_of([(request, record)]), Failed("worker 0 died")])

    woken = wake_each([request] * 3, lambda model, first: "cold", lambda one: next(runs))

    assert (len(woken.requests), len(woken.outputs)) == (1, 1)
    assert woken.problem == "model echo, wake 2: worker 0 died"


def test_a_wish_to_stop_ends_the_wakes_with_what_there_is() -> None:
    request, record = answered(ttft_ms=100)
    runs = iter([run_of([(request, record)]), run_of([], interrupted=True)])

    woken = wake_each([request] * 3, lambda model, first: "cold", lambda one: next(runs))

    assert len(woken.outputs) == 2
    assert len(joined(woken.requests, woken.outputs).plan) == 1


def test_phases_that_never_began_are_left_out() -> None:
    _, record = failed("timeout")

    assert phases_of(record) == ()


def test_wakes_of_a_model_are_summed_up_with_the_medians_of_their_phases() -> None:
    request, record = failed("timeout", model="echo")
    lost = wake_of(request, run_of([(request, record)]))
    assert lost is not None

    echo, other = by_model([wake(1000), wake(3000), wake(2000), lost, wake(10, "other")])

    assert (echo.model, echo.wakes, echo.failed, echo.first_token_ms.count) == ("echo", 4, 1, 3)
    assert echo.first_token_ms.p50 == pytest.approx(2000, rel=0.001)
    assert [(one.name, one.from_ms, one.to_ms) for one in echo.phases] == [
        ("first byte", 0.0, 2000.0),
        ("rest", 2000.0, 2005.0),
    ]
    assert other.model == "other"


def test_a_shifted_record_has_the_same_latencies_and_token_times() -> None:
    _, record = answered(ttft_ms=20, gaps_ms=[10, 10])

    later = shifted(record, 7, 5_000_000)

    assert (later.id, later.scheduled_us) == (7, 5_000_000)
    assert later.first_token_us - later.scheduled_us == 20_000
    assert decode_times(later.token_times) == [time + 5_000_000 for time in decode_times(record.token_times)]
    assert shifted(failed("timeout")[1], 1, 10).first_token_us == -1


def test_all_wakes_are_summed_up_as_one_run() -> None:
    runs = [answered(ttft_ms=100, gaps_ms=[10]), failed("timeout", took_ms=500), answered(ttft_ms=300, gaps_ms=[10])]

    output = joined([request for request, _ in runs], [run_of([one]) for one in runs])
    results = summarise(scenario_of(duration_s=output.duration_s), output, "http://127.0.0.1:1")

    assert (results.total.scheduled, results.total.succeeded) == (3, 2)
    assert results.total.ttft_ms.mean == 200
    assert results.total.errors == {"timeout": 1}
    assert [load.requests for load in results.validity.processes] == [3]
    assert [one.id for one in output.plan] == [record.id for record in output.records] == [0, 1, 2]
