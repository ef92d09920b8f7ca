"""A day of requests, mistakes and edits with known keys; then every place where one could have stayed is searched."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.builders.up import API, Up, echo, key_of, keys, kill, pool, tenant, until

from cotenant_operator.ray_head import environment
from cotenant_operator.state_dir import TOKENS, StateDir

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

COTENANT = [sys.executable, "-m", "cotenant_operator"]
TENANTS = ("search", "ads", "late")
WRONG_KEY = "ct-canary-wrong-key-of-nobody-0123456789abcdef"
HUB_TOKEN = "hf_canaryTokenOfTheHub0123456789abcdef"
PROMPT = "canary-prompt-of-nobodys-business-93ab"
KEYS = (*map(key_of, TENANTS), WRONG_KEY, HUB_TOKEN)
ACCEPTS = [{"namespace": "search", "models": ["*"]}]
ASK_RAY = """
import json, sys
import ray
from ray import serve
from ray.experimental import internal_kv as kv
ray.init(address=sys.argv[1], log_to_driver=False)
print(serve.status())
names = [None, b"serve", b"default", b"session", b"fun", b"job", b"cluster", b"usage_stats", b"tracing"]
for space in names:
    for key in kv._internal_kv_list(b"", namespace=space):
        sys.stdout.buffer.write(b"\\nKV " + key + b" " + (kv._internal_kv_get(key, namespace=space) or b""))
        sys.stdout.flush()
for job in ray._private.state.jobs():
    print(job)
"""
"""Everything that Serve and Ray's GCS keep: apps, their checkpoints and arguments, jobs."""


class Day:
    """What happened, and what was answered: bodies and headers of every error, and what commands printed."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.answers: list[bytes] = []
        self.statuses: list[int] = []
        self.fields: dict[str, object] = {}
        """Further ones of every request's body."""

    def documents(self, *more: dict) -> list[dict]:
        models = [echo("app"), echo("huge", gpu={"memory": "900Gi"}), echo("slow", tokensPerSecond=20)]
        tenants = [tenant("search"), tenant("ads", accepts=ACCEPTS, limits={"requestsPerMinute": 1})]
        return [pool(), *models, *tenants, keys(*TENANTS), *more]

    def send(self, path: str = "/v1/chat/completions", *, method: str = "POST", model: str = "app", **headers) -> int:
        """One request; remembers status, headers and body of its answer. Header names are given with `_`."""
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": PROMPT}], **self.fields})
        connection = http.client.HTTPConnection("127.0.0.1", self.up.port, timeout=60)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"content-type": "application/json", **named})
            response = connection.getresponse()
            self.answers += [str(response.headers).encode(), response.read()]
        self.statuses.append(response.status)
        return response.status

    def command(self, *arguments: str) -> None:
        shown = subprocess.run([*COTENANT, *arguments], capture_output=True, timeout=60, check=False)
        self.answers += [shown.stdout, shown.stderr]


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    day = Day(Up(tmp_path_factory.mktemp("up")))
    day.up.write(*day.documents(tenant("late")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", HUB_TOKEN)
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        day.up.start()
        ask_the_hub(day)
    try:
        good_and_bad_requests(day)
        breakage(day)
        edits(day)
        yield day
    finally:
        day.up.stop()


def ask_the_hub(day: Day) -> None:
    """With the token, in vain."""
    file = day.up.folder / "hub.yaml"
    source = {"model": "hf://canary/model", "gpu": {"memory": "1Gi"}}
    model = {"apiVersion": API, "kind": "ModelDeployment", "metadata": {"name": "m", "namespace": "search"}}
    file.write_text(json.dumps({**model, "spec": source}) + "\n---\n" + json.dumps(pool()))
    day.command("plan", "-f", str(file))
    assert b"canary/model" in b"".join(day.answers[-2:])


def good_and_bad_requests(day: Day) -> None:
    good, bearer = key_of("search"), f"Bearer {key_of('search')}"
    assert day.send(authorization=bearer) == 200
    assert day.send(x_api_key=good) == 200
    assert day.send("/v1/models", method="GET", authorization=bearer) == 200
    assert day.send(authorization=bearer, model="huge") == 503
    assert day.send(authorization=bearer, model="nobody") == 404
    assert day.send("/v1/nowhere", authorization=bearer) == 404
    assert day.send(method="DELETE", authorization=bearer) == 405
    assert day.send(authorization=f"Bearer {WRONG_KEY}") == 401
    assert day.send(authorization=bearer, x_api_key=key_of("ads")) == 401
    assert day.send(authorization=f"Basic {good}") == 401
    assert day.send(cookie=f"key={good}", user_agent=good) == 401
    assert day.send(f"/v1/chat/completions?api_key={good}") == 401
    assert day.send(f"/v1/{good}", method="GET") == 404
    assert day.send(authorization=f"Bearer {key_of('late')}", model="app") == 404
    day.fields = {"logit_bias": {PROMPT: 1}}
    assert day.send(authorization=bearer) == 400
    day.fields = {"messages": [{"role": PROMPT, "content": PROMPT}], "n": PROMPT}
    assert day.send(authorization=bearer) == 400
    day.fields = {}
    day.send(authorization=f"Bearer {key_of('ads')}")
    assert day.send(authorization=f"Bearer {key_of('ads')}") == 404 or day.statuses[-1] == 429
    for garbage in (f"POST /v1 HTTP/1.1\r\nauthorization {bearer}\r\n\r\n", f"{good}\r\n\r\n"):
        day.answers.append(raw(day.up.port, garbage))


def raw(port: int, text: str) -> bytes:
    """What comes back for bytes that are not HTTP."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text.encode())
        return connection.recv(65536)


def breakage(day: Day) -> None:
    """An engine dies under a stream, a client leaves, the conductor and an engine hear a wrong token."""
    up = day.up
    with up.request("search", "slow", PROMPT + " word" * 200, stream=True) as response:
        response.readline()
        kill(up.engine("search/slow").pid)
        day.answers.append(response.read())
    with up.request("search", "slow", PROMPT + " word" * 200, stream=True) as response:
        response.readline()
    kill(up.child("cotenant_serving.conductor").pid)
    up.wait_for("search/app", "ready")
    table = json.loads((up.state / "gateway" / "table.json").read_text())
    for url in (*table, *(f"http://{row['host']}:{row['port']}" for row in rows(table))):
        day.answers.append(called(url, "/v1/desired", WRONG_KEY))
        day.answers.append(called(url, "/v1/chat/completions", key_of("search")))
    day.answers += [conductor(up, path, token) for path, token in PRIVATE_PAGES]


PRIVATE_PAGES = (("/v1/status", "control-token"), ("/v1/desired", "control-token"), ("/v1/table", "pool-token"))


def rows(table: dict) -> list[dict]:
    return [row for known in table.values() for row in known["latest"].get("engines", [])]


def conductor(up: Up, path: str, token: str) -> bytes:
    url = json.loads((up.state / "control.json").read_text())["conductor_url"]
    return called(url, path, (up.state / "secrets" / token).read_text())


def called(url: str, path: str, token: str) -> bytes:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"authorization": f"Bearer {token}"})
        return connection.getresponse().read()


def mistakes(good: str) -> dict[str, str]:
    """Files with a mistake in or beside their Secret: name → text."""
    key = key_of("search")
    head = good + "\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: more, namespace: cotenant-system}\n"
    secrets = {
        "unclosed": f'stringData: {{x: "{key}\n',
        "tab": f"stringData:\n\tx: {key}\n",
        "colon": f"stringData:\n  x: {key}: {key}\n",
        "text": f"stringData: {key}\n",
        "line": f"stringData:\n  x {key}\n",
        "list": f"stringData:\n  x: [{key}]\n",
        "twice": f"stringData:\n  x: {key}\n  x: {key}\n",
        "tag": f"stringData:\n  x: !{key}\n",
        "handle": f"stringData:\n  x: !{key}!{key} y\n",
        "alias": f"stringData:\n  x: *{key}\n",
        "anchor": f"stringData:\n  x: &{key} 1\n  y: &{key} 2\n  z: @{key}\n",
        "base64": f"data:\n  x: {key}\n",
        "dedent": f"stringData:\nx: {key}\n",
        "percent": f"stringData:\n  x: y\n---\n%{key}\n",
    }
    plain = "\n---\napiVersion: cotenant.dev/v1alpha1\nkind: Tenant\nmetadata: {name: more}\nspec: {keys: [KEY]}\n"
    found = {name: head + text for name, text in secrets.items()} | {"plain": good + plain.replace("KEY", key)}
    # Each at a line of its own: `up` tells the same message only once.
    return {name: "\n" * index + text for index, (name, text) in enumerate(found.items())}


def edits(day: Day) -> None:
    """Mistakes, told by `up` and by `plan`; then a tenant is taken away, and its key does not work any more."""
    up = day.up
    good = up.file.read_text()
    for name, text in mistakes(good).items():
        broken = up.folder / "mistakes" / f"{name}.yaml"
        broken.parent.mkdir(exist_ok=True)
        broken.write_text(text)
        day.command("plan", "-f", str(broken))
        assert b"mistakes/" in day.answers[-1].replace(b"\n", b""), f"{name} is no mistake: {day.answers[-2:]}"
        told = up.said().count("the edit is not applied")
        up.file.write_text(text)
        until(lambda told=told: up.said().count("the edit is not applied") > told, f"{name} is told", explain=up.said)
    up.write(*day.documents())
    until(lambda: day.send(authorization=f"Bearer {key_of('late')}") == 401, "the key is revoked")
    for kind in ("models", "pools", "tenants"):
        for form in ("table", "wide", "json", "yaml"):
            day.command("get", kind, "--state", str(up.state), "-o", form)
    day.command("explain", "model", "huge", "--state", str(up.state))
    day.command("plan", "-f", str(up.file))
    day.command("plan", "-f", str(up.file), "-o", "json")


def tokens(up: Up) -> dict[str, str]:
    return {name: (up.state / "secrets" / name).read_text() for name in TOKENS}


def secrets_in(data: bytes, up: Up) -> list[str]:
    """Which of the day's keys and tokens stand in the data, plainly or as base64."""
    found = []
    for secret in (*KEYS, *tokens(up).values()):
        # Without its last characters: base64 of a longer text that begins with the secret differs only there.
        encoded = base64.b64encode(secret.encode())[:-4]
        if secret.encode() in data or encoded in data:
            found.append(secret)
    return found


def files_below(*folders: Path) -> list[Path]:
    """Regular files; what vanishes meanwhile is not there."""
    return [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def holders(needle: str, *folders: Path) -> set[str]:
    found = set()
    for path in files_below(*folders):
        with contextlib.suppress(FileNotFoundError):
            if needle.encode() in path.read_bytes():
                found.add(path.name)
    return found


def written(up: Up) -> tuple[Path, ...]:
    return up.folder, StateDir(up.state).ray_temp


def test_keys_stand_in_the_users_files_only_and_their_hashes_in_the_gateways_configuration(day):
    yamls = {path.name for path in (day.up.file, *(day.up.folder / "mistakes").iterdir())}
    assert len(files_below(*written(day.up))) > 30
    for name in TENANTS:
        assert holders(key_of(name), *written(day.up)) == yamls
    assert holders(WRONG_KEY, *written(day.up)) == holders(HUB_TOKEN, *written(day.up)) == set()
    digests = {name: hashlib.sha256(key_of(name).encode()).hexdigest() for name in TENANTS}
    assert holders(digests["search"], *written(day.up)) == {"gateway.json"}
    assert holders(digests["late"], *written(day.up)) == set()


def test_no_file_holds_a_word_of_a_prompt_or_of_its_answer(day):
    assert any(PROMPT.encode() in answer for answer in day.answers)  # echo repeats it to its client
    assert holders(PROMPT, *written(day.up)) == set()


def test_no_file_holds_a_key_or_token_as_base64(day):
    own = {day.up.state / "secrets" / name for name in TOKENS}
    users = {day.up.file, *(day.up.folder / "mistakes").iterdir()}
    for path in files_below(*written(day.up)):
        with contextlib.suppress(FileNotFoundError):
            assert path in own | users or secrets_in(path.read_bytes(), day.up) == [], path


@pytest.mark.parametrize("name", TOKENS)
def test_a_token_stands_in_its_own_private_file_only(day, name):
    assert holders(tokens(day.up)[name], *written(day.up)) == {name}
    assert stat.S_IMODE((day.up.state / "secrets" / name).stat().st_mode) == 0o600


def test_nobody_else_on_the_machine_may_read_tokens_usage_or_logs(day):
    private = [day.up.state, StateDir(day.up.state).ray_temp.parent]
    private += [path for path in day.up.state.iterdir() if path.name != "lock"]
    private += [*(day.up.state / "secrets").iterdir(), *(day.up.state / "gateway").iterdir()]
    private += [path for path in (day.up.state / "logs").iterdir() if path.is_file()]
    open_to_others = {str(path) for path in private if path.stat().st_mode & 0o077}
    assert open_to_others == set()
    assert (day.up.state / "gateway" / "usage.jsonl") in private


def test_no_process_shows_a_key_or_token_in_its_command_line_or_environment(day):
    processes = [psutil.Process(day.up.process.pid), *day.up.processes()]
    assert len(processes) > 6
    for process in processes:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for name in ("cmdline", "environ"):
                data = Path(f"/proc/{process.pid}/{name}").read_bytes()
                # Whoever sets HF_TOKEN for `up` sets it for what that starts.
                found = set(secrets_in(data, day.up)) - ({HUB_TOKEN} if name == "environ" else set())
                assert found == set(), (name, process)
                assert PROMPT.encode() not in data


def test_no_answer_error_or_command_shows_a_key_or_token(day):
    assert len(day.answers) > 80
    assert {200, 401, 404, 405, 503} <= set(day.statuses)
    leaks = [(answer, secrets_in(answer, day.up)) for answer in day.answers if secrets_in(answer, day.up)]
    assert leaks == []


def test_metrics_name_no_key(day):
    connection = http.client.HTTPConnection("127.0.0.1", day.up.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read()
    assert b'cotenant_rejections_total{reason="invalid_api_key"' in text
    assert secrets_in(text, day.up) == []
    assert PROMPT.encode() not in text


def test_the_conductors_pages_name_no_key_or_token(day):
    pages = {path: conductor(day.up, path, token) for path, token in PRIVATE_PAGES}
    assert {path for path, page in pages.items() if b"search/app" not in page} == set(), pages
    assert {path: secrets_in(page, day.up) for path, page in pages.items()} == {path: [] for path in pages}


def test_ray_and_serve_keep_no_key_or_token(day):
    command = " ".join(day.up.child("cotenant_serving.conductor").cmdline())
    address = command.partition("--ray-address=")[2].split()[0]
    env = {**os.environ, **environment(day.up.state / "secrets" / "ray-token")}
    shown = subprocess.run(
        [sys.executable, "-c", ASK_RAY, address], capture_output=True, env=env, timeout=120, check=False
    )
    assert shown.returncode == 0, shown.stderr.decode()
    assert b"search.app-" in shown.stdout
    assert shown.stdout.count(b"\nKV ") > 5
    assert secrets_in(shown.stdout, day.up) == []
    assert PROMPT.encode() not in shown.stdout


def test_the_end_of_up_leaves_no_key_either(day):
    mine = tokens(day.up)
    assert day.up.stop() == 0
    for needle in (*KEYS, *mine.values()):
        assert {name for name in holders(needle, *written(day.up)) if not name.endswith(".yaml")} <= set(mine)
