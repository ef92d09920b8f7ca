import io
import re
from pathlib import Path

import pytest
from tests.builders.load_records import answered, failed, process_load, run_of, scenario_of

from cotenant_loadtests.exit_codes import EXIT_INTERRUPTED, EXIT_MISSED, EXIT_NOT_VALID, EXIT_PASSED
from cotenant_loadtests.one_run import exit_code
from cotenant_loadtests.results import Results
from cotenant_loadtests.summary import summarise
from cotenant_loadtests.terminal import print_table
from cotenant_loadtests.terminal_summary import (
    EXPENDABLE,
    GROUP_COLUMNS,
    MOST_GROUPS,
    error_rows,
    group_rows,
    headline,
    print_summary,
    slo_rows,
    tool_line,
)


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return re.sub("\x1b\\[[0-9;]*m", "", self.getvalue()).splitlines()


def results(*, slo: dict[str, object] | None = None, busy: bool = False, interrupted: bool = False) -> Results:
    requests = [answered(at_s=number, ttft_ms=20, gaps_ms=[10, 10], tenant="blue") for number in range(4)]
    requests += [failed("http_error", at_s=5, status=500, detail="\x1b[31mboom", tenant="red", model="other")]
    requests += [failed("interrupted", at_s=6, tenant="red")] if interrupted else []
    load = process_load(cpu_share=0.99, cpu_share_peak=1.0, saturated_share=1.0) if busy else process_load()
    run = run_of(requests, processes=(load,))
    return summarise(scenario_of(slo=slo or {}, duration_s=10), run, "http://127.0.0.1:8080")


def shown(found: Results, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    print_summary(found, Path("out"), {})
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_each_tenant_and_model_has_a_row_and_all_of_them_one() -> None:
    rows = [dict(zip(GROUP_COLUMNS, row, strict=True)) for row in group_rows(results())]

    assert [(row["TENANT"], row["MODEL"], row["REQUESTS"], row["FAILED"]) for row in rows] == [
        ("blue", "echo", "4", "0"),
        ("red", "other", "1", "1"),
        ("all", "", "5", "1"),
    ]
    assert [row["SUCCESS"] for row in rows] == ["100.00%", "0.00%", "80.00%"]
    assert rows[0]["TTFT"] == "20.0 / 20.0"
    assert rows[0]["TPOT"] == "10.0 / 10.0"
    assert rows[1]["TTFT"] == "-"


@pytest.mark.parametrize(
    ("width", "there", "gone"),
    [
        (120, ("TTFT", "TPOT", "ITL", "E2E"), ()),
        (80, ("REQUESTS", "TTFT", "ITL", "E2E"), ("TPOT",)),
        (50, ("REQUESTS", "TTFT"), ("ITL", "E2E", "TPOT")),
    ],
)
def test_a_narrow_terminal_goes_without_columns_and_breaks_no_figure(width: int, there, gone, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen = Screen()
    rows = group_rows(results())
    left_out = print_table(GROUP_COLUMNS, rows, right=range(2, 9), expendable=EXPENDABLE, out=screen)
    lines = screen.lines()
    assert len(lines) == 1 + len(rows)
    assert all(len(line) <= width for line in lines)
    assert set(there) <= set(lines[0].split())
    assert set(gone) <= set(left_out)
    assert "20.0 / 20.0" in lines[1]


def test_a_terminal_without_room_for_a_table_has_a_line_for_each_figure(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen()
    assert (
        print_table(GROUP_COLUMNS, group_rows(results()), right=range(2, 9), expendable=EXPENDABLE, out=screen) == ()
    )
    lines = screen.lines()
    assert {"TENANT blue", "REQUESTS 4", "TTFT 20.0 / 20.0"} <= set(lines)


def test_of_many_groups_the_busiest_are_shown_and_the_others_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = summarise(
        scenario_of(duration_s=10),
        run_of(
            [answered(at_s=0.1, tenant=f"t{i:02}") for i in range(30)]
            + [answered(at_s=1, tenant="t29"), failed("timeout", at_s=2, tenant="t28")]
        ),
        "http://127.0.0.1:8080",
    )
    rows = group_rows(found)
    assert len(rows) == MOST_GROUPS + 2
    assert {rows[0][0], rows[1][0]} == {"t28", "t29"}
    assert rows[-2][:5] == ("10 others", "", "10", "0", "100.00%")
    assert rows[-1][0] == "all"
    assert "the 20 busiest of 30; all of them are in the report" in shown(found, capsys)[0]


def test_a_run_that_measured_nothing_has_no_success_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    requests = [failed("interrupted", at_s=1, tenant="red")]
    found = summarise(scenario_of(duration_s=10), run_of(requests), "http://127.0.0.1:8080")
    out, _ = shown(found, capsys)
    assert "nothing measured in " in out
    assert "100.00%" not in out


def test_errors_are_shown_with_their_count_and_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = shown(results(), capsys)

    assert error_rows(results()) == [("http_error", "500", "red", "other", "1", "\x1b[31mboom")]
    assert "\x1b" not in out
    assert "[31mboom" in out


def test_what_was_missed_is_on_stderr_with_its_figure(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(slo={"success_rate": 0.9, "ttft_p50_ms": {"blue": 500}})
    out, err = shown(found, capsys)

    assert [row[-1] for row in slo_rows(found)] == ["missed", "passed"]
    assert "1 of 2 SLOs missed; report: out/report.html" in out
    (line,) = err.splitlines()
    assert line.startswith("missed: success_rate")
    assert "0.8" in line
    assert exit_code(found) == EXIT_MISSED


def test_a_run_that_is_not_valid_judges_nothing_and_says_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(slo={"success_rate": 0.9}, busy=True)
    out, err = shown(found, capsys)

    assert [row[-1] for row in slo_rows(found)] == ["not judged"]
    assert "not valid; report:" in out
    assert err.startswith("not valid: the worker process had no CPU to spare")
    assert "missed" not in err
    assert tool_line(found).endswith("2 would be enough")
    assert exit_code(found) == EXIT_NOT_VALID


def test_a_run_that_passed_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = shown(results(slo={"success_rate": 0.5}), capsys)

    assert "the SLO passed; report:" in out
    assert err == ""
    assert exit_code(results(slo={"success_rate": 0.5})) == EXIT_PASSED
    assert "valid, and no SLO was set" in shown(results(), capsys)[0]


def test_an_interrupted_run_says_so_and_has_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(slo={"success_rate": 0.7}, interrupted=True)

    assert "interrupted; so far the SLO passed; report: out/report.html" in shown(found, capsys)[0]
    assert ", interrupted; " in headline(found)
    assert exit_code(found) == EXIT_INTERRUPTED
