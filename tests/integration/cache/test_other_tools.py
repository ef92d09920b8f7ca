"""The volume as other Hugging Face tools see it, and what they put there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files, put_by_hub_client, wrong_files
from tests.builders.fake_hub import FakeHub
from tests.builders.text_models import make_bert

pytestmark = pytest.mark.integration


def python(code: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hub_tools_see_what_the_cache_put_there(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> None:
    from huggingface_hub import scan_cache_dir, snapshot_download

    files = model_files(shards=2)
    commit = hub.put("org/a", files)
    old = hub.put("org/b", model_files(seed=1))
    calls = [["ensure", "hf://org/a"], ["ensure", f"hf://org/b@{old}"]]
    instances.run(tmp_path, *calls, ["evict", [f"hf://org/b@{old}"]])
    seen = scan_cache_dir(tmp_path)

    assert [str(warning).rpartition("/")[2] for warning in seen.warnings] == [
        ".cotenant"
    ]  # all that is no repository
    assert [repo.repo_id for repo in seen.repos] == ["org/a"]
    [repo] = seen.repos
    assert {revision.commit_hash: set(revision.refs) for revision in repo.revisions} == {commit: {"main"}}
    assert repo.size_on_disk == sum(len(content) for content in files.values())
    for revision in (None, commit):
        folder = snapshot_download("org/a", revision=revision, cache_dir=tmp_path, local_files_only=True)
        assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == files


def test_transformers_reads_it_offline(hub: FakeHub, instances: CacheProcesses, tmp_path: Path) -> None:
    made = make_bert(tmp_path / "made")
    hub.put("org/bert", {path.name: path.read_bytes() for path in made.iterdir()})
    instances.run(tmp_path / "cache", ["ensure", "hf://org/bert"])
    code = (
        "import json, transformers as t; m = t.AutoModel.from_pretrained('org/bert'); "
        "k = t.AutoTokenizer.from_pretrained('org/bert'); "
        "print(json.dumps([float(m(**k('abc', return_tensors='pt')).last_hidden_state.sum()), m.config.hidden_size]))"
    )
    offline = json.loads(python(code, HF_HUB_CACHE=str(tmp_path / "cache")).splitlines()[-1])
    direct = json.loads(python(code.replace("org/bert", str(made))).splitlines()[-1])
    assert offline == direct


def test_a_model_that_the_hub_client_put_there_is_checked_and_then_served_without_a_hub(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files()
    commit = hub.put("org/a", files)
    put_by_hub_client(hub.url, "org/a", tmp_path)
    hub.forget()
    hub.set_down(True)
    run = instances.run(tmp_path, ["models"], ["adopt"], ["models"], ["ensure", f"hf://org/a@{commit}", "engine"])

    before, after = (line["models"][0] for line in run.of("models"))
    assert (before["verified"], after["verified"]) == (False, True)
    assert run.of("adopt")[0]["adopted"] == [{"repo": "org/a", "commit": commit, "refusal": ""}]
    assert run.of("ensure")[0]["files"] == digests(files)
    assert hub.bytes_sent() == 0


def test_a_model_that_the_hub_client_put_there_half_is_completed(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files(shards=2)
    hub.put("org/a", files)
    folder = put_by_hub_client(hub.url, "org/a", tmp_path)
    lost = folder / "model-00002-of-00002.safetensors"
    lost.resolve().unlink()
    lost.unlink()
    hub.forget()
    run = instances.run(tmp_path, ["adopt"], ["ensure", "hf://org/a"])

    assert "model-00002-of-00002.safetensors" in run.of("adopt")[0]["adopted"][0]["refusal"]
    assert run.of("ensure")[0]["files"] == digests(files)
    assert hub.bytes_sent("org/a", "model-00001-of-00002.safetensors") == 0


def test_a_wrong_byte_that_the_hub_client_let_through_is_found_before_it_is_served(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files()
    commit = hub.put("org/a", files)
    blob = (put_by_hub_client(hub.url, "org/a", tmp_path) / "model.safetensors").resolve()
    blob.write_bytes(bytes(1000) + blob.read_bytes()[1000:])
    hub.set_down(True)
    offline = instances.run(tmp_path, ["adopt"], ["ensure", f"hf://org/a@{commit}"])
    assert (
        "model.safetensors is not there or not what its digest says"
        in offline.of("adopt")[0]["adopted"][0]["refusal"]
    )
    assert offline.of("ensure")[0]["error"] == "HubUnreachable"
    assert wrong_files(tmp_path) == []

    hub.heal()
    assert instances.run(tmp_path, ["ensure", "hf://org/a"]).of("ensure")[0]["files"] == digests(files)


def test_a_model_that_a_hub_tool_deleted_is_fetched_again(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    from huggingface_hub import scan_cache_dir

    files = model_files()
    commit = hub.put("org/a", files)
    holder = instances.start(tmp_path, ["ensure", "hf://org/a"], ["hold"])
    instances.said(holder, "holding")
    scan_cache_dir(tmp_path).delete_revisions(commit).execute()
    run = instances.run(tmp_path, ["models"], ["ensure", f"hf://org/a@{commit}"])
    assert run.of("models")[0]["models"] == []
    assert run.of("ensure")[0]["files"] == digests(files)
