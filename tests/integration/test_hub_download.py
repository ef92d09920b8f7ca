"""Facts and downloads from a fake hub on loopback, which real huggingface_hub talks to."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.builders.fake_hub import Content, FakeHub, Repo
from tests.builders.folders import archive, sentence_files
from tests.builders.operator import CONFIG, safetensors

from cotenant_cache.client import open_model, read_facts
from cotenant_cache.errors import (
    CorruptWeightsError,
    FileMissingError,
    HubUnreachableError,
    ModelNotFoundError,
    UnsafeFilesError,
)

pytestmark = pytest.mark.integration

COMMIT = "c0ffee" * 6 + "beef"
OTHER_COMMIT = "0dd" * 13 + "1"


class SmallHub(FakeHub):
    """With one repository `org/small`, whose files and commit a test changes in place."""

    def __init__(self) -> None:
        super().__init__(token="hf_secretsecret")
        files: dict[str, Content] = {
            "config.json": json.dumps(CONFIG).encode(),
            "tokenizer.json": b"{}",
            "model.safetensors": safetensors(),
            "README.md": b"# hello",
            "pytorch_model.bin": b"pickle",
            "modeling_small.py": b"print('never')",
            "onnx/config.json": b"{}",
        }
        self.small = self.repos["org/small"] = Repo(files, COMMIT)
        self.repos["org/gated"] = Repo({}, COMMIT, gated="listing")

    @property
    def files(self) -> dict[str, Content]:
        return self.small.files

    @files.setter
    def files(self, files: dict[str, Content]) -> None:
        self.small.files = files

    def fetched(self) -> set[str]:
        """Names of files whose bytes were asked for, of the hub or of the host that has the large ones."""
        return {urlsplit(path).path.rpartition("/")[2] for _, path in self.requests("GET") if "/api/" not in path}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    from huggingface_hub import close_session

    fake = SmallHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    yield fake
    close_session()
    fake.close()


def test_facts_come_from_headers_without_the_weights(hub: SmallHub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = safetensors({"w": ("F32", [1000, 1000], 4_000_000)})
    facts = read_facts("hf://org/small", str(tmp_path))

    assert facts.weights_bytes == 4_000_000
    assert facts.source == f"hf://org/small@{COMMIT}"
    assert facts.fingerprint == COMMIT
    assert facts.files[0].size_bytes == len(hub.files["model.safetensors"])
    assert list(tmp_path.glob("models--*")) == [], "a name there is a model for every tool"


def test_a_download_is_the_plain_layout_without_code_or_pickles(hub: SmallHub, tmp_path: Path) -> None:
    folder = open_model("hf://org/small@main", str(tmp_path))

    assert folder == tmp_path / "models--org--small" / "snapshots" / COMMIT
    assert {path.name for path in folder.iterdir()} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert (tmp_path / "models--org--small" / "refs" / "main").read_text() == COMMIT
    assert hub.fetched() == {"config.json", "tokenizer.json", "model.safetensors"}


def test_progress_ends_at_the_whole(hub: SmallHub, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_model("hf://org/small", str(tmp_path), lambda done, total: seen.append((done, total)))
    total = sum(len(hub.files[name]) for name in ("config.json", "tokenizer.json", "model.safetensors"))

    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_commit_on_disk_needs_no_hub(hub: SmallHub, tmp_path: Path) -> None:
    folder = open_model(f"hf://org/small@{COMMIT}", str(tmp_path))
    hub.log.clear()

    assert open_model(f"hf://org/small@{COMMIT}", str(tmp_path)) == folder
    assert read_facts(f"hf://org/small@{COMMIT}", str(tmp_path)).weights_bytes == 128
    assert hub.log == []


def test_a_branch_on_disk_serves_while_the_hub_is_down(hub: SmallHub, tmp_path: Path) -> None:
    folder = open_model("hf://org/small", str(tmp_path))
    hub.down = True

    assert open_model("hf://org/small", str(tmp_path)) == folder
    assert read_facts("hf://org/small", str(tmp_path)).source == f"hf://org/small@{COMMIT}"


def test_a_branch_that_moved_is_fetched_again(hub: SmallHub, tmp_path: Path) -> None:
    open_model("hf://org/small", str(tmp_path))
    hub.small.commit = OTHER_COMMIT
    hub.files["model.safetensors"] = safetensors({"w": ("F32", [2], 8)})

    assert open_model("hf://org/small", str(tmp_path)).name == OTHER_COMMIT


def test_an_interrupted_download_is_finished_later(hub: SmallHub, tmp_path: Path) -> None:
    folder = open_model(f"hf://org/small@{COMMIT}", str(tmp_path))
    (folder / "model.safetensors").unlink()

    assert (open_model(f"hf://org/small@{COMMIT}", str(tmp_path)) / "model.safetensors").exists()


def test_a_hub_that_is_down_is_unreachable(hub: SmallHub, tmp_path: Path) -> None:
    hub.down = True

    with pytest.raises(HubUnreachableError, match="HTTP 503"):
        read_facts("hf://org/small", str(tmp_path))


def test_a_hub_that_refuses_connections_is_unreachable(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubUnreachableError, match="check the network"):
        open_model("hf://org/small", str(tmp_path))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("hf://org/none", "has no model org/none"),
        ("hf://org/small@v9", "no branch, tag or commit 'v9'"),
        ("hf://org/gated", "is gated"),
    ],
)
def test_what_the_hub_does_not_have_is_not_found(hub: SmallHub, tmp_path: Path, source: str, said: str) -> None:
    with pytest.raises(ModelNotFoundError, match=said) as caught:
        read_facts(source, str(tmp_path))
    assert "hf_secretsecret" not in str(caught.value)
    assert "Bearer hf_secretsecret" in hub.tokens


def test_pickles_alone_are_refused_before_a_byte_of_them(hub: SmallHub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(UnsafeFilesError, match=r"pytorch_model\.bin"):
        open_model("hf://org/small", str(tmp_path))
    assert hub.fetched() == {"config.json"}


def test_code_of_its_own_is_refused_before_the_weights(hub: SmallHub, tmp_path: Path) -> None:
    hub.files["config.json"] = json.dumps({**CONFIG, "auto_map": {"AutoModel": "modeling_small.X"}}).encode()
    with pytest.raises(UnsafeFilesError, match="auto_map"):
        open_model("hf://org/small", str(tmp_path))
    assert "model.safetensors" not in hub.fetched()


def test_a_shard_the_repository_lacks_is_named(hub: SmallHub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    hub.files["model.safetensors.index.json"] = b'{"weight_map": {"a": "model-1.safetensors"}}'
    with pytest.raises(FileMissingError, match=r"model-1\.safetensors"):
        read_facts("hf://org/small", str(tmp_path))


def test_truncated_weights_on_the_hub_are_found_without_reading_them(hub: SmallHub, tmp_path: Path) -> None:
    hub.files["model.safetensors"] = safetensors({"w": ("F32", [1000], 4000)})[:1000]
    with pytest.raises(CorruptWeightsError, match="cut off"):
        read_facts("hf://org/small", str(tmp_path))


def test_a_sentence_model_comes_with_its_modules_and_nothing_else(hub: SmallHub, tmp_path: Path) -> None:
    hub.files = sentence_files()
    folder = open_model("hf://org/small", str(tmp_path))
    here = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}

    assert here == {
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "2_Dense/config.json",
        "2_Dense/model.safetensors",
    }
    assert (tmp_path / "models--org--small" / "refs" / "main").read_text() == COMMIT


def test_facts_of_a_sentence_model_are_the_same_from_the_hub_and_from_disk(hub: SmallHub, tmp_path: Path) -> None:
    hub.files = sentence_files()
    remote = read_facts("hf://org/small", str(tmp_path))
    assert list(tmp_path.glob("models--*")) == []
    open_model("hf://org/small", str(tmp_path))

    assert remote.modules == ("Transformer", "Pooling", "Dense", "Normalize")
    assert read_facts(f"hf://org/small@{COMMIT}", str(tmp_path)) == remote


def test_a_module_that_the_repository_lacks_is_named_before_the_weights(hub: SmallHub, tmp_path: Path) -> None:
    hub.files = sentence_files()
    del hub.files["1_Pooling/config.json"]
    with pytest.raises(FileMissingError, match=r"has no 1_Pooling/config\.json"):
        open_model("hf://org/small", str(tmp_path))
    assert "model.safetensors" not in hub.fetched()


def test_an_archive_is_sized_from_its_end_and_comes_without_a_config(hub: SmallHub, tmp_path: Path) -> None:
    whole = archive(data__weights__weight_1=bytes(3_000_000))
    hub.files = {"net.pt2": whole, "README.md": b"", "pytorch_model.bin": b"pickle", "net.py": b"print('never')"}
    remote = read_facts("hf://org/small", str(tmp_path))

    assert hub.bytes_sent() < 300_000
    folder = open_model("hf://org/small", str(tmp_path))
    assert {path.name for path in folder.iterdir()} == {"net.pt2"}
    assert (folder / "net.pt2").read_bytes() == whole
    assert read_facts(f"hf://org/small@{COMMIT}", str(tmp_path)) == remote


def test_an_archive_that_would_run_code_is_refused_without_fetching_it(hub: SmallHub, tmp_path: Path) -> None:
    hub.files = {"net.pt2": archive(data__constants__opaque_obj_0=b"x", data__weights__weight_1=bytes(3_000_000))}
    with pytest.raises(UnsafeFilesError, match="opaque_obj_0' is a pickle"):
        read_facts("hf://org/small", str(tmp_path))
    assert hub.bytes_sent() < 300_000


def test_a_description_that_is_listed_as_huge_is_not_fetched(hub: SmallHub, tmp_path: Path) -> None:
    hub.small.listed_bytes = {"config.json": 65 * 2**20}
    with pytest.raises(CorruptWeightsError, match=r"config\.json has 68157440 bytes"):
        read_facts("hf://org/small", str(tmp_path))
    assert hub.fetched() == set()


def test_a_description_that_is_longer_than_listed_is_read_up_to_a_limit(hub: SmallHub, tmp_path: Path) -> None:
    hub.files["config.json"] = b" " * (80 * 2**20)
    hub.small.listed_bytes = {"config.json": 100}
    with pytest.raises(CorruptWeightsError, match=r"config\.json is longer than"):
        read_facts("hf://org/small", str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "net.pt2"])
def test_weights_are_not_read_whole_from_a_hub_that_sends_no_parts(hub: SmallHub, tmp_path: Path, name: str) -> None:
    whole = safetensors({"w": ("F32", [10, 2**20], 40 * 2**20)}), archive(data__weights__w=bytes(40 * 2**20))
    hub.files = {"config.json": json.dumps(CONFIG).encode(), name: whole[name == "net.pt2"]}
    hub.takes_range = False
    with pytest.raises(HubUnreachableError, match=f"answers no part of {name}.*takes Range"):
        read_facts("hf://org/small", str(tmp_path))
    assert hub.bytes_sent() < 20 * 2**20
