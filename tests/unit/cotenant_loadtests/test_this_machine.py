import platform
import socket

from cotenant_loadtests.this_machine import cores, machine


def test_a_machine_is_told_in_one_line_without_its_name() -> None:
    told = machine()
    assert f"{cores()} cores" in told
    assert told.endswith(f"Python {platform.python_version()}")
    assert "\n" not in told
    assert socket.gethostname() not in told.split(", ")


def test_this_process_may_use_a_core() -> None:
    assert cores() >= 1
