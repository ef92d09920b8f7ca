from typing import Any

from tests.builders.operator import model, world

from cotenant_operator.explanation import explain, explain_document
from cotenant_operator.output import plain_table
from cotenant_operator.plan import plan
from cotenant_operator.status import conditions, model_rows, pool_rows
from cotenant_serving.contract import DeviceStatus, EngineStatus, Fetch, ModelStatus, PoolStatus, Reason, WeightsLoad

MIB = 2**20


def engine(**fields: Any) -> EngineStatus:
    given = {
        "app": "default-small-abc-0",
        "model": "default/small",
        "revision": "abc",
        "state": "ready",
        "device_id": "10.0.0.1/cpu/0",
        "share_bytes": 512 * MIB,
        "used_bytes": 256 * MIB,
        "slots": 8,
    }
    return EngineStatus(**{**given, **fields})


def seen(**fields: Any) -> ModelStatus:
    return ModelStatus(**{"model": "default/small", "state": "ready", "reason": Reason.READY, **fields})


def states(*arguments: Any) -> str:
    return " ".join(f"{item.type}={item.status}" for item in conditions(*arguments))


def test_an_engine_that_answers_makes_everything_true() -> None:
    status = seen(ready_engines=1, engines=(engine(),))

    assert states(None, status) == "Accepted=True Cached=True Placed=True Loaded=True Ready=True"


def test_a_cold_model_says_that_it_starts_with_a_request() -> None:
    found = conditions(None, seen(state="cold", reason=Reason.IDLE))

    assert (found[-1].status, found[-1].reason) == ("False", "Idle")
    assert found[-1].message == "it starts with the first request"


def test_loading_shows_stage_and_progress() -> None:
    status = seen(
        state="waking",
        reason=Reason.LOADING,
        engines=(engine(state="loading", stage="reading weights", progress=0.42),),
    )
    loaded = conditions(None, status)[3]

    assert (loaded.status, loaded.message) == ("False", "reading weights 42%")


def test_a_refused_model_is_not_accepted() -> None:
    (planned,) = plan(world(model(gpu={"memory": "1Gi"})), {}).models
    found = conditions(planned, None)

    assert (found[0].type, found[0].status, found[0].reason) == ("Accepted", "False", "DoesNotFit")
    assert "needs" in found[0].message
    assert found[-1].status == "False"


def test_facts_that_are_pending_leave_acceptance_unknown() -> None:
    (planned,) = plan(world(model(), known={}), {}).models

    assert conditions(planned, None)[0].status == "Unknown"


def test_an_accepted_model_that_nothing_reports_yet_is_unknown() -> None:
    (planned,) = plan(world(model(task="echo")), {}).models

    assert states(planned, None) == "Accepted=True Cached=True Placed=Unknown Loaded=Unknown Ready=Unknown"


def test_files_that_are_broken_are_not_cached() -> None:
    found = conditions(None, seen(state="failed", reason=Reason.CORRUPT_WEIGHTS, message="cut off"))

    assert [item.status for item in found] == ["False", "False", "False", "False", "False"]
    assert found[1].message == "cut off"


def test_rows_hold_what_a_person_looks_for() -> None:
    both = engine(device_id="n/cpu/0"), engine(device_id="n/cpu/0", state="loading", progress=0.5)
    pool = PoolStatus(
        pool="default",
        epoch="e",
        generation=3,
        models=(
            seen(running=2, queued=1, ready_engines=1, engines=both),
            seen(model="ads/cold", state="cold", reason=Reason.IDLE),
        ),
        devices=(
            DeviceStatus(
                device_id="n/cpu/0",
                group="cpu",
                device="cpu",
                memory_bytes=1024 * MIB,
                reserved_bytes=512 * MIB,
                used_bytes=0,
            ),
        ),
    )

    assert plain_table(*model_rows(pool)) == (
        "MODEL          READY  STATE  REASON  ENGINES  RUNNING  QUEUED  MEMORY            MESSAGE\n"
        "ads/cold       False  cold   Idle    0/0            0       0  -                 -\n"
        "default/small  True   ready  Ready   1/2            2       1  512 MiB of 1 GiB  loading 50%\n"
    )
    assert plain_table(*pool_rows(pool)).splitlines()[1].split() == (
        ["default", "n/cpu/0", "cpu", "cpu", "1", "GiB", "512", "MiB", "0", "bytes", "-"]
    )
    assert "Ready=True" in model_rows(pool, wide=True)[1][1][-1]
    columns, rows = pool_rows(pool, wide=True)
    assert columns[-2:] == ("FREE", "ENGINES")
    assert rows[0][-2:] == ("512 MiB", "default/small (loading), default/small (ready)")


def test_explain_begins_with_the_state_and_ends_with_the_engines() -> None:
    lines = explain(seen(explanation=("kept: 2 running",), ready_engines=1, engines=(engine(running=2),)))

    assert lines[0] == "default/small: ready (Ready)"
    assert "  kept: 2 running" in lines
    assert lines[-2].endswith("ready on 10.0.0.1/cpu/0, 256 MiB of 512 MiB, 2 of 8 slots")
    assert lines[-1] == "  more: cotenant logs default/small"


def test_explain_says_each_reason_once() -> None:
    failed = seen(state="failed", reason=Reason.CORRUPT_WEIGHTS, message="the file is cut off", retry_in_s=4.0)

    text = "\n".join(explain(failed))

    assert text.count("CorruptWeights") == text.count("the file is cut off") == 1
    assert "Accepted, Cached, Placed, Loaded, Ready: False" in text
    assert "tried again in 4 s" in text


def test_explain_does_not_say_the_decision_twice_when_it_is_the_message() -> None:
    waits = seen(
        state="waiting",
        reason=Reason.NO_ROOM,
        message="no room; a holds 1 GiB",
        explanation=("no room", "a holds 1 GiB"),
    )

    lines = explain(waits)

    assert lines[:3] == ["default/small: waiting (NoRoom)", "  no room", "  a holds 1 GiB"]
    assert "\n".join(lines).count("holds") == 1


def test_explain_wide_names_process_and_instance_and_the_document_has_the_conditions() -> None:
    model = seen(ready_engines=1, engines=(engine(pid=7, instance="f00d", load_s=1.25),))

    assert "process 7, instance f00d, age 0 s, loaded in 1.2 s" in "\n".join(explain(model, wide=True))
    assert [item["type"] for item in explain_document(model)["conditions"]][-1] == "Ready"


def test_explain_says_when_a_model_that_wakes_is_expected() -> None:
    assert "  answers in about 45 s, by what loads have taken" in explain(seen(state="waking", eta_s=42.0))
    assert "answers in" not in "\n".join(explain(seen(state="cold", eta_s=42.0)))


def test_explain_wide_tells_what_the_weights_of_an_engine_cost() -> None:
    load = WeightsLoad(fetched_bytes=8 * 10**9, fetched_s=80, read_bytes=8 * 10**9, read_s=2, read_from="memory")
    model = seen(ready_engines=1, engines=(engine(load=load), engine(load=WeightsLoad(read_bytes=10**9, read_s=1))))
    lines = explain(model, wide=True)
    assert (
        "    weights: fetched 8.0 GB in 80.0 s, 100 MB/s, read from the page cache 8.0 GB in 2.0 s, 4.0 GB/s" in lines
    )
    assert "    weights: read from the disk 1.0 GB in 1.0 s, 1.0 GB/s" in lines


def test_an_engine_that_fetches_says_so_in_the_list_and_in_the_condition() -> None:
    fetch = Fetch(done_bytes=3_100_000_000, total_bytes=8 * 10**9, bytes_per_s=0.1225 * 10**9)
    model = seen(state="waking", engines=(engine(state="loading", stage="fetching", fetch=fetch),))
    words = "fetching its weights: 3.1 of 8.0 GB, about 40 s"
    assert {item.type: item.message for item in conditions(None, model)}["Loaded"] == words
    (row,) = model_rows(PoolStatus(pool="p", epoch="e", generation=1, models=(model,)))[1]
    assert row[-1] == words


def test_a_cell_with_line_breaks_stays_one_row() -> None:
    assert plain_table(("A", "B"), [("x", "one\ntwo")]) == "A  B\nx  one two\n"
