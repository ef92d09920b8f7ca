"""What was found, in words: nothing is claimed that was not shown."""

from typing import Any

import msgspec
import pytest
from tests.builders.load_findings import search, server, slowing, soaked
from tests.builders.load_results import group, quantiles, results

from cotenant_loadtests.capacity import find_capacity
from cotenant_loadtests.compare import compare, parse_condition
from cotenant_loadtests.extras import (
    ColdStarts,
    Comparison,
    FairnessFound,
    LightTenant,
    ModelWakes,
    Phase,
    TenantService,
    concluded,
)
from cotenant_loadtests.findings import Findings, findings_of, number
from cotenant_loadtests.results import Results, Verdict
from cotenant_loadtests.units import counted


def compared(ratio: float, rounds: int = 6, verdict: Verdict = "passed") -> Comparison:
    def measure(side: str, turn: int) -> Results:
        ttft_ms = (100.0 + turn) * (ratio if side == "b" else 1.0)
        return results(verdict, total=group(ttft_ms=quantiles(ttft_ms), goodput_per_s=0.0))

    return compare(("old", "new"), rounds, measure, [parse_condition("ttft_p50_ms > 1.5")] if rounds > 5 else [])[0]


def row(findings: Findings, name: str, table: int = 0) -> list[str]:
    return next(list(row) for row in findings.tables[table][1] if row[0] == name)


@pytest.mark.parametrize(
    ("ratio", "words"), [(2.0, "B is worse"), (0.5, "B is better"), (1.0, "no difference shown")]
)
def test_a_difference_is_said_with_its_direction(ratio: float, words: str) -> None:
    assert row(findings_of(compared(ratio)), "ttft_p50_ms")[-1] == words


def test_one_of_a_thing_is_not_several() -> None:
    assert (counted(1, "run"), counted(0, "run"), counted(1200, "run")) == ("1 run", "0 runs", "1,200 runs")


def test_figures_ratio_and_interval_stand_beside_each_other() -> None:
    found = findings_of(compared(2.0))

    assert row(found, "ttft_p50_ms") == ["ttft_p50_ms", "102.5", "205.0", "2.000", "2.000 … 2.000", "B is worse"]
    assert row(found, "goodput_per_s")[2:] == ["0.000", "-", "-", "not measured in each round"]
    assert "fail if ttft_p50_ms > 1.5: FAILED" in found.sentences
    assert "A is old" in found.sentences


def test_figures_that_nobody_measured_have_no_row() -> None:
    assert "itl_p50_ms" not in [row[0] for row in findings_of(compared(2.0)).tables[0][1]]


def test_few_rounds_are_said() -> None:
    found = findings_of(compared(2.0, rounds=2))

    assert row(found, "ttft_p50_ms")[-1] == "too few rounds"
    assert any("2 rounds are too few" in sentence for sentence in found.sentences)


def test_runs_that_are_not_valid_are_named() -> None:
    assert len(findings_of(compared(2.0, verdict="not_valid")).problems) == 12


def test_a_search_shows_each_rate_with_what_it_missed() -> None:
    found = findings_of(find_capacity(search(), server(15.0))[0])

    assert row(found, "20.00")[2:] == ["missed", "missed", "-", "100.00%", "ttft_p99_ms: 900"]
    assert "requests/s kept the SLOs" in found.sentences[0]


def test_light_tenants_stand_together_and_alone() -> None:
    service = TenantService(
        tenant="quiet", light=True, offered_tokens=5, offered_share=0.05, completion_tokens=(1, 2)
    )
    light = LightTenant(
        tenant="quiet",
        requests=9,
        together_ttft_p50_ms=30.0,
        together_ttft_p99_ms=None,
        alone_ttft_p50_ms=10.0,
        alone_ttft_p99_ms=None,
        ratio_p50=3.0,
        ratio_p99=None,
        together_success_rate=1.0,
        alone_success_rate=1.0,
    )
    unfair = FairnessFound(
        jain=None, backlogged_s=0.0, bin_s=1.0, tenants=(service,), light=(light,), not_valid=("together: late.",)
    )

    found = findings_of(unfair)

    assert row(found, "quiet", 0) == ["quiet", "light", "5.0%", "3"]
    assert row(found, "quiet", 1) == ["quiet", "9", "30.00", "10.00", "3.00", "-", "-", "-"]
    assert "no two tenants were backlogged together" in found.sentences[0]
    assert (
        "Jain's index 0.900, over the 4.0 s"
        in findings_of(msgspec.structs.replace(unfair, jain=0.9, backlogged_s=4.0)).sentences[0]
    )
    assert found.problems == ("together: late.",)


@pytest.mark.parametrize(
    ("idle_s", "words"), [(None, "the server said that it had no engine"), (5.0, "after 5 s without requests")]
)
def test_wakes_say_how_it_was_known_that_the_model_was_cold(idle_s: float | None, words: str) -> None:
    model = ModelWakes(
        model="echo",
        wakes=3,
        failed=3,
        first_token_ms=quantiles(None),
        phases=(Phase(name="connect", from_ms=1.0, to_ms=3.0),),
    )
    cold = ColdStarts(
        cold_by="idle" if idle_s else "engines",
        idle_s=idle_s,
        phases_by="client",
        models=(model,),
        wakes=(),
        not_valid=(),
    )

    found = findings_of(cold)

    assert row(found, "echo") == ["echo", "3", "3", "-", "-", "-"]
    assert row(found, "echo", 1) == ["echo", "connect", "2.000", "3.000"]
    assert words in found.sentences[0]


def test_a_soak_says_what_drifts_and_what_does_not() -> None:
    found = findings_of(soaked(0.5, slowing(1.0))[0])

    assert row(found, "ttft_p50_ms")[-1] == "rises"
    assert row(found, "tool_rss_bytes")[-1] == "no drift shown"
    assert "server_rss_bytes" not in [row[0] for row in found.tables[0][1]]
    assert found.sentences == ["30 segments in 0.5 h, 0 missed an SLO"]


def test_a_short_soak_says_that_it_was_short() -> None:
    found = findings_of(soaked(0.05, lambda turn: results("not_valid" if turn else "missed"))[0])

    assert found.sentences[0].endswith("1 missed an SLO")
    assert "fewer than 6 valid segments show no drift" in found.sentences[1]
    assert found.problems == ["segment 2: too late.", "segment 3: too late."]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.0, "0.000"), (12.3456, "12.35"), (190.0, "190.0"), (1234567.8, "1,234,568"), (-3.0, "-3.000")],
)
def test_numbers_have_four_digits_and_no_exponent(value: float | None, shown: str) -> None:
    assert number(value) == shown
    assert "e" not in number(1e-9)


def test_what_is_not_valid_is_so_in_every_part_of_the_results() -> None:
    done = concluded(
        results(), "compare", compared(1.0), verdict="not_valid", interrupted=True, not_valid=["round 1, A: late."]
    )

    assert (done.verdict, done.interrupted, done.validity.valid) == ("not_valid", True, False)
    assert done.validity.reasons == ("round 1, A: late.",)


def test_what_was_found_can_be_read_back_from_the_results() -> None:
    found: Any = compared(2.0)

    done = concluded(results(), "compare", found, verdict="passed", interrupted=False)
    read = msgspec.json.decode(msgspec.json.encode(done), type=Results)

    assert msgspec.convert(read.extras["compare"], Comparison) == found
    assert read.validity.valid
