"""Ray's head as `up` starts it: who comes to one of its ports without the token gets nothing done."""

import http.client
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.builders.ports import free_port
from tests.builders.up import until

from cotenant_operator import ray_head
from cotenant_operator.state_dir import StateDir

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ASK = """
import sys, grpc
from ray.core.generated import gcs_service_pb2 as m, gcs_service_pb2_grpc as s
from ray.core.generated import ray_client_pb2 as cm, ray_client_pb2_grpc as cs
gcs, client, token = sys.argv[1:]
def ask(call, request, token):
    try:
        call(request, metadata=[("authorization", "Bearer " + token)] if token else [], timeout=20)
        return "OK"
    except grpc.RpcError as refused:
        return refused.code().name
jobs = s.JobInfoGcsServiceStub(grpc.insecure_channel("127.0.0.1:" + gcs)).GetAllJobInfo
kv = s.InternalKVGcsServiceStub(grpc.insecure_channel("127.0.0.1:" + gcs)).InternalKVKeys
driver = cs.RayletDriverStub(grpc.insecure_channel("127.0.0.1:" + client)).ClusterInfo
for given in ("", "a" * 64, token):
    print(ask(jobs, m.GetAllJobInfoRequest(), given), ask(kv, m.InternalKVKeysRequest(prefix=b""), given),
          ask(driver, cm.ClusterInfoRequest(type=cm.ClusterInfoType.PING), given))
"""
PATHS = (
    *(("GET", "/"), ("GET", "/api/version"), ("GET", "/api/jobs/"), ("POST", "/api/jobs/"), ("GET", "/logs/")),
    *(("POST", "/api/job_agent/jobs/"), ("GET", "/api/serve/applications/"), ("PUT", "/api/serve/applications/")),
    *(("GET", "/worker/traceback?pid=1"), ("GET", "/api/cluster_status"), ("GET", "/nodes?view=summary")),
)
BROWSER = {
    "user-agent": "Mozilla/5.0",
    "origin": "http://evil.example",
    "host": "evil.example",
    "sec-fetch-mode": "cors",
}


@dataclass
class Head:
    process: psutil.Process
    port: int
    client_port: int
    token: str
    marker: Path

    def listening(self) -> set[tuple[str, int]]:
        """(address, port) of all that it has started."""
        found = set()
        for process in self.process.children(recursive=True):
            with suppress(psutil.Error):
                found |= {
                    (one.laddr.ip, one.laddr.port)
                    for one in process.net_connections("inet")
                    if one.status == "LISTEN"
                }
        return found

    def said(self, address: str, port: int, method: str, path: str) -> tuple[int, bytes]:
        """(0, …) for what does not speak HTTP."""
        reached = "127.0.0.1" if address in ("::", "0.0.0.0") else address.removeprefix("::ffff:")
        body = f'{{"entrypoint": "mkdir {self.marker}"}}' if method != "GET" else None
        connection = http.client.HTTPConnection(reached, port, timeout=20)
        try:
            connection.request(method, path, body, {"content-type": "application/json", **BROWSER})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (http.client.HTTPException, OSError):
            return 0, b""
        finally:
            connection.close()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("ray")
    state = StateDir(folder / "state")
    state.acquire()
    token_file = state.secret("ray-token")
    port = free_port()
    command = ray_head.command(port, state.ray_temp, {}, cuda_devices=0)
    client_port = next(int(one.partition("=")[2]) for one in command if one.startswith("--ray-client-server-port"))
    env = {**os.environ, **ray_head.environment(token_file)}
    with (folder / "ray.log").open("wb") as log:
        started = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    made = Head(psutil.Process(started.pid), port, client_port, token_file.read_text(), folder / "executed")
    try:
        until(lambda: {port, client_port} <= {one for _, one in made.listening()}, "Ray's head listens")
        until(lambda: len(made.listening()) > 8, "Ray's agents listen", explain=lambda: str(made.listening()))
        yield made
    finally:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(30)
        started.kill()
        started.wait()
        state.release()
        state.remove_ray_temp()


def test_no_port_takes_a_job_or_tells_anything_but_metrics_without_the_token(head: Head) -> None:
    """CVE-2023-48022 (ShadowRay: the dashboard's job API runs commands for anybody), CVE-2025-62593 (before 2.52: a
    web page makes a browser on the machine do it, by DNS rebinding): every port of every process of Ray, asked as a
    browser would. Breaks with RAY_AUTH_MODE=disabled, or when the dashboard is on."""
    told = {
        (address, port, method, path): head.said(address, port, method, path)
        for address, port in sorted(head.listening())
        for method, path in PATHS
    }
    opened = {where: body for where, (status, body) in told.items() if 200 <= status < 300}
    assert [where for where, body in opened.items() if not body.startswith((b"# HELP", b"# TYPE"))] == []
    assert 401 in {status for status, _ in told.values()}
    assert not head.marker.exists()


def test_no_dashboard_is_there(head: Head) -> None:
    """CVE-2023-48022: 8265 is the port that is searched for; what is not there needs no guard."""
    assert 8265 not in {port for _, port in head.listening()}
    assert "--include-dashboard=false" in ray_head.command(1, Path("/tmp/x"), {}, cuda_devices=0)


def test_the_control_store_and_the_client_server_answer_with_the_token_only(head: Head) -> None:
    """CVE-2023-48022's other ports (GCS on 6379, ray:// on 10001): the store holds functions that workers unpickle,
    so that who writes to it runs code. Since Ray 2.52 a token is asked for, if the mode says so, which it does not by
    default."""
    arguments = [sys.executable, "-W", "ignore", "-c", ASK, str(head.port), str(head.client_port), head.token]
    shown = subprocess.run(arguments, capture_output=True, text=True, timeout=200, check=False)
    assert shown.returncode == 0, shown.stderr
    refused = ["UNAUTHENTICATED UNAUTHENTICATED UNAUTHENTICATED"] * 2
    assert shown.stdout.splitlines() == [*refused, "OK OK OK"]


def test_the_token_is_named_by_its_file_and_random(head: Head) -> None:
    """Ray's own advisory that token authentication is off by default: `up` always turns it on, and the token stands
    neither in the environment nor in a command line."""
    environment = ray_head.environment(Path("/state/secrets/ray-token"))
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", "/state/secrets/ray-token")
    assert "RAY_AUTH_TOKEN" not in environment
    assert len(head.token) == 2 * len(secrets.token_bytes(32))
    seen = []
    for process in (head.process, *head.process.children(recursive=True)):
        with suppress(psutil.Error):
            seen.append(" ".join(process.cmdline()) + " ".join(process.environ().values()))
    assert len(seen) > 1
    assert not any(head.token in what for what in seen)
