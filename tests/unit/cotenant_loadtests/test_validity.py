from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.builders.load_records import Request, answered, failed, never_sent, process_load, run_of, scenario_of

from cotenant_loadtests.columns import columns_of
from cotenant_loadtests.record import Outcome
from cotenant_loadtests.results import ProcessLoad, Validity
from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.validity import missing, validity_of
from cotenant_loadtests.window import Window

ON_TIME = [answered(at_s=at) for at in range(200)]


def validity(
    requests: Sequence[Request] = ON_TIME,
    *,
    processes: Sequence[ProcessLoad] = (process_load(),),
    window: tuple[float, float] = (0, 1000),
    cores: int = 8,
    connections: int = 6000,
    **fields: Any,
) -> Validity:
    output = run_of(requests, processes=tuple(processes), **fields)
    scenario = scenario_of(duration_s=1000, limits={"connections": connections})
    columns = columns_of(output.plan, output.records)
    return validity_of(scenario, output, columns, Window(*window), cores=cores)


def late(count: int, late_ms: float) -> list[Request]:
    return [*(answered(late_ms=late_ms) for _ in range(count)), *ON_TIME[count:]]


def busy(share: float, *, peak: float | None = None, **fields: Any) -> ProcessLoad:
    return process_load(cpu_share=share, cpu_share_peak=share if peak is None else peak, **fields)


def test_a_run_that_was_on_time_with_cpu_to_spare_is_valid() -> None:
    found = validity(late(1, 900))
    assert (found.valid, found.reasons, found.processes_needed) == (True, (), 1)
    assert found.lateness_ms.max == 900


@pytest.mark.parametrize(("late_ms", "valid"), [(4.9, True), (5.1, False)])
def test_a_run_whose_p99_lateness_is_above_5_ms_is_not_valid(late_ms: float, valid: bool) -> None:
    assert validity(late(3, late_ms)).valid is valid


def test_lateness_counts_in_warm_up_too() -> None:
    assert not validity(late(3, 50), window=(100, 200)).valid


def test_waiting_for_a_connection_is_not_lateness() -> None:
    one, record = answered(late_ms=700)
    record.connect_us = 699_000
    assert validity([(one, record)]).valid


def test_requests_still_unsent_at_the_end_are_as_late_as_that() -> None:
    found = validity([*ON_TIME, *(never_sent(took_ms=30_000) for _ in range(5))])
    assert not found.valid
    assert found.lateness_ms.max == 30_000


@pytest.mark.parametrize("outcome", ["connect", "unfinished", "timeout"])
def test_a_connection_that_never_opened_says_nothing_of_lateness(outcome: Outcome) -> None:
    in_vain = []
    for _ in range(9):
        one, record = never_sent(outcome, took_ms=3001)
        in_vain.append((one, msgspec.structs.replace(record, connect_us=3_000_000)))
    found = validity([*ON_TIME, *in_vain])
    assert (found.valid, found.lateness_ms.max) == (True, 1)


def test_waiting_for_one_of_the_agreed_connections_is_lateness_and_says_what_to_raise() -> None:
    """Two connections, always in use; every answer takes 100 ms, and one is due each 40 ms."""
    queued = [answered(at_s=at * 0.04, ttft_ms=100 + at * 10, late_ms=at * 10) for at in range(100)]
    (reason,) = validity(queued, connections=2).reasons
    assert "all of the 2 connections were in use" in reason
    assert "raise limits.connections" in reason
    (reason,) = validity(queued, connections=4).reasons
    assert "connections" not in reason


def test_a_saturated_worker_makes_a_run_not_valid_and_says_how_many_it_needs() -> None:
    found = validity(processes=[busy(0.95), busy(0.7, process=1)], cores=8)
    assert not found.valid
    assert found.processes_needed == 3
    (reason,) = found.reasons
    assert "95% of a core on average" in reason
    assert "set `processes: 3` (now 2)" in reason


def test_bursts_at_a_whole_core_are_saturation_though_the_mean_is_low() -> None:
    found = validity(processes=[busy(0.3, peak=1.0, saturated_share=0.2)])
    assert not found.valid
    assert found.processes_needed == 2


@pytest.mark.parametrize(("share", "valid"), [(0.9, True), (0.91, False)])
def test_more_than_nine_tenths_of_a_core_on_average_is_saturation(share: float, valid: bool) -> None:
    assert validity(processes=[busy(share)]).valid is valid


@pytest.mark.parametrize(("share", "valid"), [(0.05, True), (0.06, False)])
def test_a_whole_core_in_more_than_a_twentieth_of_the_seconds_is_saturation(share: float, valid: bool) -> None:
    assert validity(processes=[busy(0.3, peak=1.0, saturated_share=share)]).valid is valid


def test_one_busy_second_in_a_hundred_is_none() -> None:
    assert validity(processes=[busy(0.3, peak=1.0, saturated_share=0.01)]).valid


def test_more_processes_than_cores_is_said_honestly() -> None:
    found = validity(processes=[busy(1.0), busy(1.0, process=1)], cores=2)
    assert found.processes_needed == 4
    assert "needs 4 processes (now 2), but this machine has 2 cores" in found.reasons[0]


def test_late_with_an_idle_cpu_is_blamed_on_the_machine_and_not_on_the_number_of_processes() -> None:
    found = validity(late(100, 20), processes=[busy(0.1, peak=0.3)])
    assert found.processes_needed == 1
    assert "more of them would not help" in found.reasons[0]


def test_more_processes_than_cores_that_are_all_busy_ask_for_more_cores() -> None:
    crowd = [busy(0.45, peak=0.5, process=number) for number in range(4)]
    assert "this machine has 2 cores" in validity(late(100, 20), processes=crowd, cores=2).reasons[0]


def test_late_with_a_busy_cpu_asks_for_more_processes() -> None:
    assert validity(late(100, 20), processes=[busy(0.7, peak=0.9)]).processes_needed == 2


def test_requests_without_a_record_make_a_run_not_valid() -> None:
    output = run_of(ON_TIME)
    found = validity(records=output.records[:-3])
    assert not found.valid
    assert "3 requests of the plan have no record" in found.reasons[0]


def lost(output: RunOutput, duration_s: float = 1000) -> int:
    return missing(scenario_of(duration_s=duration_s), output)


def test_what_an_interrupted_run_did_not_get_to_is_not_missing() -> None:
    records = run_of(ON_TIME).records[:100]
    assert lost(run_of(ON_TIME, records=records, interrupted=True)) == 0
    assert lost(run_of(ON_TIME, records=[*records[:50], *records[60:]], interrupted=True)) == 10
    assert lost(run_of(ON_TIME, records=records)) == 100


TURNS = [
    ("the turn before ended in time", answered(at_s=1), 5.0, 1),
    ("the turn before failed in time", failed("reset", at_s=1), 5.0, 1),
    ("its pause was not over", answered(at_s=1), 1.5, 0),
    ("the turn before never ended", failed("unfinished", at_s=1, took_ms=10_000), 5.0, 0),
]


@pytest.mark.parametrize(("first", "duration_s", "count"), [row[1:] for row in TURNS], ids=[row[0] for row in TURNS])
def test_a_later_turn_is_missing_only_when_it_was_due(first: Request, duration_s: float, count: int) -> None:
    turn = answered(after=0, think_s=2.0)
    output = run_of([first, turn])
    assert lost(run_of([first, turn], records=output.records[:1]), duration_s) == count
    assert lost(run_of([first, turn], records=output.records[:1], interrupted=True), duration_s) == 0


def test_turns_after_a_turn_that_is_missing_count_once() -> None:
    requests = [answered(at_s=1), answered(after=0), answered(after=1)]
    output = run_of(requests)
    assert lost(run_of(requests, records=output.records[:1])) == 1


def test_nothing_measured_is_not_valid() -> None:
    (reason,) = validity(window=(500, 600)).reasons
    assert "no request was scheduled in the measured time, 500 to 600 s" in reason


def test_interrupted_before_anything_was_measured_says_so() -> None:
    (reason,) = validity([failed("interrupted")], interrupted=True).reasons
    assert "interrupted before" in reason


def test_every_reason_is_told() -> None:
    assert len(validity(late(100, 20), processes=[busy(0.95)], window=(500, 600)).reasons) == 3


def test_a_run_that_ended_at_a_limit_is_not_valid_and_says_which() -> None:
    (reason,) = validity(problems=["limits.bytes: 5 bytes were sent and received; raise it, or send less"]).reasons
    assert reason.startswith("the run ended before its time: limits.bytes: 5 bytes")
