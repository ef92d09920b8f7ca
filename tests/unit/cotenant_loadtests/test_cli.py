import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from tests.builders.load_records import answered, run_of, scenario_of

from cotenant_loadtests import cli
from cotenant_loadtests.endings import coded, ending
from cotenant_loadtests.exit_codes import EXIT_BAD_SCENARIO, EXIT_CLOSED_PIPE, EXIT_NOT_VALID, EXIT_OWN_MISTAKE
from cotenant_loadtests.results_file import write_results
from cotenant_loadtests.run_output import RunError
from cotenant_loadtests.shipped import shipped_scenarios
from cotenant_loadtests.summary import summarise
from cotenant_operator.cli import main as cotenant

HEAVY = ("torch", "ray", "transformers", "kubernetes", "numpy", "pyarrow", "uvloop", "msgspec", "yaml")


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Run = Callable[..., Ran]


@pytest.fixture
def loadtest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["loadtest", *map(str, arguments)])
        code = cli.main()
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


@pytest.mark.parametrize("module", ["cotenant_loadtests", "cotenant_operator"])
def test_help_imports_nothing_heavy(module: str) -> None:
    arguments = ["--help"] if module == "cotenant_loadtests" else ["loadtest", "run", "--help"]
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['x', *{arguments!r}]\n"
        "try:\n"
        f"    runpy.run_module({module!r}, run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "Usage:" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "heavy: []"


def test_nothing_of_a_run_needs_torch_ray_or_kubernetes() -> None:
    program = (
        "import sys, cotenant_loadtests.run_command, cotenant_loadtests.written, cotenant_loadtests.worker\n"
        "import cotenant_loadtests.live, cotenant_loadtests.terminal_summary\n"
        f"print([name for name in {HEAVY[:4]!r} if name in sys.modules])\n"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout == "[]\n"


def test_the_shipped_scenarios_are_listed_with_what_they_show(loadtest: Run) -> None:
    ran = loadtest("scenarios")

    header, *rows = ran.out.splitlines()
    assert (ran.code, header.split()) == (0, ["SCENARIO", "WHAT"])
    assert [row.split()[0] for row in rows] == sorted(shipped_scenarios())
    assert all(row.endswith(".") for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument 'SCENARIO'. (see `"),
        (["run", "chat-steady", "--frob"], "No such option"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["run", "no-such"], "no-such: there is no such file, and no scenario of that name comes with cotenant"),
        (["run", "chat-steady", "--set", "nonsense"], "nonsense"),
        (["run", "chat-steady", "--seed", "-1"], "--seed"),
        (
            ["run", "chat-steady", "--set", "streams.0.prompt={file: none.txt}"],
            ".prompt.file: there is no such file, and none of that name comes with cotenant",
        ),
        (
            ["run", "chat-steady", "--from-plan", "plan.jsonl", "--seed", "3"],
            "--seed: the plan of --from-plan has its",
        ),
        (["run", "chat-steady", "--out", ""], "Invalid value for '--out': is empty; name a folder"),
        (["compare", "a", "b", "--rounds", "1000000000"], "Invalid value for '--rounds'"),
        (["run", "chat-steady", "--requests", "json"], "Invalid value for '--requests': 'json' is not one of 'csv'"),
        (["run", "chat-steady", "--from-plan", "/dev/null"], "/dev/null:1: is no line of a plan: it is empty"),
        (["report", "/"], "/ is a folder; give the file in it: /results.json"),
        (["report", "/nowhere/results.json"], "/nowhere/results.json: No such file or directory"),
        (["schema", "plan"], "plan"),
    ],
)
def test_a_mistake_before_the_start_is_one_sentence_and_exit_code_3(
    loadtest: Run, arguments: list[str], message: str
) -> None:
    ran = loadtest(*arguments)

    assert (ran.code, ran.out) == (EXIT_BAD_SCENARIO, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_report_is_drawn_again_from_its_results(loadtest: Run, tmp_path: Path) -> None:
    results = summarise(scenario_of(), run_of([answered()]), "http://127.0.0.1:1")
    write_results(tmp_path / "results.json", results)

    ran = loadtest("report", tmp_path / "results.json")
    other = loadtest("report", tmp_path / "results.json", "--out", tmp_path / "other.html")

    assert (ran.code, ran.out) == (0, f"{tmp_path}/report.html\n")
    assert (other.code, (tmp_path / "other.html").read_text()) == (0, (tmp_path / "report.html").read_text())


def test_a_file_that_is_no_result_is_refused(loadtest: Run, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": "something else"}')

    ran = loadtest("report", tmp_path / "results.json")

    assert ran.code == EXIT_BAD_SCENARIO
    assert "its schema is 'something else'" in ran.err
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("timeline", "bin_s"), 0),
        (("timeline", "bin_s"), 1e308),
    ],
)
def test_a_file_whose_figures_do_not_go_together_is_refused(
    loadtest: Run, tmp_path: Path, place: tuple[Any, ...], value: object
) -> None:
    results = summarise(scenario_of(), run_of([answered(at_s=1), answered(at_s=2)]), "http://127.0.0.1:1")
    holder = fields = json.loads(msgspec.json.encode(results))
    for part in place[:-1]:
        holder = holder[part]
    holder[place[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(fields))

    ran = loadtest("report", tmp_path / "results.json")

    assert ran.code == EXIT_BAD_SCENARIO
    assert ran.err.startswith(
        f"error: reading {tmp_path}/results.json: no report can be drawn of it, because its fig"
    )
    assert not (tmp_path / "report.html").exists()


def test_schemas_are_json_schemas(loadtest: Run) -> None:
    scenario = json.loads(loadtest("schema").out)
    results = json.loads(loadtest("schema", "results").out)

    assert "streams" in scenario["properties"]
    assert "validity" in results["$defs"]["Results"]["properties"]


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (RunError("worker 0 died"), EXIT_NOT_VALID, "error: worker 0 died\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            EXIT_NOT_VALID,
            "error: No space left on device; make room, or give another folder with --out\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "out/results.json"),
            EXIT_NOT_VALID,
            "error: out/results.json: Permission denied; nothing more could be written or read\n",
        ),
        (
            ModuleNotFoundError("No module named 'numpy.random'", name="numpy.random"),
            EXIT_BAD_SCENARIO,
            "error: the package numpy is not installed; run `pip install 'cotenant[loadtest]'`\n",
        ),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_a_code(
    problem: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> int:
        raise problem

    assert ending(fails)() == code
    assert capsys.readouterr().err == said


def test_a_mistake_of_our_own_is_not_hidden() -> None:
    def fails() -> int:
        raise ModuleNotFoundError("No module named 'cotenant_loadtests.gone'", name="cotenant_loadtests.gone")

    with pytest.raises(ModuleNotFoundError):
        ending(fails)()


def test_a_mistake_of_our_own_is_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, coded():
        raise IndexError("of our own")

    assert ended.value.exit_code == EXIT_OWN_MISTAKE
    said = capsys.readouterr().err
    assert "error: a mistake of cotenant, not of the target:" in said
    assert "IndexError: of our own" in said


@pytest.mark.parametrize("arguments", [[], ["--frob"], ["frobnicate"], ["run", "chat-steady", "--frob"]])
def test_a_mistake_in_the_flags_is_no_verdict_under_cotenant_either(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cotenant", "loadtest", *arguments])

    assert cotenant() == EXIT_BAD_SCENARIO
    assert "Usage: " in (shown := capsys.readouterr()).out or shown.err.startswith("error: ")


def _unread(*arguments: str, stream: str) -> subprocess.CompletedProcess[bytes]:
    """With nobody at the other end of stdout or stderr, from the start."""
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writing}
    try:
        return subprocess.run([sys.executable, "-m", "cotenant_loadtests", *arguments], **streams, check=False)  # type: ignore[call-overload,no-any-return]
    finally:
        os.close(writing)


@pytest.mark.parametrize("arguments", [["schema"], ["scenarios"]], ids=["a long text", "a short one"])
def test_an_answer_that_nobody_reads_is_no_verdict_and_no_traceback(arguments: list[str]) -> None:
    ran = _unread(*arguments, stream="stdout")

    assert (ran.returncode, ran.stderr) == (EXIT_CLOSED_PIPE, b"")


def test_a_note_that_nobody_reads_ends_nothing(tmp_path: Path) -> None:
    ran = _unread("run", "chat-steady", "--plan", str(tmp_path / "plan.jsonl"), stream="stderr")

    assert (ran.returncode, ran.stdout) == (0, b"")
    assert (tmp_path / "plan.jsonl").stat().st_size


def test_a_command_without_stdout_and_stderr_does_its_work(tmp_path: Path) -> None:
    plan = tmp_path / "plan.jsonl"
    command = f"exec {sys.executable} -m cotenant_loadtests run chat-steady --plan {plan} >&- 2>&-"

    assert subprocess.run(command, shell=True, check=False).returncode == 0
    assert plan.read_text().startswith("{")


@pytest.mark.parametrize("command", ["scenarios", "schema", "schema results"])
def test_a_command_without_stdout_is_no_mistake(command: str) -> None:
    done = subprocess.run(
        f"exec {sys.executable} -m cotenant_loadtests {command} >&-", shell=True, stderr=subprocess.PIPE, check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")
