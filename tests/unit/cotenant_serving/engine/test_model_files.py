"""A model's folder is checked before anything is loaded from it, by the weight cache and for a tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.builders.engine import generate_args
from tests.builders.operator import model_folder

from cotenant_cache.client import OpenModel, read_facts
from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.load_errors import load_errors
from cotenant_serving.engine.model_source import ModelSource, open_source
from cotenant_serving.engine.process import with_cache


def safetensors(data_bytes: int = 64) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [data_bytes], "data_offsets": [0, data_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(data_bytes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_folder(tmp_path / "m", weights=safetensors())
    (tmp_path / "m" / "tokenizer.json").write_text("{}")
    return tmp_path / "m"


def opened(folder: Path) -> OpenModel:
    args = generate_args(folder)
    with load_errors(args):
        return open_source(args, lambda *_: None)


def shard(folder: Path, *names: str) -> None:
    (folder / "model.safetensors").unlink()
    weight_map = {f"w{index}": name for index, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "a.safetensors").write_bytes(safetensors())


def only_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


BROKEN: list[tuple[str, Callable[[Path], object], Reason, str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), Reason.FILE_MISSING, "config.json"),
    ("config not JSON", lambda f: (f / "config.json").write_text("{"),
     Reason.CORRUPT_WEIGHTS, "config.json is not JSON"),
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
     Reason.CORRUPT_WEIGHTS, f"has {len(safetensors()) - 10} bytes, its header says {len(safetensors())}"),
    ("weights too long", lambda f: (f / "model.safetensors").write_bytes(safetensors() + b"x"),
     Reason.CORRUPT_WEIGHTS, "longer than it says"),
    ("empty weights", lambda f: (f / "model.safetensors").write_bytes(b""), Reason.CORRUPT_WEIGHTS, "has 0 bytes"),
    ("a page of HTML", lambda f: (f / "model.safetensors").write_bytes(b"<!DOCTYPE html><html>" * 9),
     Reason.CORRUPT_WEIGHTS, "header"),
    ("header not JSON", lambda f: (f / "model.safetensors").write_bytes(b"\x04" + bytes(7) + b"abcd"),
     Reason.CORRUPT_WEIGHTS, "its header is not JSON"),
    ("header without offsets", lambda f: (f / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b'{"w": 1}'),
     Reason.CORRUPT_WEIGHTS, "'w' is described wrongly in its header"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "reason", "words"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_broken_folder_is_refused_by_its_reason(
    folder: Path, broken: Callable[[Path], object], reason: Reason, words: str
) -> None:
    broken(folder)
    with pytest.raises(LoadError) as caught:
        opened(folder)
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert str(folder) in caught.value.message


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as caught:
        opened(tmp_path / "nowhere")
    assert caught.value.reason is Reason.MODEL_NOT_FOUND


def test_a_whole_folder_gives_its_facts(folder: Path) -> None:
    found = opened(folder)
    assert found.folder == folder
    assert found.facts.architecture == "LlamaForCausalLM"
    assert sum(file.size_bytes for file in found.facts.files) == len(safetensors())


def test_a_single_file_counts_before_an_index_for_the_engine_as_for_the_plan(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"w": "gone-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert opened(folder).facts == read_facts(f"file://{folder}", "")
    assert [file.name for file in opened(folder).facts.files] == ["model.safetensors"]


def test_a_pickle_beside_safetensors_is_not_looked_at(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    opened(folder)


def test_whole_shards_pass(folder: Path) -> None:
    shard(folder, "a.safetensors")
    opened(folder)


class FakeCache:
    """Stands for the weight cache: what it was asked, and how many leases of it are held."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sockets, self.held = folder, list[str](), 0

    def open_checked(self, source: str, cache_dir: str, progress: Any, *, lease: str, socket: str) -> SimpleNamespace:
        assert lease, "a lease has the name of who holds it"
        self.sockets.append(socket)
        self.held += 1
        return SimpleNamespace(folder=self.folder, facts=read_facts(source, cache_dir), close=self._close)

    def _close(self) -> None:
        self.held -= 1


@pytest.fixture
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCache:
    fake = FakeCache(folder)
    monkeypatch.setattr("cotenant_cache.client.open_checked", fake.open_checked)
    return fake


def test_an_engine_asks_the_cache_beside_it_and_holds_what_it_opened(folder: Path, cache: FakeCache) -> None:
    args = with_cache(generate_args(folder), {"COTENANT_CACHE_SOCKET": "/run/cache.sock"})
    open_source(args, lambda *_, **__: None)
    assert (cache.sockets, cache.held) == (["/run/cache.sock"], 1)


def test_a_socket_that_the_arguments_name_comes_before_that_of_the_environment(folder: Path) -> None:
    named = with_cache(generate_args(folder, cache_socket="/a"), {"COTENANT_CACHE_SOCKET": "/b"})
    assert (named.cache_socket, with_cache(generate_args(folder), {}).cache_socket) == ("/a", "")


def test_nothing_is_held_of_a_model_that_cannot_be_loaded(folder: Path, cache: FakeCache) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(LoadError):
        open_source(generate_args(folder), lambda *_, **__: None)
    assert cache.held == 0


def test_a_source_is_opened_once_and_given_back_once(folder: Path, cache: FakeCache) -> None:
    source = ModelSource(generate_args(folder))
    source.open(lambda *_, **__: None)
    source.open(lambda *_, **__: None)
    assert (len(cache.sockets), cache.held) == (1, 1)
    source.close()
    source.close()
    assert cache.held == 0


def test_who_closes_while_files_come_does_not_wait_and_leaves_no_lease(folder: Path, cache: FakeCache) -> None:
    source, held = ModelSource(generate_args(folder)), list[int]()

    def progress(stage: str, *_: Any, **__: Any) -> None:
        source.close()
        held.append(cache.held)

    source.open(progress)
    assert (held, cache.held) == ([0], 0)
