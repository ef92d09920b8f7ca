"""`python -m cotenant_loadtests run` as a person and as CI use it, against a server whose behaviour is known."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import psutil
import pytest
import yaml
from tests.builders.pages import answering_with, page
from tests.builders.reference_process import reference_server
from tests.builders.terminal import Terminal
from tests.builders.up import until

from cotenant_loadtests.exit_codes import EXIT_BAD_SCENARIO, EXIT_CODES, EXIT_INTERRUPTED, EXIT_NOT_VALID
from cotenant_loadtests.gate import sentence
from cotenant_loadtests.results import Results
from cotenant_loadtests.results_file import read_results

pytestmark = pytest.mark.integration

LOADTEST = [sys.executable, "-m", "cotenant_loadtests"]
TTFT_MS, ITL_MS = 30.0, 5.0
KEY = "ct-canary-key-of-a-load-test-0123456789"
WRITTEN = {"report.html", "results.json", "requests.csv", "junit.xml", "plan.jsonl"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with reference_server(ttft_ms=TTFT_MS, itl_ms=ITL_MS) as server:
        yield server.url


def stream(tenant: str, rate_per_s: float = 20.0, **fields: Any) -> dict[str, Any]:
    return {
        "name": tenant,
        "tenant": tenant,
        "model": "echo",
        "arrivals": {"process": "constant", "rate_per_s": rate_per_s},
        "prompt": {"tokens": 8},
        "output": {"tokens": 10},
        **fields,
    }


def written(folder: Path, url: str, **fields: Any) -> Path:
    """A scenario of two tenants and a second."""
    values = {
        "name": "short",
        "duration_s": 1,
        "target": {"url": url},
        "streams": [stream("search"), stream("ads")],
        "slo": {"success_rate": 1.0, "ttft_p50_ms": {"search": 500}},
        **fields,
    }
    file = folder / "short.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*LOADTEST, "run", *map(str, arguments)]
    values = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=values)


def long_run(folder: Path, url: str, **fields: Any) -> list[str]:
    """A run that only a signal ends: a minute, with answers of a second."""
    scenario = written(folder, url, duration_s=60, streams=[stream("search", output={"tokens": 200})], **fields)
    return [*LOADTEST, "run", str(scenario), "--out", str(folder / "out")]


def results_of(folder: Path) -> Results:
    return read_results(folder / "out" / "results.json")


def code_of(folder: Path) -> int:
    """What the results ask for. A busy machine may have made the run late, and not valid: that is no mistake."""
    return EXIT_CODES[results_of(folder).verdict]


def begun(pid: int, folder: Path) -> list[psutil.Process]:
    """The workers, once they have recorded something."""
    until(lambda: any(file.stat().st_size for file in folder.glob("out/run-*/*.records")), "answers have come")
    return psutil.Process(pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_a_run_prints_draws_and_judges(url: str, tmp_path: Path) -> None:
    done = run(written(tmp_path, url), "--out", tmp_path / "out")

    assert done.returncode == code_of(tmp_path), done.stderr
    assert f"sending 40 requests to {url} within 1 s: at most 40 in a second" in done.stderr
    assert f"report: {tmp_path}/out/report.html" in done.stdout
    assert [line.split()[:4] for line in done.stdout.splitlines() if " echo " in line] == [
        ["ads", "echo", "20", "0"],
        ["search", "echo", "20", "0"],
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN
    results = results_of(tmp_path)
    assert (results.total.scheduled, results.total.succeeded) == (40, 40)
    assert all(slo.passed for slo in results.slo if slo.slo == "success_rate")
    assert results.total.ttft_ms.p50 >= TTFT_MS
    assert len((tmp_path / "out" / "requests.csv").read_text().splitlines()) == 41


def test_the_plan_is_printed_and_sent_exactly(url: str, tmp_path: Path) -> None:
    scenario = written(tmp_path, url, streams=[stream("search", arrivals={"process": "poisson", "rate_per_s": 20})])
    printed = run(scenario, "--plan", "-")
    again = run(scenario, "--plan", tmp_path / "plan.jsonl")
    other = run(scenario, "--plan", "-", "--seed", "7")

    assert (printed.returncode, again.returncode, again.stdout) == (0, 0, "")
    assert printed.stdout == (tmp_path / "plan.jsonl").read_text() != other.stdout
    assert "nothing was sent" in again.stderr
    lines = printed.stdout.splitlines(keepends=True)
    header = {**json.loads(lines[0]), "requests": 3}
    (tmp_path / "less.jsonl").write_text("".join([json.dumps(header) + "\n", *lines[1:4]]))

    sent = run(scenario, "--from-plan", tmp_path / "less.jsonl", "--out", tmp_path / "out", "--requests", "parquet")

    assert sent.returncode == code_of(tmp_path), sent.stderr
    assert (tmp_path / "out" / "plan.jsonl").read_text().splitlines()[1:] == [line.strip() for line in lines[1:4]]
    assert (tmp_path / "out" / "requests.parquet").stat().st_size
    assert results_of(tmp_path).total.scheduled == 3


def test_a_missed_slo_is_exit_code_1_and_named_with_its_figure(url: str, tmp_path: Path) -> None:
    done = run(written(tmp_path, url), "--out", tmp_path / "out", "--set", "slo.ttft_p50_ms.search=1")

    slo = next(one for one in results_of(tmp_path).slo if one.where == "search")
    assert not slo.passed
    assert done.returncode == code_of(tmp_path) != 0
    if results_of(tmp_path).validity.valid:
        (missed,) = [line for line in done.stderr.splitlines() if line.startswith("missed: ")]
        assert sentence(slo) in missed
        assert "1 of 2 SLOs missed" in done.stdout
    assert len(ET.parse(tmp_path / "out" / "junit.xml").findall(".//failure")) == 1


def test_a_run_that_is_not_valid_is_exit_code_2_and_says_why(url: str, tmp_path: Path) -> None:
    done = run(written(tmp_path, url), "--out", tmp_path / "out", "--set", "limits.bytes=30000")

    assert done.returncode == EXIT_NOT_VALID, done.stderr
    assert (
        "not valid: the run ended before its time: limits.bytes: 30,000 bytes were sent and received" in done.stderr
    )
    assert results_of(tmp_path).verdict == "not_valid"


def test_errors_of_the_target_are_counted_by_type_and_their_cause_is_named(tmp_path: Path) -> None:
    with answering_with(lambda number: page("{}", "401 Unauthorized", "connection: close")) as elsewhere:
        done = run(written(tmp_path, elsewhere.url), "--out", tmp_path / "out")

    assert done.returncode == code_of(tmp_path) != 0
    assert results_of(tmp_path).total.errors == {"http_error": 40}
    assert "likely cause: 401 for tenant ads and 1 more: the target takes no request without a key" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_goes_to_the_target_and_nowhere_else(url: str, tmp_path: Path) -> None:
    scenario = written(tmp_path, url, tenants={"search": {"key": {"env": "SEARCH_KEY"}}})

    done = run(scenario, "--out", tmp_path / "out", SEARCH_KEY=KEY)

    assert done.returncode == code_of(tmp_path), done.stderr
    assert KEY not in done.stdout + done.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "http://192.0.2.1"], "192.0.2.1 is not this machine; if you may put load on it, say --i-may-load"),
        (["--url", "http://192.0.2.1", "--i-may-load-this", "192.0.2.2"], "the target is 192.0.2.1, not that"),
        (["--set", "durations=3"], "durations"),
        (["--set", "duration_s=0"], "duration_s"),
        (["--set", "limits.rate_per_s=39"], "limits.rate_per_s: the plan has 40, more than 39"),
        (["--set", "tenants.search.key.env=NOT_SET"], "the variable NOT_SET holds no key"),
        (["--set", "target.ca_file=none.pem", "--url", "https://127.0.0.1:9"], "target.ca_file"),
        (["--set", "limits.connections=1000000000"], "limits.connections: 1000000000 need"),
        ([], "nothing listens at http://127.0.0.1:9; start the server (`cotenant up` is one)"),
        (["--from-plan", "/nowhere.jsonl"], "/nowhere.jsonl: No such file or directory"),
        (["--from-plan", "/dev/null"], "/dev/null:1: is no line of a plan"),
        (["--processes", "none"], "--processes"),
    ],
)
def test_whatever_is_refused_sends_nothing_and_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(written(tmp_path, "http://127.0.0.1:9"), *arguments)

    assert (done.returncode, done.stdout) == (EXIT_BAD_SCENARIO, "")
    (line,) = done.stderr.splitlines()[-1:]
    assert line.startswith("error: ")
    assert message in line
    assert "sending" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("loadtest-*"))


def test_a_folder_that_cannot_be_written_is_refused(url: str, tmp_path: Path) -> None:
    done = run(written(tmp_path, url), "--out", "/proc/out")

    assert (done.returncode, done.stdout) == (EXIT_BAD_SCENARIO, "")
    assert done.stderr.startswith("error: --out /proc/out cannot be written")


def test_ctrl_c_on_a_terminal_ends_a_run_early_with_what_was_measured(url: str, tmp_path: Path) -> None:
    terminal = Terminal(long_run(tmp_path, url), tmp_path / "screen")
    workers = begun(terminal.process.pid, tmp_path)
    until(lambda: "SENT/S" in terminal.shown() and " left; lateness" in terminal.shown(), "there is a live view")
    until(lambda: "TTFT P50" in terminal.shown() and " ms\n" in terminal.shown(), "a second is shown")

    pressed_s = time.monotonic()
    terminal.type("\x03")
    assert terminal.wait() == EXIT_INTERRUPTED
    assert time.monotonic() - pressed_s < 30  # of the minute; one that runs other tests too takes more than the 2 s

    assert all_gone(workers)
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN
    results = results_of(tmp_path)
    assert results.interrupted
    assert 0 < results.total.succeeded < 60 * 20
    assert "interrupted" in terminal.shown()
    assert "report:" in terminal.shown()
    assert "Traceback" not in terminal.shown()


def test_sigterm_ends_a_run_like_ctrl_c(url: str, tmp_path: Path) -> None:
    process = subprocess.Popen(long_run(tmp_path, url, processes=2), stdout=subprocess.PIPE, text=True)
    workers = begun(process.pid, tmp_path)
    assert len(workers) == 2

    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)

    assert process.returncode == EXIT_INTERRUPTED
    assert "interrupted" in out
    assert results_of(tmp_path).interrupted
    assert all_gone(workers)


def test_a_terminal_that_is_closed_ends_a_run_with_its_report(url: str, tmp_path: Path) -> None:
    """Kernel and shell may both say so."""
    with subprocess.Popen(long_run(tmp_path, url), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        workers = begun(process.pid, tmp_path)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)  # signals that are sent at once arrive as one
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)

    assert process.returncode == EXIT_INTERRUPTED
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN
    assert results_of(tmp_path).interrupted
    assert all_gone(workers)


def test_a_run_under_nohup_does_not_mind_a_terminal_that_is_closed(url: str, tmp_path: Path) -> None:
    command = ["nohup", *LOADTEST, "run", str(written(tmp_path, url)), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: any((tmp_path / "out").glob("run-*/*.records")), "the run has begun")
        process.send_signal(signal.SIGHUP)
        process.wait(timeout=30)

    assert not results_of(tmp_path).interrupted
    assert results_of(tmp_path).total.scheduled == 40


def test_a_second_ctrl_c_ends_at_once(url: str, tmp_path: Path) -> None:
    process = subprocess.Popen(long_run(tmp_path, url), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    workers = begun(process.pid, tmp_path)
    for worker in workers:
        worker.suspend()  # so that the first one has something to wait for

    process.send_signal(signal.SIGINT)
    time.sleep(0.6)  # what comes with the first is the same wish
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode == EXIT_INTERRUPTED
    assert "Traceback" not in said
    assert all_gone(workers)


def test_a_worker_that_is_killed_makes_the_run_not_valid_and_keeps_its_records(url: str, tmp_path: Path) -> None:
    process = subprocess.Popen(long_run(tmp_path, url), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    (worker,) = begun(process.pid, tmp_path)

    worker.kill()
    _, said = process.communicate(timeout=30)

    assert process.returncode == EXIT_NOT_VALID, said
    assert "killed by signal 9" in said
    results = results_of(tmp_path)
    assert results.verdict == "not_valid"
    assert results.total.succeeded > 0


def test_steps_end_after_the_first_that_was_not_good_enough(url: str, tmp_path: Path) -> None:
    steps = {"process": "steps", "rates_per_s": [5, 10, 15, 20, 25, 30, 35, 40], "step_s": 1, "stop_below": 0.5}
    scenario = written(
        tmp_path, url, duration_s=8, streams=[stream("search", arrivals=steps)], goodput={"ttft_ms": TTFT_MS / 2}
    )

    done = run(scenario, "--out", tmp_path / "out")

    results = results_of(tmp_path)
    assert done.returncode == code_of(tmp_path), done.stderr
    assert not results.interrupted
    assert results.duration_s < 6
    assert [(step.from_s, step.good_per_s) for step in results.steps] == [(0.0, 0.0)]
