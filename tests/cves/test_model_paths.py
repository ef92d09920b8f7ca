"""Files of models as they come from elsewhere: headers that lie, names that lead out, sources that are no models."""

import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders.archives import parts, write_archive
from tests.builders.operator import model_folder
from tests.integration.test_hub_download import SmallHub

from cotenant_cache.client import open_model, read_facts
from cotenant_cache.errors import CacheError, CorruptWeightsError, HubUnreachableError, UnsafeFilesError
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.tensor_archive import Archive

pytestmark = pytest.mark.integration


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    from huggingface_hub import close_session

    fake = SmallHub()
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    yield fake
    close_session()
    fake.close()


def header_of(tensors: dict[str, Any], *, data: int = 0, length: int | None = None) -> bytes:
    encoded = json.dumps(tensors).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + bytes(data)


def tensor(shape: Any, begin: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


BOMBS: dict[str, Callable[[], bytes]] = {
    "a header of 8 EiB": lambda: header_of({}, length=2**63 - 1),
    "a header of 100 MB": lambda: header_of({}, length=100_000_000, data=64),
    "a header that ends beyond the file": lambda: header_of({}, length=1000),
    "nesting": lambda: struct.pack("<Q", 200_000) + b"[" * 200_000,
    "300,000 dimensions": lambda: header_of({"a": tensor([2**62] * 300_000, 0, 8)}, data=8),
    "sizes that overflow 64 bits": lambda: header_of({"a": tensor([2**32, 2**32, 2**32], 0, 8)}, data=8),
    "a size of 5,000 digits": lambda: (
        struct.pack("<Q", 5075) + b'{"a":{"dtype":"F32","data_offsets":[0,8],"shape":[' + b"9" * 5022 + b"]}}"
    ),
    "tensors that overlap": lambda: header_of({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, data=12),
    "zero bytes that overlap": lambda: header_of({"a": tensor([0], 4, 4), "b": tensor([2], 0, 8)}, data=8),
    "a hole": lambda: header_of({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, data=12),
    "a negative place": lambda: header_of({"a": tensor([2], -8, 0)}),
    "an end before the beginning": lambda: header_of({"a": tensor([2], 8, 0)}, data=8),
    "a tensor that is larger than its place": lambda: header_of({"a": tensor([2**40], 0, 8)}, data=8),
    "data after the last tensor": lambda: header_of({"a": tensor([2], 0, 8)}, data=9),
    "an unknown type": lambda: header_of({"a": tensor([2], 0, 8, "PICKLE")}, data=8),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_header_of_weights_is_judged_before_memory_or_time_is_spent(what: str, tmp_path: Path) -> None:
    """Header bombs of safetensors (Trail of Bits' audit of May 2023, and proofs of concept since): the program that
    reads a header may be the one that serves everybody. Each ends in a fraction of a second, with a message."""
    folder = model_folder(tmp_path / "m", weights=BOMBS[what]())
    with pytest.raises(CorruptWeightsError) as refused:
        read_facts(f"file://{folder}", "")
    assert len(str(refused.value)) < 1000


HUB_NAMES = (
    *("../evil.json", "../../evil.safetensors", "/tmp/evil.json", "a/../../evil.json", "..", ".", "./../evil.json"),
    *("additional_chat_templates/../../evil.jinja", "C:\\evil.json", "..\\evil.json", "evil.json\x00.safetensors"),
    *("sub/evil.py", "evil.py", "evil.so", "evil.pth", "sitecustomize.py", "refs/main", ".git/hooks/post-checkout"),
)


def test_nothing_of_a_repository_is_written_beside_its_snapshot(hub: SmallHub, tmp_path: Path) -> None:
    """TorchServe's archives with `../` in the names of their files, and zip-slip in general: names out of a listing
    of the hub are matched, never joined. The download has the files that an engine reads, below its own folder."""
    hub.files |= dict.fromkeys(HUB_NAMES, b"{}")
    cache = tmp_path / "cache"
    outside = set(tmp_path.iterdir())
    folder = open_model("hf://org/small", str(cache))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert {path.resolve().is_relative_to(cache) for path in cache.rglob("*")} == {True}
    assert not [path for path in cache.rglob("*") if "evil" in path.name or path.suffix in (".py", ".so", ".pth")]
    assert set(tmp_path.iterdir()) == outside | {cache}
    assert not Path("/tmp/evil.json").exists()


@pytest.mark.parametrize(
    "commit", ["../../../evil", "/tmp/evil", "main", "c0ffee", "C0FFEE" * 6 + "BEEF", "a" * 39 + "\n"]
)
def test_a_hub_that_names_no_commit_is_not_believed(commit: str, hub: SmallHub, tmp_path: Path) -> None:
    """As above: the commit that a hub resolves a branch to becomes the name of a folder."""
    hub.small.commit = commit
    with pytest.raises(HubUnreachableError, match="named no commit"):
        open_model("hf://org/small", str(tmp_path / "cache"))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".cotenant"]
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "shard", ["../other/model.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", "..\\x.safetensors"]
)
def test_an_index_names_no_file_elsewhere(shard: str, tmp_path: Path) -> None:
    """TorchServe's path traversal, by the index of the shards, which is part of the model."""
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(UnsafeFilesError):
        open_model(f"file://{folder}", "")


@pytest.mark.parametrize(
    "name", ["../../evil", "/tmp/evil", "archive/../../evil", "archive\\..\\evil", "archive/x\x00y"]
)
def test_an_archive_is_read_and_never_unpacked(name: str, tmp_path: Path) -> None:
    """Zip-slip by `.pt2`: a part outside the archive's own folder is refused, and nothing is ever written."""
    file = write_archive(tmp_path / "m" / "net.pt2", parts())
    with zipfile.ZipFile(file, "a") as opened:
        info = zipfile.ZipInfo("x" * len(name))
        opened.writestr(info, b"evil")
    file.write_bytes(file.read_bytes().replace(b"x" * len(name), name.encode()))
    files = set(tmp_path.rglob("*"))
    with pytest.raises(LoadError):
        Archive(file, 2**30)
    assert set(tmp_path.rglob("*")) == files


def test_a_source_is_a_folder_or_a_repository_and_nothing_else(tmp_path: Path) -> None:
    """TorchServe (models from any URL, internal ones too): no other scheme, no `..`, no host."""
    wrong = [
        "http://127.0.0.1/model",
        "https://x/y.mar",
        "file://host/m",
        "ftp://x/y",
        "s3://b/k",
        "hf://../../etc",
        "hf://a/b@../../x",
        "hf://a/b/c",
        "hf://a b/c",
        "//x",
        "/etc",
        "hf://-x/y",
        "hf://a/b@-upload-pack",
        "oci://x",
    ]
    for source in wrong:
        with pytest.raises(CacheError):
            open_model(source, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
