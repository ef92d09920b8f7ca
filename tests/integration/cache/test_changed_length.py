"""Blobs that somebody makes shorter or longer below an instance that runs."""

import os
from pathlib import Path

import pytest
from tests.builders.cached_models import model_files, volume_bytes, wrong_files
from tests.builders.fake_hub import FakeHub

from cotenant_cache.cache import Cache
from cotenant_cache.errors import HubUnreachableError, ModelNotFoundError

pytestmark = pytest.mark.integration

FILES = model_files(40_000)


@pytest.fixture(autouse=True)
def the_hub_is_asked(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "")


@pytest.mark.parametrize("change", [-20_000, 20_000], ids=["shorter", "longer"])
def test_a_blob_of_another_length_is_quarantined_and_counted_by_whoever_asks_for_its_model(
    change: int, hub: FakeHub, tmp_path: Path
) -> None:
    source = f"hf://org/a@{hub.put('org/a', FILES)}"
    with Cache(tmp_path) as cache:
        folder = cache.ensure(source).folder
        blob = (folder / "model.safetensors").resolve()
        os.truncate(blob, blob.stat().st_size + change)
        hub.set_down(True)
        with pytest.raises(HubUnreachableError):
            cache.ensure(source)
        assert wrong_files(tmp_path) == []
        usage = cache.usage()
        assert usage.quarantined_bytes == len(FILES["model.safetensors"]) + change
        assert usage.used_bytes == volume_bytes(tmp_path)

        hub.set_down(False)
        assert (cache.ensure(source).folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("change", [-20_000, 20_000], ids=["shorter", "longer"])
def test_a_blob_of_another_length_is_quarantined_and_counted_by_whoever_wants_to_lease_its_model(
    change: int, hub: FakeHub, tmp_path: Path
) -> None:
    source = f"hf://org/a@{hub.put('org/a', FILES)}"
    with Cache(tmp_path) as cache:
        blob = (cache.ensure(source).folder / "model.safetensors").resolve()
        os.truncate(blob, blob.stat().st_size + change)
        with pytest.raises(ModelNotFoundError):
            cache.lease(source, "engine")
        usage = cache.usage()
        assert usage.quarantined_bytes == len(FILES["model.safetensors"]) + change
        assert usage.used_bytes == volume_bytes(tmp_path)
        assert not blob.exists()
        assert wrong_files(tmp_path) == []
