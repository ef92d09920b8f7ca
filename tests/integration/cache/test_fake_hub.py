"""The fake hub is one that real huggingface_hub takes for a hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, close_session, get_hf_file_metadata, hf_hub_url, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from tests.builders.fake_hub import LISTING, FakeHub, Fault, HubProcess

pytestmark = pytest.mark.integration

TOKEN = "hf_token"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub(TOKEN)
    yield fake
    close_session()
    fake.close()


def test_a_snapshot_comes_whole_from_memory_and_from_disk(tmp_path: Path) -> None:
    on_disk = tmp_path / "weights"
    on_disk.write_bytes(b"w" * 3_000_000)
    files = {"config.json": b"{}", "a b/deep.json": b"[]", "model.safetensors": on_disk}
    with HubProcess(TOKEN) as hub:
        commit = hub.put("org/model", files)
        folder = Path(snapshot_download("org/model", cache_dir=tmp_path / "cache", endpoint=hub.url, token=TOKEN))
        assert folder.name == commit
        assert (folder / "a b" / "deep.json").read_bytes() == b"[]"
        assert (folder / "model.safetensors").read_bytes() == on_disk.read_bytes()
        assert hub.bytes_sent() == 3_000_004
        assert hub.bytes_sent("org/model", "model.safetensors") == 3_000_000
        close_session()


def test_large_files_are_on_a_second_host_with_their_digest_at_the_first(hub: FakeHub) -> None:
    commit = hub.put("org/model", {"model.safetensors": b"x" * 10, "config.json": b"{}"})
    of = {name: hf_hub_url("org/model", name, endpoint=hub.url) for name in ("model.safetensors", "config.json")}
    large, small = (get_hf_file_metadata(url, token=TOKEN) for url in of.values())

    assert (large.commit_hash, large.size, len(large.etag or "")) == (commit, 10, 64)
    assert large.location.startswith(hub.cdn_url)
    assert (small.commit_hash, small.size, len(small.etag or "")) == (commit, 2, 40)


def test_revisions_stay_when_a_branch_moves(hub: FakeHub) -> None:
    api = HfApi(endpoint=hub.url)
    first = hub.put("org/model", {"config.json": b"1"})
    second = hub.put("org/model", {"config.json": b"2"})
    hub.repos["org/model"].refs["v1"] = first

    assert api.model_info("org/model").sha == second
    assert api.model_info("org/model", revision="v1").sha == first
    assert api.model_info("org/model", revision=first).sha == first
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/model", revision="v2")


def test_private_and_gated_models_are_refused_as_the_real_hub_does(hub: FakeHub) -> None:
    hub.put("org/private", {"config.json": b"{}"}, private=True)
    hub.put("org/gated", {"config.json": b"{}"}, gated="files")
    for token in (False, "hf_wrong"):
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=hub.url, token=token).model_info("org/private")
    assert HfApi(endpoint=hub.url, token=TOKEN).model_info("org/private").id == "org/private"
    with pytest.raises(GatedRepoError):
        get_hf_file_metadata(hf_hub_url("org/gated", "config.json", endpoint=hub.url), token=TOKEN)


def test_faults_are_met_as_often_as_was_asked_for_and_heal(hub: FakeHub) -> None:
    hub.put("org/model", {"config.json": b"{}"})
    hub.fault(Fault("burst", LISTING, times=2))
    hub.fault(Fault("rate_limit", LISTING, times=-1))
    seen = []
    for _ in range(4):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(endpoint=hub.url).model_info("org/model")
        seen.append(caught.value.response.status_code)
    hub.heal()

    assert seen == [500, 500, 429, 429]
    assert HfApi(endpoint=hub.url).model_info("org/model").id == "org/model"
    assert hub.listings() == 5
