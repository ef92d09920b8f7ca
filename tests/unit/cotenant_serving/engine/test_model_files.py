"""A model's folder is checked before anything is loaded from it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.model_files import check_model_folder


def safetensors(data_bytes: int = 64) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [data_bytes], "data_offsets": [0, data_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(data_bytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors())
    return tmp_path


def shard(folder: Path, *names: str) -> None:
    (folder / "model.safetensors").unlink()
    weight_map = {f"w{index}": name for index, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "a.safetensors").write_bytes(safetensors())


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BROKEN: list[tuple[str, Callable[[Path], object], Reason, str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), Reason.FILE_MISSING, "config.json"),
    ("config not JSON", lambda f: (f / "config.json").write_text("{"), Reason.LOAD_FAILED, "not JSON"),
    ("own code", lambda f: (f / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}'),
     Reason.UNSAFE_FILES, "auto_map"),
    ("own tokenizer code", lambda f: (f / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": 1}}'),
     Reason.UNSAFE_FILES, "tokenizer_config.json"),
    ("only pickles", only_pickles, Reason.UNSAFE_FILES, "pytorch_model.bin"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), Reason.FILE_MISSING, "model.safetensors"),
    ("shard missing", lambda f: shard(f, "a.safetensors", "b.safetensors"), Reason.FILE_MISSING, "b.safetensors"),
    ("shard elsewhere", lambda f: shard(f, "../a.safetensors"), Reason.UNSAFE_FILES, "../a.safetensors"),
    ("shard a pickle", lambda f: shard(f, "a.bin"), Reason.UNSAFE_FILES, "a.bin"),
    ("no tokenizer", lambda f: (f / "tokenizer.json").unlink(), Reason.FILE_MISSING, "tokenizer.json"),
    ("weights cut off", lambda f: (f / "model.safetensors").write_bytes(safetensors()[:-10]),
     Reason.CORRUPT_WEIGHTS, f"says {len(safetensors())} bytes and the file has {len(safetensors()) - 10}"),
    ("weights too long", lambda f: (f / "model.safetensors").write_bytes(safetensors() + b"x"),
     Reason.CORRUPT_WEIGHTS, "bytes and the file has"),
    ("empty weights", lambda f: (f / "model.safetensors").write_bytes(b""), Reason.CORRUPT_WEIGHTS, "header"),
    ("a page of HTML", lambda f: (f / "model.safetensors").write_bytes(b"<!DOCTYPE html><html>" * 9),
     Reason.CORRUPT_WEIGHTS, "header"),
    ("header not JSON", lambda f: (f / "model.safetensors").write_bytes(b"\x04" + bytes(7) + b"abcd"),
     Reason.CORRUPT_WEIGHTS, "cannot be read"),
    ("header without offsets", lambda f: (f / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b'{"w": 1}'),
     Reason.CORRUPT_WEIGHTS, "cannot be read"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "reason", "words"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_broken_folder_is_refused_by_its_reason(
    folder: Path, broken: Callable[[Path], object], reason: Reason, words: str
) -> None:
    broken(folder)
    with pytest.raises(LoadError) as caught:
        check_model_folder(folder)
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert str(folder) in caught.value.message


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        check_model_folder(tmp_path / "nowhere")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_whole_folder_gives_its_config(folder: Path) -> None:
    assert check_model_folder(folder)["architectures"] == ["LlamaForCausalLM"]


def test_a_pickle_beside_safetensors_is_not_looked_at(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    check_model_folder(folder)


def test_whole_shards_pass(folder: Path) -> None:
    shard(folder, "a.safetensors")
    check_model_folder(folder)
