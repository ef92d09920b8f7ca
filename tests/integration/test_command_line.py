"""The command line beside a real `cotenant up`: what people look at, and how they call models from it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.builders.pages import answering_with, page
from tests.builders.terminal import Terminal
from tests.builders.text_models import make_bert
from tests.builders.up import Up, echo, key_of, keys, model, pool, tenant, until

import cotenant_serving
from cotenant_operator.key_book import KeyBook
from cotenant_serving.engine.echo import verify

pytestmark = pytest.mark.integration

COTENANT = [sys.executable, "-m", "cotenant_operator"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def run(up: Up, *arguments: str, stdin: str | None = None) -> Ran:
    done = subprocess.run(
        [*COTENANT, *arguments, "--state", str(up.state)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """On a terminal, with an echo model for each purpose and one model that cannot be loaded."""
    folder = tmp_path_factory.mktemp("up")
    broken = folder / "broken"
    shutil.copytree(str(resources.files(cotenant_serving) / "demo_models" / "chat"), broken)
    (broken / "tokenizer.json").unlink()
    running = Up(
        folder,
        pool(),
        echo("quick"),
        echo("lazy", namespace="ads", loadSeconds=3),
        echo("slow", namespace="ads", tokensPerSecond=20, tenants=["ads", "search"]),
        model("vectors", model=f"file://{make_bert(folder / 'bert')}", task="embed", gpu={"memory": "1536Mi"}),
        model("broken", model=f"file://{broken}", task="generate", gpu={"memory": "1536Mi"}),
        tenant("search", accepts=[{"namespace": "ads", "models": ["slow"]}]),
        tenant("ads", keys=[]),
        keys("search"),
        options=("--gateway-workers", "2"),  # so that a new key must be known to more than one process
    ).start(terminal=True)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def failed(up: Up) -> None:
    """The broken model was asked for, and has failed."""
    up.chat("search", "broken", "hi")
    up.wait_for("search/broken", "failed")


def status_of(up: Up, key: str) -> int:
    request = urllib.request.Request(f"{up.url}/v1/models", headers={"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def files_with(up: Up, text: str) -> list[Path]:
    return [path for path in up.folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def command_lines() -> str:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(" ".join([*process.cmdline(), *process.environ().values()]))
        except (psutil.Error, OSError):
            continue
    return "\n".join(lines)


def test_a_failed_model_is_explained_once_and_its_log_has_stages_and_traceback(up: Up, failed: None) -> None:
    explained = run(up, "explain", "model", "broken")
    assert explained.code == 0
    assert explained.out.count("FileMissing") == explained.out.count("tokenizer.json is missing") == 1
    assert "cotenant logs search/broken" in explained.out

    document = run(up, "explain", "model", "broken", "-o", "json").json()
    assert {item["type"]: item["status"] for item in document["conditions"]}["Ready"] == "False"

    logs = run(up, "logs", "broken")
    assert logs.code == 0
    assert "INFO starting search.broken-" in logs.out
    assert "INFO loading: checking files" in logs.out
    assert "Traceback (most recent call last)" in logs.out
    assert "failed: FileMissing" in logs.err


def test_logs_follow_an_engine_over_its_violent_end_and_have_the_words_of_c_code(up: Up, tmp_path: Path) -> None:
    seen = tmp_path / "followed"
    with seen.open("wb") as output:
        command = [*COTENANT, "logs", "quick", "-f", "--state", str(up.state)]
        following = subprocess.Popen(command, stdout=output, stderr=output)
    until(lambda: "waiting for one" in seen.read_text(), "it waits for an engine", explain=seen.read_text)
    up.text("search", "quick", "wake up")
    until(lambda: "INFO ready after" in seen.read_text(), "the start is shown", explain=seen.read_text)

    os.kill(up.engine("search/quick").pid, signal.SIGABRT)

    until(lambda: "Fatal Python error: Aborted" in seen.read_text(), "the abort is shown", explain=seen.read_text)
    until(lambda: seen.read_text().count("INFO ready after") == 2, "the next start is shown", explain=seen.read_text)
    following.send_signal(signal.SIGINT)
    assert following.wait(30) == 130
    assert "Fatal Python error" in run(up, "logs", "quick", "--previous").out
    assert "Fatal Python error" not in run(up, "logs", "quick").out
    assert run(up, "logs", "quick", "--tail", "1").out.count("\n") == 1


def test_an_unknown_model_gets_the_nearest_name(up: Up) -> None:
    for command in (("logs",), ("explain", "model"), ("chat", "-m", "x")):
        ran = run(up, *command, "quikc")
        assert ran.code == 1
        assert "did you mean 'search/quick'?" in ran.err


def test_a_created_key_works_at_once_stands_nowhere_and_ends_when_it_is_revoked(up: Up) -> None:
    assert run(up, "get", "tenants", "-o", "json").json()[0]["keys"] == 0
    created = run(up, "key", "create", "ads")
    key = created.out.strip()
    assert created.code == 0
    assert status_of(up, key) == 200
    assert run(up, "get", "tenants", "-o", "json").json()[0]["keys"] == 1
    assert files_with(up, key) == []
    assert key not in command_lines()

    (listed,) = run(up, "key", "list", "ads", "-o", "json").json()
    assert run(up, "key", "revoke", listed["id"]).code == 0
    until(lambda: status_of(up, key) == 401, "the key is refused")


def test_a_key_is_revoked_while_a_file_has_a_mistake(up: Up) -> None:
    key = run(up, "key", "create", "ads").out.strip()
    good = up.file.read_text()
    up.file.write_text("kind: [")
    try:
        until(lambda: "the edit is not applied" in up.said(), "the mistake is told", explain=up.said)
        (listed,) = run(up, "key", "list", "ads", "-o", "json").json()
        assert run(up, "key", "revoke", listed["id"]).code == 0
        until(lambda: status_of(up, key) == 401, "the key is refused")
    finally:
        up.file.write_text(good)


def test_a_key_of_a_file_cannot_be_revoked_and_its_place_is_named(up: Up) -> None:
    (listed,) = run(up, "key", "list", "search", "-o", "json").json()
    assert listed["source"] == "Secret keys, search"

    ran = run(up, "key", "revoke", listed["id"])
    assert ran.code == 1
    assert f"at {up.file}:" in ran.err
    assert status_of(up, key_of("search")) == 200


def test_chat_needs_no_key_on_the_machine_of_up_and_leaves_none(up: Up) -> None:
    ran = run(up, "chat", "quick", "-m", "one two three")
    assert ran.code == 0, ran.err
    assert verify(ran.out.rstrip("\n"))
    assert KeyBook(up.state).read() == ()

    piped = run(up, "chat", "quick", "-o", "json", stdin="from a pipe")
    assert piped.json()["choices"][0]["message"]["content"].startswith("from a pipe")


def test_texts_become_vectors_from_arguments_and_from_a_pipe(up: Up) -> None:
    table = run(up, "embed", "vectors", "the cat sat", "stocks fell", "the cat sat", "-o", "wide")
    assert table.code == 0, table.err
    assert "search/vectors: " in table.err  # how it wakes
    cosines = [re.split(r" {2,}", line)[-2] for line in table.out.splitlines()[1:]]
    assert cosines[0] == cosines[2] == "1.0000" > cosines[1]

    document = run(up, "embed", "vectors", "-o", "json", stdin="the cat sat\nstocks fell\n").json()
    assert [item["text"] for item in document["data"]] == ["the cat sat", "stocks fell"]
    assert {len(item["embedding"]) for item in document["data"]} == {32}
    assert document["usage"]["prompt_tokens"] > 0
    assert KeyBook(up.state).read() == ()


def test_a_task_that_a_model_does_not_have_is_refused_with_the_gateways_words(up: Up) -> None:
    ran = run(up, "embed", "quick", "text")
    assert ran.code == 1
    assert "search/quick" in ran.err


def test_who_calls_must_be_said_when_several_see_the_model(up: Up) -> None:
    assert "say which one calls with --tenant" in run(up, "chat", "slow", "-m", "x").err
    assert run(up, "chat", "slow", "-m", "x", "--tenant", "ads").code == 0


def test_a_conversation_on_a_terminal_shows_the_wake_streams_stops_and_ends(up: Up, tmp_path: Path) -> None:
    talk = Terminal([*COTENANT, "chat", "lazy", "--state", str(up.state)], tmp_path / "screen")
    until(lambda: "in the name of tenant ads" in talk.shown(), "it asks", explain=talk.shown)
    talk.type("hello there\r")
    until(lambda: "ads/lazy: pretending to load" in talk.shown(), "the wake has a bar", explain=talk.shown)
    until(lambda: "hello there [crc32=" in talk.shown(), "the answer came", explain=talk.shown)
    (key,) = KeyBook(up.state).read()
    assert (key.tenant, key.made_by) == ("ads", "cotenant chat")
    talk.type("\x04")
    assert talk.wait() == 0
    assert KeyBook(up.state).read() == ()
    assert "━" in talk.shown()
    assert "\x1b[" in talk.shown()


def test_ctrl_c_stops_an_answer_and_frees_its_slot(up: Up, tmp_path: Path) -> None:
    command = [*COTENANT, "chat", "slow", "--tenant", "ads", "--state", str(up.state)]
    talk = Terminal(command, tmp_path / "screen", NO_COLOR="1")
    until(lambda: "> " in talk.shown(), "it asks", explain=talk.shown)
    talk.type(" ".join(f"w{number}" for number in range(300)) + "\r")
    until(lambda: talk.shown().count("w5 ") >= 2, "it answers", explain=talk.shown)
    talk.type("\x03")
    until(lambda: "stopped" in talk.shown(), "the answer is stopped", explain=talk.shown)
    until(lambda: up.model("ads/slow").running == 0, "the slot is free")
    talk.type("\x03")
    assert talk.wait() == 130
    assert KeyBook(up.state).read() == ()


def test_up_shows_bars_for_what_wakes_on_a_terminal(up: Up) -> None:
    up.text("search", "quick", "x")
    until(lambda: "up: Ray, conductor and gateway start" in up.said(), "the start had a bar", explain=up.said)
    assert "━" in up.said()


def test_usage_is_summed_up_as_it_was_written(up: Up) -> None:
    def read_between_writes() -> tuple[list[Any], Any] | None:
        """A line is written up to 0.02 s after its answer: in which case it is summed up again."""
        lines = up.usage()
        document = run(up, "usage", "--by", "tenant,model", "-o", "json").json()
        return (lines, document) if lines == up.usage() and len(lines) > before else None

    before = len(up.usage())
    up.text("search", "quick", "count me")
    lines, document = until(read_between_writes, "usage is written")
    records = [record for record in lines if record["tenant"] == "search"]
    summed = [row for row in document["rows"] if row["tenant"] == "search"]
    assert sum(row["requests"] for row in summed) == len(records)
    assert sum(row["completion_tokens"] for row in summed) == sum(record["completion_tokens"] for record in records)
    assert run(up, "usage", "--since", "1h").out.startswith("TENANT")


def test_doctor_judges_this_machine_and_sees_the_up_that_runs(up: Up) -> None:
    ran = run(up, "doctor", "-o", "json", "--port", str(up.port))
    findings = {finding["check"]: finding for finding in ran.json()["findings"]}
    assert up.process is not None
    assert findings["up"]["message"] == f"runs as process {up.process.pid}"
    assert findings["gateway port"]["level"] == findings["state directory"]["level"] == "ok"
    assert findings["packages: gateway"]["level"] == "ok"
    assert ran.code == (1 if ran.json()["problems"] else 0)
    assert run(up, "doctor").out.startswith("STATUS")


def scenario(up: Up, **fields: Any) -> Path:
    """A load test of a minute that says neither where to nor with which key."""
    stream = {
        "name": "chat",
        "tenant": "search",
        "model": "search/quick",
        "arrivals": {"process": "constant", "rate_per_s": 10},
        "prompt": {"tokens": 5},
        "output": {"tokens": 5},
        "check": "echo",
        **fields,
    }
    file = up.folder / "load.yaml"
    file.write_text(json.dumps({"name": "load", "duration_s": 60, "streams": [stream]}))
    return file


def test_a_load_test_loads_this_up_with_keys_of_its_own_and_ctrl_c_leaves_none(up: Up, tmp_path: Path) -> None:
    command = [*COTENANT, "loadtest", "--state", str(up.state), "run", str(scenario(up)), "--out", str(tmp_path)]
    loading = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: any(file.stat().st_size for file in tmp_path.glob("run-*/*.records")), "answers have come")
    (key,) = KeyBook(up.state).read()
    assert (key.tenant, key.made_by) == ("search", "cotenant loadtest")

    loading.send_signal(signal.SIGINT)
    out, said = loading.communicate(timeout=30)

    assert loading.returncode == 130, said
    assert f"load against {up.url}: " in out
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["interrupted"]
    assert results["total"]["succeeded"] == results["total"]["scheduled"] > 0
    assert KeyBook(up.state).read() == ()


def test_a_load_test_for_a_tenant_that_up_does_not_have_sends_nothing(up: Up, tmp_path: Path) -> None:
    ran = run_loadtest(up, "run", str(scenario(up, tenant="serch")), "--out", str(tmp_path))

    assert (ran.code, ran.out) == (3, "")
    assert "there is no tenant 'serch'; did you mean 'search'?" in ran.err
    assert "tenants.serch.key" in ran.err


def test_another_target_gets_no_key_of_this_machine(up: Up, tmp_path: Path) -> None:
    with answering_with(lambda number: page("{}", "401 Unauthorized", "connection: close")) as elsewhere:
        options = ["--out", str(tmp_path), "--set", "duration_s=0.5", "--url", elsewhere.url]
        ran = run_loadtest(up, "run", str(scenario(up)), *options)

    requests = [head.lower() for head in elsewhere.asked if head.startswith(b"POST ")]
    assert requests
    assert not [head for head in requests if b"authorization" in head]
    assert "401 for tenant search" in ran.err
    assert ran.code in (0, 2)  # valid or, on a busy machine, not


def run_loadtest(up: Up, *arguments: str) -> Ran:
    command = [*COTENANT, "loadtest", "--state", str(up.state), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)


def test_after_up_has_ended_logs_keys_tenants_and_usage_are_still_there(up: Up, failed: None) -> None:
    created = run(up, "key", "create", "ads")
    up.stop()
    assert "FileMissing" in run(up, "logs", "broken").out
    assert [row["tenant"] for row in run(up, "key", "list", "-o", "json").json()] == ["ads", "search"]
    assert run(up, "get", "tenants").out.startswith("TENANT")
    assert run(up, "usage", "-o", "json").json()["total"]["requests"] > 0
    (listed,) = run(up, "key", "list", "ads", "-o", "json").json()
    assert run(up, "key", "revoke", listed["id"]).code == 0
    assert run(up, "key", "list", "ads", "-o", "json").json() == []
    assert created.out.strip() not in up.said()
    ran = run(up, "get", "models")
    assert ran.code == 1
    assert "nothing runs on the state directory" in ran.err
