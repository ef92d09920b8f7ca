"""What the gateway's first process is made of: its port, its command lines, its patience with workers."""

import json
import logging
import subprocess
import sys

import pytest

from cotenant_serving.gateway import listening
from cotenant_serving.gateway.listening import Port, take_port
from cotenant_serving.gateway.options import Place, parse_options, parse_worker
from cotenant_serving.gateway.supervisor import LOOK_S, Worker, most_silent, pause_s, restart_delay_s
from cotenant_serving.logs import JsonFormatter

REQUIRED = ["--config", "c.json", "--port", "0", "--state", "s"]


def test_a_worker_gets_the_command_line_of_its_gateway_and_its_place():
    place = Place(worker=1, parent=7, gateway="gateway-1", listener=4, board=5, ready=6, wakes=(8, 9))
    given = [*REQUIRED, "--workers", "2", "--hold-timeout", "3"]

    options, found = parse_worker([*given, place.argument()])

    assert found == place
    assert options == parse_options(given)
    assert options.settings.hold_timeout_s == 3


@pytest.mark.parametrize("count", ["0", "64", "two"])
def test_a_number_of_workers_that_cannot_be_is_refused(count, capsys):
    with pytest.raises(SystemExit):
        parse_options([*REQUIRED, "--workers", count])
    assert f"{count!r} is not a whole number from 1 to 63" in capsys.readouterr().err


def test_a_worker_that_fails_again_and_again_is_started_ever_later():
    assert [restart_delay_s(failures) for failures in (0, 1, 2, 3, 9)] == [0, 0.2, 0.4, 0.8, 5]


def test_the_supervisor_sleeps_until_a_worker_is_due_and_while_workers_drain():
    dead = [Worker(0, due_s=100.3), Worker(1, due_s=107.0)]
    assert pause_s(dead, 100.0, stopping=False) == pytest.approx(0.3)
    assert pause_s(dead, 101.0, stopping=False) == 0
    assert pause_s(dead, 101.0, stopping=True) == pause_s([], 101.0, stopping=False) == LOOK_S


def test_a_supervisor_that_leaves_sleeps_no_longer_than_until_the_drain_and_still_starts_workers():
    dead = [Worker(0, due_s=100.3)]
    assert pause_s([], 100.0, 100.5, stopping=False) == pytest.approx(0.5)
    assert pause_s([], 100.0, 700.0, stopping=False) == LOOK_S
    assert pause_s(dead, 100.0, 100.5, stopping=False) == pytest.approx(0.3)
    assert pause_s([], 100.0, 99.0, stopping=True) == LOOK_S


def heard(number: int, *signs: int, passed_s: float = 1.0) -> Worker:
    worker = Worker(number, process=object())
    for one in signs:
        worker.listen(one, passed_s)
    return worker


def test_a_worker_is_silent_when_its_signs_of_life_stay_the_same():
    talks, silent, longer = heard(0, *range(99)), heard(1, *range(9), *[9] * 16), heard(2, *[9] * 17)
    assert most_silent([talks, silent, longer]) is longer
    assert most_silent([talks, silent]) is silent
    assert most_silent([talks, heard(1, *[9] * 10, 10, *[10] * 14)]) is None
    longer.process = None
    assert most_silent([longer]) is None


def test_a_worker_that_starts_may_be_silent_for_longer():
    assert most_silent([heard(0, *[0] * 59)]) is None
    assert most_silent([heard(0, *[0] * 60)]) is not None


def test_a_machine_that_slept_makes_no_worker_silent():
    assert most_silent([heard(0, *[9] * 7, passed_s=3600.0)]) is None


def test_each_worker_has_a_socket_of_its_own_on_the_same_port():
    port = Port("127.0.0.1", 0, shared=True)
    try:
        first, second = port.listener(0), port.listener(1)
        assert first.getsockname() == second.getsockname()
        assert port.listener(1) is second
        assert port.url == f"http://127.0.0.1:{first.getsockname()[1]}"
        port.drop(1)
        assert port.listener(1) is not second
    finally:
        port.close()


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_another_gateway_has_is_refused(shared):
    first = Port("127.0.0.1", 0, shared=shared)
    try:
        number = first.listener(0).getsockname()[1]
        first.listener(0).listen()
        with pytest.raises(OSError, match="Address already in use"):
            take_port("127.0.0.1", number, shared=shared, ending=lambda: False)
    finally:
        first.close()


def test_the_port_of_an_earlier_gateway_whose_workers_still_end_is_waited_for(monkeypatch):
    monkeypatch.setattr(listening, "STEP_S", 0.001)
    earlier = Port("127.0.0.1", 0, shared=True)
    earlier.listener(0).listen()
    number = earlier.listener(0).getsockname()[1]
    looks = []

    def ending() -> bool:
        looks.append(1)
        if len(looks) == 3:
            earlier.close()
        return True

    port = take_port("127.0.0.1", number, shared=True, ending=ending)
    port.close()
    assert len(looks) == 3


def test_an_address_of_version_6_is_shown_as_in_a_url():
    try:
        port = Port("::1", 0, shared=False)
    except OSError:
        pytest.skip("no IPv6 here")
    assert port.url.startswith("http://[::1]:")
    port.close()


def test_log_lines_say_which_worker_speaks_and_what_else_there_is_to_say():
    record = logging.makeLogRecord(
        {"msg": "request %s ended", "args": ("req-1",), "levelname": "WARNING", "fields": {"event": "request_failed"}}
    )

    line = json.loads(JsonFormatter(worker=2).format(record))

    assert (line["message"], line["level"], line["worker"], line["event"]) == (
        "request req-1 ended",
        "warning",
        2,
        "request_failed",
    )
    assert "worker" not in json.loads(JsonFormatter().format(record))


BROKEN = """
import sys
from cotenant_serving.gateway.supervisor import Supervisor, main

def run(self):
    raise OSError(24, "Too many open files")

Supervisor.run = run
main(sys.argv[1:])
"""


def test_an_error_of_a_gateway_that_runs_is_not_taken_for_one_of_its_start(tmp_path):
    command = [sys.executable, "-c", BROKEN, "--config", "c.json", "--port", "0", "--state", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "cannot start" not in ended.stderr
    assert "in run" in ended.stderr


def test_the_supervisor_imports_nothing_heavy():
    code = "import sys, cotenant_serving.gateway.supervisor; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "aiohttp", "fastapi", "uvicorn", "prometheus_client"} & set(shown)
