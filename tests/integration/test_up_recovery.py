"""`cotenant up` on bad days: what breaks is named, its neighbours go on, and it comes back by itself."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.builders.engine import make_tiny_llama
from tests.builders.load import Load, echo_chats
from tests.builders.up import Up, echo, key_of, keys, kill, model, pool, tenant, until

from cotenant_serving.engine.echo import verify

pytestmark = pytest.mark.integration

CPU = {"name": "cpu", "device": "cpu", "memory": "6Gi"}
RATE_PER_S = 20.0
CUDA = {"name": "cuda", "device": "cuda", "memory": "80Gi"}


def documents(*models: dict) -> list[dict]:
    return [pool(CPU, CUDA), tenant("search"), keys("search"), *models]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One good model and copies of it, each broken in another way."""
    top = tmp_path_factory.mktemp("models")
    made = {"good": make_tiny_llama(top / "good", seed=1)}
    for name in ("truncated", "pickled", "scripted", "strange", "tokenless"):
        made[name] = shutil.copytree(made["good"], top / name)
    weights = made["truncated"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (made["pickled"] / "model.safetensors").rename(made["pickled"] / "pytorch_model.bin")
    edit_config(made["scripted"], auto_map={"AutoModelForCausalLM": "modeling_x.X"})
    edit_config(made["strange"], architectures=["WhisperForConditionalGeneration"], model_type="whisper")
    (made["tokenless"] / "tokenizer.json").write_text("{}")
    made["later"] = top / "later"
    return made


@pytest.fixture(scope="module")
def base(folders: dict[str, Path]) -> list[dict]:
    """The models of the shared `up`: each test has some of its own."""
    names = ("truncated", "pickled", "scripted", "strange", "tokenless", "later")
    return [
        *(model(name, model=f"file://{folders[name]}") for name in names),
        echo("huge", gpu={"memory": "100Gi"}),
        echo("cuda", gpu={"memory": "20Gi"}),
        echo("fine"),
        echo("greedy", gpu={"memory": "256Mi"}, tokensPerSecond=20),
        echo("neighbour", tokensPerSecond=40),
        echo("warm", replicas={"min": 1}),
        echo("cold"),
    ]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, base: list[dict]) -> Iterator[Up]:
    models = documents(*base, echo("app", concurrency=8))
    running = Up(tmp_path_factory.mktemp("up"), *models, options=("--gateway-workers", "2")).start()
    yield running
    running.stop()


def traffic_on(up: Up, name: str, folder: Path) -> Load:
    scenario = echo_chats(up.url, "search", [name], rate_per_s=RATE_PER_S, seed=1)
    return Load(scenario, {"search": key_of("search")}, folder)


def test_models_that_cannot_load_are_named_while_others_serve_and_come_back_by_themselves(up, folders):
    expected = {
        "search/truncated": "CorruptWeights",
        "search/pickled": "UnsafeFiles",
        "search/scripted": "UnsafeFiles",
        "search/strange": "UnsupportedArchitecture",
        "search/later": "ModelNotFound",
        "search/huge": "DoesNotFit",
        "search/cuda": "NoCudaDevice",
    }
    assert verify(up.text("search", "fine", "hello"))
    if not has_cuda():
        assert {m.model: m.reason for m in up.status().models if m.state == "failed"} == expected
    status, answer = up.chat("search", "truncated", "hello")
    assert (status, answer["error"]["code"]) == (503, "model_failed")
    assert "CorruptWeights: its weights are damaged." in answer["error"]["message"]
    assert "bytes" in up.model("search/truncated").message
    shutil.copytree(folders["good"], folders["later"])
    until(lambda: up.chat("search", "later", "hi", max_tokens=3)[0] == 200, "it is back")


def test_weights_that_break_only_at_load_time_name_the_cause_and_come_back(up, folders):
    """Headers are fine, so the plan accepts it; the engine finds a tokenizer that is no tokenizer."""
    threading.Thread(target=up.chat, args=("search", "tokenless", "hi")).start()
    failed = up.wait_for("search/tokenless", "failed")
    assert failed.reason == "LoadFailed"
    assert failed.retry_in_s is not None
    assert verify(up.text("search", "fine", "hello"))
    shutil.copy(folders["good"] / "tokenizer.json", folders["tokenless"])
    until(lambda: up.chat("search", "tokenless", "hi", max_tokens=3)[0] == 200, "it serves")


def test_a_new_revision_whose_engine_fails_leaves_the_old_engine_serving(up, base, folders):
    up.text("search", "tokenless", "hi", max_tokens=3)
    first = up.engine("search/tokenless")
    broken = shutil.copytree(folders["good"], folders["good"].with_name("broken"))
    (broken / "tokenizer.json").write_text("{}")
    others = [one for one in base if one["metadata"]["name"] != "tokenless"]
    up.write(*documents(*others, echo("app", concurrency=8), model("tokenless", model=f"file://{broken}")))
    up.text("search", "tokenless", "hi", max_tokens=3)
    until(lambda: "LoadFailed" in up.model("search/tokenless").message, "the failure of the new one is told")
    assert up.text("search", "tokenless", "hi", max_tokens=3) is not None
    assert up.engine("search/tokenless").pid == first.pid
    up.write(*documents(*base, echo("app", concurrency=8)))


def test_an_engine_over_its_share_is_ended_and_named_and_its_neighbour_does_not_notice(up):
    up.text("search", "greedy", "hello")
    results = []
    reading = threading.Thread(target=lambda: results.append(up.stream("search", "neighbour", "word " * 300)))
    reading.start()
    up.wait_for("search/neighbour", "ready")
    pid = up.engine("search/neighbour").pid
    breaking = up.stream("search", "greedy", "!allocate 600000000", max_tokens=600)
    assert not breaking.done
    assert breaking.error is not None
    failed = up.wait_for("search/greedy", "failed")
    assert failed.reason == "MemoryExceeded"
    assert "256" in failed.message
    reading.join()
    assert results[0].done
    assert verify(results[0].text)
    assert up.engine("search/neighbour").pid == pid
    until(lambda: up.chat("search", "greedy", "hello")[0] == 200, "it is back within its share")


def test_a_killed_conductor_restarts_nothing_and_wakes_nothing(up, tmp_path):
    up.wait_for("search/warm", "ready")
    before = up.engine("search/warm")
    with traffic_on(up, "warm", tmp_path) as traffic:
        for _ in range(3):
            old = up.child("cotenant_serving.conductor")
            kill(old.pid)
            until(lambda old=old: restarted(up, old.pid), "the conductor is back")
            up.wait_for("search/warm", "ready")
        until(lambda: traffic.succeeded > 10, "more than 10 answers are there")
    assert traffic.wrong("ok") == []
    assert up.engine("search/warm").pid == before.pid
    assert up.model("search/cold").state == "cold"


def test_a_new_revision_that_cannot_load_leaves_the_old_one_and_a_good_one_replaces_it(up, base, tmp_path):
    up.text("search", "app", "wake up")
    first = up.engine("search/app")
    with traffic_on(up, "app", tmp_path) as traffic:
        up.write(*documents(*base, echo("app", concurrency=8, allocate="500Mi", gpu={"memory": "300Mi"})))
        until(lambda: "the earlier revision serves" in up.model("search/app").message, "the bad revision is told")
        assert up.engine("search/app").pid == first.pid
        up.write(*documents(*base, echo("app", concurrency=9)))
        until(lambda: replaced(up, "search/app", first.pid), "the good revision serves")
        until(lambda: traffic.succeeded > 10, "more than 10 answers are there")
    assert traffic.wrong("ok") == []


def test_a_port_in_use_and_a_bad_file_are_told_at_once(up, tmp_path):
    command = [sys.executable, "-m", "cotenant_operator", "up", "-f"]
    other = ["--state", str(tmp_path / "other"), "--port", str(up.port)]
    busy = subprocess.run([*command, str(up.file), *other], capture_output=True, text=True, timeout=60, check=False)
    assert busy.returncode == 2
    assert f":{up.port} cannot be used: another program has it" in busy.stderr
    other[-1] = "0"
    missing = subprocess.run(
        [*command, "nowhere.yaml", *other], capture_output=True, text=True, timeout=60, check=False
    )
    assert missing.returncode == 2
    assert "nowhere.yaml" in missing.stderr


def test_requests_get_503_with_a_reason_while_rays_head_is_gone_and_up_restores_it(up):
    up.wait_for("search/warm", "ready")
    gateway = up.child("cotenant_serving.gateway")
    workers = {worker.pid for worker in gateway.children()}
    kill(next(process.pid for process in up.processes() if process.name() == "gcs_server"))
    until(lambda: "Ray's head is gone" in up.said(), "up says so")
    answers = []

    def served() -> bool:
        answers.append(up.chat("search", "warm", "hello"))
        return answers[-1][0] == 200

    until(served, "it serves again")
    assert {status for status, _ in answers} <= {200, 503}
    assert all(answer["error"]["message"] for status, answer in answers if status == 503)
    assert up.child("cotenant_serving.gateway").pid == gateway.pid
    assert {worker.pid for worker in gateway.children()} == workers
    assert len(workers) == 2


def test_after_a_kill_9_the_next_up_serves_and_ctrl_c_lets_streams_finish_and_ends_all_it_started(tmp_path):
    up = Up(tmp_path, *documents(echo("app", tokensPerSecond=40))).start()
    up.text("search", "app", "hello")
    up.stop(signal.SIGKILL)
    up.log.unlink()
    up.start()
    up.text("search", "app", "wake up again")
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    results = []
    reading = threading.Thread(target=lambda: results.append(up.stream("search", "app", "word " * 300)))
    reading.start()
    until(lambda: up.engine("search/app").running == 1, "the stream runs")
    engine, mine = up.engine("search/app").pid, up.processes()
    assert up.stop(signal.SIGINT) == 0
    reading.join()
    assert results[0].done
    assert verify(results[0].text)
    assert up.processes() == []
    assert not [process for process in mine if process.is_running()]
    assert not psutil.pid_exists(engine)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def has_cuda() -> bool:
    from cotenant_operator.machine import cuda_memories

    return bool(cuda_memories()[0])


def restarted(up: Up, old: int) -> bool:
    try:
        return up.child("cotenant_serving.conductor").pid != old and bool(up.status().models)
    except Exception:
        time.sleep(0.1)
        return False


def replaced(up: Up, name: str, old: int) -> bool:
    engines = [engine for engine in up.model(name).engines if engine.state != "deleting"]
    return [engine.state for engine in engines] == ["ready"] and engines[0].pid != old
