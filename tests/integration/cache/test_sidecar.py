"""The weight cache as a program beside engines: its API, leases that last as long as connections, preload, peers."""

import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.cache_nodes import DEADLINE_S, TOKEN, CacheNodes, CacheProgram
from tests.builders.cached_models import model_files, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.client import open_checked
from cotenant_cache.errors import ModelNotFoundError, VolumeError

pytestmark = pytest.mark.integration


def until(true: Callable[[], object], what: str = "it does not come") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def preload(program_folder: Path, *sources: str, **priorities: int) -> Path:
    path = program_folder / "preload.json"
    items = [{"source": source, "priority": priorities.get(source, 0)} for source in sources]
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps({"items": items}))
    partial.replace(path)
    return path


def whole(program: CacheProgram) -> set[str]:
    return {repo for repo, one in program.models().items() if one["present_bytes"] >= one["size_bytes"]}


def leases(program: CacheProgram, repo: str) -> int:
    return int(program.models()[repo].get("leases", 0))


def test_an_engine_gets_a_model_through_the_socket_and_keeps_it_while_it_is_open(
    hub: FakeHub, nodes: CacheNodes
) -> None:
    commit = hub.put("org/a", model_files())
    program = nodes.start()
    seen: list[tuple[int, int]] = []
    opened = open_checked(
        "hf://org/a", "", lambda done, total: seen.append((done, total)), lease="engine-1", socket=program.socket
    )
    assert opened.folder == program.root / "models--org--a" / "snapshots" / commit
    assert opened.immutable
    assert opened.facts.files[0].size_bytes == (opened.folder / "model.safetensors").stat().st_size
    assert seen[-1][0] == seen[-1][1] > 0
    assert leases(program, "org/a") == 1
    status, said = program.post("/v1/evict", {"sources": ["hf://org/a"], "yes": True})
    assert (status, b"in use" in said) == (200, True), said
    assert "org/a" in program.models()
    opened.close()
    until(lambda: leases(program, "org/a") == 0)
    assert program.post("/v1/evict", {"sources": ["hf://org/a"], "yes": True})[0] == 200
    assert program.models() == {}


def test_a_lease_is_taken_again_when_its_instance_was_killed_and_comes_back(hub: FakeHub, nodes: CacheNodes) -> None:
    hub.put("org/a", model_files())
    program = nodes.start()
    opened = open_checked("hf://org/a", "", lease="engine-1", socket=program.socket)
    program.stop(signal.SIGKILL)
    program.start()
    until(lambda: leases(program, "org/a") == 1, "the engine did not ask again")
    opened.close()
    until(lambda: leases(program, "org/a") == 0)


def test_what_cannot_be_had_is_the_same_error_as_without_an_instance_between(hub: FakeHub, nodes: CacheNodes) -> None:
    program = nodes.start()
    with pytest.raises(ModelNotFoundError, match="no model org/missing"):
        open_checked("hf://org/missing", "", socket=program.socket)


def test_who_leaves_does_not_stop_the_fetch_that_others_wait_for(hub: FakeHub, nodes: CacheNodes) -> None:
    hub.put("org/a", model_files(3_000_000))
    program = nodes.start("--rate", "1M")
    first = program.lines("/v1/ensure", {"source": "hf://org/a"})
    assert next(first)["phase"] in ("waiting", "resolving", "making room", "fetching")
    program.kept.pop().close()
    *_, last = program.lines("/v1/ensure", {"source": "hf://org/a"})
    assert last["phase"] == "done"
    assert hub.sent["org/a", "model.safetensors"] == len(model_files(3_000_000)["model.safetensors"])


def test_the_network_needs_the_pools_token_and_nothing_else_opens_anything(hub: FakeHub, nodes: CacheNodes) -> None:
    program = nodes.start()
    for verb, path in (
        ("GET", "/v1/models"),
        ("GET", "/v1/blob?repo=org/a&digest=" + "0" * 64),
        ("GET", "/v1/listing"),
    ):
        assert program._call(verb, path, b"", "", {})[0] == 401
        assert program._call(verb, path, b"", TOKEN + "x", {})[0] == 401
    for path in ("/v1/ensure", "/v1/leases", "/v1/evict"):
        assert program.post(path, {}, token="wrong")[0] == 401
    assert program.get("/healthz", token="") == (200, b'{"status":"ok"}')
    assert b"cotenant_cache_budget_bytes" in program.get("/metrics", token="")[1]
    assert TOKEN not in program.log


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/ensure", b"{", "the body is not what /v1/ensure takes"),
        ("/v1/ensure", {"lease": "x"}, "source"),
        ("/v1/ensure", {"source": "hf://org/a", "lease": "x" * 500}, "lease has 500 characters"),
        ("/v1/leases", {"source": "hf://org/a", "holder": ""}, "holder is empty"),
        ("/v1/leases", {"source": "hf://org/a", "holder": "me"}, "is not on"),
        ("/v1/leases", {"source": "ftp://x", "holder": "me"}, "is no source of a model"),
        ("/v1/evict", {}, "sources and bytes are both empty"),
        ("/v1/evict", {"bytes": -1}, "bytes is -1"),
        ("/v1/evict", {"sources": ["hf://org/../x"]}, "is no source of a model"),
    ],
)
def test_bad_input_is_told_what_is_wrong(nodes: CacheNodes, path: str, body: object, said: str) -> None:
    program = nodes.start()
    status, answer = program.post(path, body)
    assert 400 <= status < 500
    assert said in json.loads(answer)["error"]


def test_blobs_are_given_in_parts_and_only_those_that_are_whole_and_verified(hub: FakeHub, nodes: CacheNodes) -> None:
    files = model_files()
    commit = hub.put("org/a", files)
    program = nodes.start()
    assert list(program.lines("/v1/ensure", {"source": "hf://org/a"}))[-1]["phase"] == "done"
    _, body = program.get(f"/v1/listing?repo=org/a&commit={commit}")
    listed = {file["name"]: file for file in json.loads(body)}
    assert set(listed) == set(files)
    path = f"/v1/blob?repo=org/a&digest={listed['model.safetensors']['digest']}"
    whole = files["model.safetensors"]
    assert program.get(path) == (200, whole)
    assert program.get(path, headers={"range": "bytes=1000-1999"}) == (206, whole[1000:2000])
    assert program.get(path, headers={"range": f"bytes={len(whole) - 5}-"}) == (206, whole[-5:])
    assert program.get(path, headers={"range": f"bytes={len(whole)}-"})[0] == 416
    for bad in ("repo=../../etc&digest=passwd", "repo=org/a&digest=../../x", "repo=org/a&digest=" + "0" * 64):
        assert program.get(f"/v1/blob?{bad}")[0] in (400, 404)


def test_a_list_is_preloaded_and_a_broken_one_leaves_the_one_before_in_force(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        hub.put(f"org/{name}", model_files(seed=ord(name)))
    path = preload(tmp_path, "hf://org/a")
    program = nodes.start("--preload", str(path))
    until(lambda: "org/a" in program.models() and program.models()["org/a"].get("preload"))
    path.write_text("{broken")
    until(lambda: "the one before stays in force" in program.log)
    preload(tmp_path, "hf://org/a", "hf://org/b", "hf://org/none")
    until(lambda: {"org/a", "org/b"} <= set(program.models()))
    until(lambda: program.report().get("failed"))
    [failed] = program.report()["failed"]
    assert (failed["source"], failed["reason"]) == ("hf://org/none", "ModelNotFound")
    preload(tmp_path, "hf://org/a")
    until(lambda: not program.report().get("failed"))


def test_preloaded_models_do_not_drive_each_other_out_but_make_way_for_what_is_needed_now(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    sources = {  # by their commits, as an operator lists them: the ledger knows them before the first one is fetched
        f"org/{name}": f"hf://org/{name}@{hub.put(f'org/{name}', model_files(1_000_000, seed=ord(name)))}"
        for name in ("a", "b", "c")
    }
    program = nodes.start("--budget", "2500k", "--preload", str(preload(tmp_path, *sources.values())))
    until(lambda: len(whole(program)) == 2 and program.report().get("failed"))
    [failed] = program.report()["failed"]
    assert failed["reason"] == "CacheFull"
    assert "of the budget of" in failed["message"]
    [missing] = sources.keys() - whole(program)
    assert list(program.lines("/v1/ensure", {"source": sources[missing]}))[-1]["phase"] == "done"
    assert missing in whole(program)


def test_a_preload_goes_on_when_the_hub_is_back(hub: FakeHub, nodes: CacheNodes, tmp_path: Path) -> None:
    hub.put("org/a", model_files())
    hub.down = True
    program = nodes.start("--preload", str(preload(tmp_path, "hf://org/a")))
    until(lambda: program.report().get("failed"))
    assert program.report()["failed"][0]["reason"] == "HubUnreachable"
    hub.heal()
    until(lambda: program.models().get("org/a", {}).get("verified"))
    until(lambda: not program.report().get("failed"))


def peers_of(folder: Path, *programs: CacheProgram) -> tuple[str, str]:
    path = folder / "peers"
    path.write_text("".join(f"{program.address}\n" for program in programs))
    return "--peers-file", str(path)


def test_a_node_gets_a_model_from_another_one_with_the_hub_switched_off(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    files = model_files(2_000_000)
    hub.put("org/a", files)
    first = nodes.start()
    assert list(first.lines("/v1/ensure", {"source": "hf://org/a"}))[-1]["phase"] == "done"
    hub.down = True
    second = nodes.start(*peers_of(tmp_path, first))
    last = list(second.lines("/v1/ensure", {"source": "hf://org/a"}))[-1]
    assert last["phase"] == "done", last
    assert (Path(last["folder"]) / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert b'cotenant_cache_fetched_bytes_total{from="peer"}' in second.get("/metrics")[1]


def test_a_peer_comes_before_the_hub(hub: FakeHub, nodes: CacheNodes, tmp_path: Path) -> None:
    hub.put("org/a", model_files(1_000_000))
    first = nodes.start()
    list(first.lines("/v1/ensure", {"source": "hf://org/a"}))
    sent = dict(hub.sent)
    second = nodes.start(*peers_of(tmp_path, first))
    assert list(second.lines("/v1/ensure", {"source": "hf://org/a"}))[-1]["phase"] == "done"
    assert hub.sent["org/a", "model.safetensors"] == sent["org/a", "model.safetensors"]


def test_a_lying_peer_is_left_and_nothing_of_it_becomes_visible(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    files = model_files(1_000_000)
    hub.put("org/a", files)
    liar = nodes.start("--verify-rate", "0")
    list(liar.lines("/v1/ensure", {"source": "hf://org/a"}))
    [blob] = [path for path in (liar.root / "models--org--a" / "blobs").iterdir() if path.stat().st_size > 500_000]
    content = bytearray(blob.read_bytes())
    content[700_000] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    honest = nodes.start(*peers_of(tmp_path, liar))
    last = list(honest.lines("/v1/ensure", {"source": "hf://org/a"}))[-1]
    assert last["phase"] == "done", last
    assert (Path(last["folder"]) / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert wrong_files(honest.root) == []
    assert "is left alone for 3600 s" in honest.log


def test_two_instances_of_one_volume_fetch_once_and_end_in_order(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    hub.put("org/a", model_files(1_000_000))
    root = tmp_path / "shared"
    root.mkdir()
    one, two = nodes.start(root=root), nodes.start(root=root)
    both = [program.lines("/v1/ensure", {"source": "hf://org/a"}) for program in (one, two)]
    assert [list(lines)[-1]["phase"] for lines in both] == ["done", "done"]
    assert hub.sent["org/a", "model.safetensors"] == len(model_files(1_000_000)["model.safetensors"])
    assert one.report()["usage"]["instances"] == 2
    assert (one.stop(), two.stop()) == (0, 0)


def test_a_volume_that_cannot_be_used_is_told_and_tried_again(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    """Alive meanwhile, so that the rest of its pod starts, and models that need no cache are served."""
    hub.put("org/a", model_files())
    root = tmp_path / "volume"
    root.mkdir()
    (root / ".cotenant").write_text("in the way")
    program = nodes.start(root=root)

    assert program.get("/healthz")[0] == 200
    status, body = program.get("/v1/models")
    assert status == 503
    assert b"VolumeUnusable: " in body
    assert program.get("/v1/models", token="")[0] == 401
    with pytest.raises(VolumeError, match=str(root)):
        open_checked("hf://org/a", "", lease="engine", socket=program.socket)

    (root / ".cotenant").unlink()
    until(lambda: program.get("/v1/models")[0] == 200, "the volume is opened")
    open_checked("hf://org/a", "", socket=program.socket)


def test_it_ends_when_it_is_told_to_also_while_it_waits_for_its_volume(tmp_path: Path) -> None:
    control = tmp_path / ".cotenant"
    control.mkdir()
    words = [sys.executable, "-m", "cotenant_serving.weight_cache", "--root", str(tmp_path)]
    with (control / "ledger.sqlite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen([*words, "--socket", str(tmp_path / "s")])
        try:
            until(lambda: any((control / "holders").glob("*")), "it waits for the lock")
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()


def test_a_socket_that_another_instance_listens_at_is_left_to_it(
    hub: FakeHub, nodes: CacheNodes, tmp_path: Path
) -> None:
    hub.put("org/a", model_files())
    first = nodes.start()
    words = [sys.executable, "-m", "cotenant_serving.weight_cache", "--root", str(tmp_path), "--socket", first.socket]
    second = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)

    assert second.returncode == 1
    assert f"another instance listens at {first.socket}; end it, or give this one another --socket" in second.stderr
    open_checked("hf://org/a", "", socket=first.socket)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    assert Path(first.socket).exists()
    first.start()  # a socket that nobody listens at any more is taken
    open_checked("hf://org/a", "", socket=first.socket)
