import json
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.builders.operator import CONFIG, model_folder, safetensors

from cotenant_cache.client import open_model, read_facts
from cotenant_cache.errors import (
    CacheError,
    CorruptWeightsError,
    FileMissingError,
    HubUnreachableError,
    ModelNotFoundError,
    UnsafeFilesError,
    UnsupportedArchitectureError,
)
from cotenant_cache.facts import ModelFacts
from cotenant_cache.headers import MAX_HEADER_BYTES
from cotenant_serving.contract import Reason


def with_offsets(begin: object, end: object) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [3], "data_offsets": [begin, end]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(12)


def facts_of(folder: Path) -> ModelFacts:
    return read_facts(f"file://{folder}", "")


def test_sizes_come_from_config_and_the_weights_header(tmp_path: Path) -> None:
    found = facts_of(model_folder(tmp_path / "m"))

    assert (found.layers, found.kv_heads, found.head_dim, found.dtype_bytes) == (2, 2, 16, 4)
    assert (found.weights_bytes, found.num_parameters) == (128, 32)
    assert found.architecture == "LlamaForCausalLM"
    assert found.max_position_embeddings == 512
    assert [file.name for file in found.files] == ["model.safetensors"]


def test_weights_count_in_the_dtype_they_are_loaded_in(tmp_path: Path) -> None:
    stored = safetensors({"a": ("F32", [10], 40), "b": ("I8", [6], 6)})

    assert facts_of(model_folder(tmp_path / "m", weights=stored, dtype="bfloat16")).weights_bytes == 20 + 6


def test_a_model_without_a_dtype_is_taken_as_float32(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", weights=safetensors({"a": ("BF16", [10], 20)}), dtype=None)

    assert (facts_of(folder).dtype, facts_of(folder).weights_bytes) == ("float32", 40)


def test_the_language_part_of_a_multimodal_config_is_read(tmp_path: Path) -> None:
    text = {name: value for name, value in CONFIG.items() if name not in ("architectures", "dtype")}
    folder = tmp_path / "m"
    folder.mkdir()
    config = {"architectures": ["XForConditionalGeneration"], "dtype": "bfloat16", "text_config": text}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors())

    assert (facts_of(folder).layers, facts_of(folder).dtype_bytes) == (2, 2)


def test_gpt2_names_of_sizes_are_known(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    config = {"architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_head": 4, "n_layer": 3, "n_positions": 128}
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    (folder / "model.safetensors").write_bytes(safetensors())
    found = facts_of(folder)

    assert (found.layers, found.kv_heads, found.head_dim, found.max_position_embeddings) == (3, 4, 16, 128)
    assert found.architecture == "GPT2LMHeadModel"


def test_shards_of_an_index_are_summed(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")

    assert facts_of(folder).weights_bytes == 256
    assert open_model(f"file://{folder}", "") == folder


def test_the_fingerprint_changes_with_a_file(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    before = facts_of(folder).fingerprint
    (folder / "model.safetensors").write_bytes(safetensors({"weight": ("F32", [5, 8], 160)}))

    assert facts_of(folder).fingerprint != before


def sharded(folder: Path) -> Path:
    model_folder(folder)
    (folder / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        (folder / name).write_bytes(safetensors())
    index = {"weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def refusal(folder: Path, expected: type[CacheError]) -> str:
    with pytest.raises(expected) as caught:
        open_model(f"file://{folder}", "")
    assert Reason(caught.value.reason)
    return caught.value.message


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none", ModelNotFoundError)


def test_a_file_instead_of_a_folder_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")

    assert "is a file, not a folder" in refusal(tmp_path / "m", ModelNotFoundError)


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    (model_folder(tmp_path / "m") / "config.json").unlink()

    assert "has no config.json" in refusal(tmp_path / "m", FileMissingError)


def test_code_of_its_own_is_refused(tmp_path: Path) -> None:
    model_folder(tmp_path / "m", auto_map={"AutoModel": "modeling_x.X"})

    assert "config.json has auto_map" in refusal(tmp_path / "m", UnsafeFilesError)


def test_a_tokenizer_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    (model_folder(tmp_path / "m") / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.Y"}}')

    assert "tokenizer_config.json has auto_map" in refusal(tmp_path / "m", UnsafeFilesError)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickles_alone_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / name)

    assert name in refusal(folder, UnsafeFilesError)


def test_a_single_file_counts_before_an_index_whose_shards_are_gone(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    for shard in folder.glob("model-*"):
        shard.unlink()
    (folder / "model.safetensors").write_bytes(safetensors())

    assert [file.name for file in facts_of(folder).files] == ["model.safetensors"]


def test_no_weights_at_all_are_missing(tmp_path: Path) -> None:
    (model_folder(tmp_path / "m") / "model.safetensors").unlink()

    assert "has no model.safetensors" in refusal(tmp_path / "m", FileMissingError)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()

    assert "model-00002-of-00002.safetensors" in refusal(folder, FileMissingError)


def test_an_index_cannot_point_outside_the_folder(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    index = {"weight_map": {"a": "../other/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "no safetensors file beside it" in refusal(folder, UnsafeFilesError)


def test_truncated_weights_name_both_sizes(tmp_path: Path) -> None:
    whole = safetensors()
    folder = model_folder(tmp_path / "m", weights=whole[:-10])
    message = refusal(folder, CorruptWeightsError)

    assert f"has {len(whole) - 10} bytes, its header says {len(whole)}" in message
    assert "cut off" in message


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (b"", "at least 8"),
        (b"\x00\x00", "at least 8"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"x" * 20, f"at most {MAX_HEADER_BYTES}"),
        (struct.pack("<Q", 500) + b"{}", "its header alone needs 508"),
        (struct.pack("<Q", 4) + b"nope", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (safetensors({"w": ("F32", [3], 8)}), "needs 12 bytes, its header gives it 8"),
        (safetensors({"w": ("F99", [3], 12)}), "described wrongly"),
        (safetensors({"w": ("F32", [-3], 12)}), "described wrongly"),
        (safetensors() + b"tail", "longer than it says"),
        (with_offsets("0", "12"), "described wrongly"),
        (with_offsets(0, float("inf")), "described wrongly"),
    ],
)
def test_damaged_weights_say_what_is_wrong(tmp_path: Path, weights: bytes, said: str) -> None:
    assert said in refusal(model_folder(tmp_path / "m", weights=weights), CorruptWeightsError)


def test_tensors_that_overlap_are_damage(tmp_path: Path) -> None:
    header = json.dumps(
        {
            "a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]},
            "b": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]},
        }
    ).encode()
    weights = struct.pack("<Q", len(header)) + header + bytes(12)

    assert "begins at 4, not at 8" in refusal(model_folder(tmp_path / "m", weights=weights), CorruptWeightsError)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": None}, "names no architecture"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
        ({"num_hidden_layers": "12"}, "num_hidden_layers = '12'"),
        ({"vocab_size": 0}, "vocab_size = 0"),
    ],
)
def test_a_config_that_cannot_be_sized_is_unsupported(tmp_path: Path, config: dict[str, object], said: str) -> None:
    assert said in refusal(model_folder(tmp_path / "m", **config), UnsupportedArchitectureError)


def test_a_config_that_is_not_json_is_damage(tmp_path: Path) -> None:
    (model_folder(tmp_path / "m") / "config.json").write_text("{")

    assert "config.json is not JSON" in refusal(tmp_path / "m", CorruptWeightsError)


@pytest.mark.parametrize(
    "source",
    [
        "org/model",
        "file://relative",
        "file:///models/../etc",
        "file:///..",
        "file:///models/a\0b",
        "file:///models/a\nb",
        "hf://a/b/c",
        "hf://../x",
        "hf://a/b\n",
        "s3://bucket",
        "",
    ],
)
def test_other_sources_are_not_found(source: str, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no source of a model"):
        read_facts(source, str(tmp_path))


@contextmanager
def without_rights(path: Path) -> Iterator[None]:
    """Nobody may read or enter `path`; root, whom no mode stops, becomes somebody else meanwhile."""
    mode = path.stat().st_mode
    path.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


def test_a_folder_below_one_that_may_not_be_entered_is_not_found(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "locked" / "m")
    with without_rights(tmp_path / "locked"):
        message = refusal(folder, ModelNotFoundError)

    assert f"{folder} may not be read; let this user read it" in message


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_a_file_that_may_not_be_read_is_missing(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "tokenizer_config.json").write_text("{}")
    with enterable(tmp_path), without_rights(folder / name):
        message = refusal(folder, FileMissingError)

    assert f"{folder / name} may not be read; let this user read it" in message


@contextmanager
def enterable(folder: Path) -> Iterator[None]:
    """Whoever `without_rights` makes of us may come to `folder`; pytest makes its own for us alone."""
    own = [path for path in (folder, *folder.parents) if path.stat().st_uid == os.geteuid() and path != Path("/")]
    modes = {path: path.stat().st_mode for path in own if not path.stat().st_mode & 0o001}
    for path, mode in modes.items():
        path.chmod(mode | 0o011)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_a_path_that_is_too_long_is_not_found(tmp_path: Path) -> None:
    assert "longer than the file system allows" in refusal(tmp_path / ("m" * 300), ModelNotFoundError)


def test_a_path_below_a_file_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")

    assert "lies below a file" in refusal(tmp_path / "m" / "deeper", ModelNotFoundError)


def test_a_loop_of_links_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "m").symlink_to(tmp_path / "m")

    assert "loop of symbolic links" in refusal(tmp_path / "m", ModelNotFoundError)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "model.safetensors"])
def test_a_file_that_is_a_loop_of_links_is_missing(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(folder / name)

    assert f"{folder / name} goes round in a loop" in refusal(folder, FileMissingError)


def test_weights_whose_link_leads_nowhere_are_missing(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "evicted")

    assert "model.safetensors does not exist; check the path and its symbolic links" in refusal(
        folder, FileMissingError
    )


def test_a_shard_with_a_name_that_is_too_long_is_missing(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "m")
    index = {"weight_map": {"a": "s" * 300 + ".safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "lists 1 files, 1 of them are not there" in refusal(folder, FileMissingError)


def test_a_file_name_that_is_no_text_does_not_matter(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m")
    (folder / os.fsdecode(b"\xff.json")).write_text("{}")

    assert facts_of(folder).layers == 2


def test_without_the_hubs_client_it_says_what_to_install(tmp_path, monkeypatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cotenant_cache.hub")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubUnreachableError, match="pip install 'cotenant"):
        read_facts("hf://owner/name", str(tmp_path))
