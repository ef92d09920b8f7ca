"""`ensure`, by processes that share a volume: one download, progress for all, and whoever dies is replaced."""

from pathlib import Path

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.cached_models import digests, model_files, volume_bytes
from tests.builders.fake_hub import FakeHub

pytestmark = pytest.mark.integration


def weights_of(files: dict[str, bytes]) -> int:
    return sum(len(content) for name, content in files.items() if name.endswith(".safetensors"))


def test_a_model_comes_whole_with_its_names_and_a_lease(
    hub: FakeHub, instances: CacheProcesses, tmp_path: Path
) -> None:
    files = model_files()
    commit = hub.put("org/a", {**files, "model.py": b"print('never')", "pytorch_model.bin": b"pickle"})
    one = instances.run(tmp_path, ["ensure", "hf://org/a", "engine"], ["models"], ["usage"])

    [done] = one.of("ensure")
    assert done["files"] == digests(files)
    assert done["commit"] == commit
    assert done["folder"] == str(tmp_path / "models--org--a" / "snapshots" / commit)
    assert (tmp_path / "models--org--a" / "refs" / "main").read_text() == commit
    [model] = one.of("models")[0]["models"]
    assert (model["leases"], model["verified"], model["revisions"]) == (1, True, ["main"])
    assert one.of("usage")[0]["used_bytes"] == volume_bytes(tmp_path) == sum(map(len, files.values()))
    assert one.of("progress")[-1]["done"] == one.of("progress")[-1]["total"] == volume_bytes(tmp_path)
