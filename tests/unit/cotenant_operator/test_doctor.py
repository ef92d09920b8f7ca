"""`cotenant doctor`: what each lack is called, and the command that fixes it."""

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders.small_gateway import SmallGateway

from cotenant_operator.doctor import checks, probe
from cotenant_operator.doctor.checks import Finding, examine
from cotenant_operator.doctor.hub_probe import probe_hub
from cotenant_operator.doctor.report import finding_rows, findings_document, fixes
from cotenant_operator.doctor.snapshot import Gpus, Hub, Package, Snapshot, StateFacts, Torch
from cotenant_operator.doctor.state_probe import probe_state
from cotenant_operator.quantity import GIB, MIB

STATE = StateFacts(path="/s", exists=True, disk_free_bytes=100 * GIB, ray_temp="/tmp/cotenant-1000-0123456789/ray")
NO_GPU = Gpus(problem="NVML: library not found")
GPU = Gpus(device_files=1, names=("H100 (80 GiB)",), driver="550.54", cuda=(12, 4))
WELL = Snapshot(
    python=(3, 12, 1),
    extras={"gateway": (Package("uvicorn", "<1,>=0.34", "0.35.0"),), "tracing": (Package("otel", "", None),)},
    memory_bytes=16 * GIB,
    memory_free_bytes=8 * GIB,
    shm_bytes=1 * GIB,
    open_files=65_536,
    open_files_most=65_536,
    engine_ports_free=100,
    gpus=NO_GPU,
    torch=Torch("2.9.0+cpu", None),
    state=STATE,
    now_s=2e9,
    installed_s=1e9,
)


def found(seen: Snapshot, check: str) -> Finding:
    (finding,) = [finding for finding in examine(seen) if finding.check == check]
    return finding


def test_a_machine_without_a_gpu_that_has_everything_lacks_nothing() -> None:
    assert {finding.level for finding in examine(WELL)} == {"ok"}
    assert "device cpu" in found(WELL, "gpu").message


@pytest.mark.parametrize(
    ("changed", "check", "level", "fix"),
    [
        ({"system": "Darwin"}, "system", "problem", "use Linux"),
        ({"python": (3, 10, 4)}, "python", "problem", "python3.11 -m venv"),
        ({"memory_free_bytes": GIB}, "memory", "warning", "end other programs"),
        ({"shm_bytes": 64 * MIB}, "shared memory", "warning", "--shm-size=1g"),
        ({"shm_bytes": None}, "shared memory", "warning", "--shm-size=1g"),
        ({"open_files": 1024}, "open files", "warning", "ulimit -n 65536"),
        ({"open_files": 1024, "open_files_most": 4096}, "open files", "warning", "limits.conf"),
        ({"gateway_port_free": False}, "gateway port", "problem", "cotenant up --port 0"),
        ({"engine_ports_free": 3}, "engine ports", "warning", "ss -ltnp"),
        ({"engine_ports_free": 0}, "engine ports", "problem", "ss -ltnp"),
        ({"now_s": 1e9 - 3600}, "clock", "problem", "timedatectl"),
        ({"hub": Hub(endpoint="https://h", clock_skew_s=-300.0)}, "clock", "warning", "timedatectl"),
        ({"hub": Hub(endpoint="", problem="HF_ENDPOINT is no")}, "hub", "problem", "unset it"),
        ({"hub": Hub(endpoint="https://h", problem="no route")}, "hub", "problem", "curl -I https://h"),
        ({"hub": Hub(endpoint="https://h", token="refused")}, "hub", "problem", "hf auth login"),
        ({"hub": Hub(endpoint="https://h", offline=True)}, "hub", "warning", "unset HF_HUB_OFFLINE"),
    ],
)
def test_a_lack_has_a_level_and_a_command(changed: dict[str, Any], check: str, level: str, fix: str) -> None:
    finding = found(replace(WELL, **changed), check)

    assert finding.level == level
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("changed", "check", "level", "fix"),
    [
        ({"disk_free_bytes": GIB}, "disk", "warning", "--state DIR"),
        ({"foreign": True}, "state directory", "problem", "--state DIR"),
        ({"writable": False}, "state directory", "problem", "chmod u+rwx '/s'"),
        ({"open_to_others": ("/s/secrets",)}, "state directory", "problem", "chmod -R go= '/s'"),
        ({"dead_pid": 7}, "up", "warning", "cotenant up -f FILE"),
        ({"leftovers": 2}, "up", "warning", "the next `cotenant up`"),
        ({"ray_temp": "/var/folders/" + "x" * 60}, "temporary folder", "problem", "export TMPDIR=/tmp"),
    ],
)
def test_a_state_directory_that_cannot_serve_is_named(
    changed: dict[str, Any], check: str, level: str, fix: str
) -> None:
    finding = found(replace(WELL, state=replace(STATE, **changed)), check)

    assert finding.level == level
    assert fix in finding.fix


def test_a_port_that_the_running_up_has_is_no_problem() -> None:
    assert (
        found(replace(WELL, gateway_port_free=False, state=replace(STATE, running_pid=7)), "gateway port").level
        == "ok"
    )


@pytest.mark.parametrize(
    ("gpus", "torch", "check", "level", "fix"),
    [
        (GPU, Torch("2.9.0+cu126", "12.6"), "torch", "ok", ""),
        (GPU, Torch("2.9.0+cpu", None), "torch", "problem", "pip install --force-reinstall torch"),
        (GPU, Torch("2.15.0+cu132", "13.2"), "torch", "problem", "https://download.pytorch.org/whl/cu124"),
        (GPU, Torch("2.9.0+cu126", "12.6"), "gpu", "ok", ""),
        (replace(NO_GPU, device_files=2), None, "gpu", "problem", "nvidia-smi"),
        (
            Gpus(device_files=2, problem="the Python package nvidia-ml-py is not installed"),
            None,
            "gpu",
            "problem",
            "pip",
        ),
        (
            Gpus(device_files=2, problem="NVML finds no GPU among …", visible="7"),
            None,
            "gpu",
            "warning",
            "unset CUDA",
        ),
    ],
)
def test_a_gpu_that_cannot_be_used_is_told_apart_from_none(
    gpus: Gpus, torch: Torch | None, check: str, level: str, fix: str
) -> None:
    finding = found(replace(WELL, gpus=gpus, torch=torch), check)

    assert finding.level == level
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("package", "level", "message"),
    [
        (Package("ray", "<2.61,>=2.60", "2.60.0"), "ok", "ray 2.60.0"),
        (Package("ray", "<2.61,>=2.60", "2.60"), "ok", "ray 2.60"),
        (Package("ray", "<2.61,>=2.60", "2.61.0"), "problem", "ray 2.61.0 does not fit <2.61,>=2.60"),
        (Package("torch", ">=2.9,<3", "2.8.1+cu126"), "problem", "torch 2.8.1+cu126 does not fit"),
        (Package("torch", ">=2.9,<3", "2.10.0"), "ok", "torch 2.10.0"),
        (Package("torch", ">=2.9,<3", None), "problem", "not installed: torch"),
    ],
)
def test_packages_are_there_and_fit(package: Package, level: str, message: str) -> None:
    finding = found(replace(WELL, extras={"engine": (package,)}), "packages: engine")

    assert finding.level == level
    assert message in finding.message
    assert finding.fix == ("" if level == "ok" else "pip install 'cotenant[engine]'")


def test_the_report_puts_problems_first_and_the_document_counts() -> None:
    findings = examine(replace(WELL, memory_free_bytes=0, gateway_port_free=False))

    assert [line.split(":")[0] for line in fixes(findings)] == ["gateway port", "memory"]
    document = findings_document(findings)
    assert (document["problems"], document["warnings"]) == (1, 1)
    assert json.dumps(document)
    assert finding_rows([Finding("ok", "a", "x" * 100)], wide=False)[1][0][2].endswith("x…")
    assert finding_rows([Finding("ok", "a", "x" * 100)], wide=True)[1][0][2] == "x" * 100


def test_the_packages_of_every_extra_are_found_in_our_own_metadata() -> None:
    seen = {extra: [package.name for package in probe._packages(extra)] for extra in probe.EXTRAS}

    assert {"torch", "transformers", "ray"} <= set(seen["engine"])
    assert "uvicorn" in seen["gateway"]
    assert set(seen) == set(checks.NEEDED)
    assert all(seen.values())


def test_a_state_directory_is_looked_at_without_being_changed(tmp_path: Path) -> None:
    assert not probe_state(tmp_path / "new").exists
    assert not (tmp_path / "new").exists()

    where = tmp_path / "state"
    (where / "secrets").mkdir(parents=True)
    where.chmod(0o755)
    (where / "secrets").chmod(0o700)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (where / "control.json").write_text(json.dumps({"pid": ended.pid}))

    facts = probe_state(where)
    assert facts.open_to_others == (str(where),)
    assert (facts.dead_pid, facts.running_pid, facts.leftovers) == (ended.pid, None, 0)

    (where / "control.json").write_text(json.dumps({"pid": os.getpid()}))
    assert probe_state(where).running_pid == os.getpid()


@pytest.mark.parametrize(
    ("token", "status", "judged"), [("", 401, "none"), ("t", 200, "good"), ("t", 401, "refused")]
)
def test_the_hub_is_asked_about_the_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, token: str, status: int, judged: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with SmallGateway(lambda path, body, key: (status, {})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        said = probe_hub()

    assert (said.token, said.problem) == (judged, "")
    assert said.clock_skew_s is not None
    assert abs(said.clock_skew_s) < 30
    assert hub.asked[0][0] == "/api/whoami-v2"


@pytest.mark.parametrize("endpoint", ["http://hub example", "http://127.0.0.1:port", "nonsense", "http://[::1"])
def test_an_address_that_is_none_is_a_problem(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    said = probe_hub()
    assert said.problem
    assert endpoint not in said.problem  # it may have a password


def test_a_hub_that_speaks_no_http_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        speaker = threading.Thread(target=_speak_nonsense, args=(server,))
        speaker.start()
        said = probe_hub()
        speaker.join()

    assert "BadStatusLine" in said.problem


def _speak_nonsense(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"SSH-2.0-OpenSSH\r\n")


def test_a_hub_that_is_not_there_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with SmallGateway(lambda path, body, key: (200, {})) as hub:
        pass
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    assert "refused" in probe_hub().problem
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert probe_hub().offline
