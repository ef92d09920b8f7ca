"""A full disk costs the files that have no room, and is told with their names."""

from pathlib import Path

import pytest
from tests.builders.load_records import answered, run_of, scenario_of

from cotenant_loadtests.concluding import conclude
from cotenant_loadtests.extras import Soak
from cotenant_loadtests.one_run import Measured
from cotenant_loadtests.summary import summarise
from cotenant_loadtests.terminal_summary import print_summary
from cotenant_loadtests.writing import UnwrittenError, refuse_unwritten
from cotenant_loadtests.written import write_run

OUTPUT = run_of([answered(at_s=1)])
MEASURED = Measured(OUTPUT, summarise(scenario_of(), OUTPUT, "http://127.0.0.1:8080"))
FULL = "No space left on device; make room, or give another folder with --out"


def full(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).symlink_to("/dev/full")


def test_what_has_room_is_written_and_what_has_none_is_named_and_not_half_there(tmp_path: Path) -> None:
    full(tmp_path, "results.json", "requests.csv")

    unwritten = write_run(tmp_path, scenario_of(), MEASURED, requests="csv")

    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "junit.xml", "plan.jsonl"}
    with pytest.raises(UnwrittenError) as caught:
        refuse_unwritten(unwritten)
    assert [line.partition(" could not be written: ")[::2] for line in str(caught.value).splitlines()] == [
        (f"{tmp_path}/results.json", f"{FULL}, and run it again"),
        (f"{tmp_path}/requests.csv", f"{FULL}, and run it again"),
    ]


def test_a_report_that_is_not_there_is_not_promised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unwritten = write_run(tmp_path / "gone", scenario_of(), MEASURED, requests="none")

    print_summary(MEASURED.results, tmp_path / "gone", unwritten)

    shown = capsys.readouterr().out
    assert "no report could be written" in shown
    assert "report.html" not in shown


def test_what_a_command_found_is_told_though_it_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full(tmp_path, "junit.xml")
    found = Soak(hours=1, ran_s=3600, segments=(), drifts=(), interrupted=False)

    with pytest.raises(UnwrittenError, match=r"junit\.xml could not be written"):
        conclude(tmp_path, MEASURED.results, found)

    assert f"report: {tmp_path}/report.html" in capsys.readouterr().out
