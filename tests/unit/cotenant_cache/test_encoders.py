"""Encoders, classifiers and sentence-transformers folders: what is read of them and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.builders.folders import BERT, DENSE, MODULES, folder_of, sentence_files
from tests.builders.operator import safetensors

from cotenant_cache.client import open_checked, read_facts
from cotenant_cache.errors import (
    CacheError,
    CorruptWeightsError,
    FileMissingError,
    UnsafeFilesError,
    UnsupportedArchitectureError,
)
from cotenant_cache.facts import ModelFacts
from cotenant_cache.modules import pooling_modes


def facts_of(folder: Path) -> ModelFacts:
    return read_facts(f"file://{folder}", "")


def plain(folder: Path, **config: Any) -> ModelFacts:
    """Facts of a folder with this configuration and weights, and nothing else."""
    without = {name: value for name, value in {**BERT, **config}.items() if value is not None}
    files = {"config.json": json.dumps(without).encode(), "model.safetensors": safetensors()}
    return facts_of(folder_of(folder, files))


def refusal(folder: Path, expected: type[CacheError]) -> str:
    with pytest.raises(expected) as caught:
        open_checked(f"file://{folder}", "")
    return caught.value.message


def broken(folder: Path, *, gone: str = "", **files: bytes | str) -> Path:
    """A sentence-transformers folder in which some files are other ones; `__` stands for `/`, `_json` ends a name."""
    named = {name.replace("__", "/").replace("_json", ".json"): value for name, value in files.items()}
    content = {name: value if isinstance(value, bytes) else value.encode() for name, value in named.items()}
    whole = {**sentence_files(), **content}
    return folder_of(folder, {name: value for name, value in whole.items() if name != gone})


def test_distilberts_names_of_sizes_are_known(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"))
    own = {"dim": 96, "hidden_dim": 384, "n_layers": 6, "n_heads": 12}
    found = plain(tmp_path, architectures=["DistilBertModel"], model_type="distilbert", **sizes, **own)

    assert (found.hidden_size, found.intermediate_size, found.layers, found.attention_heads) == (96, 384, 6, 12)


def test_barts_names_of_sizes_are_known_and_it_is_not_one_stack(tmp_path: Path) -> None:
    sizes = dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads"))
    own = {"d_model": 96, "encoder_ffn_dim": 384, "encoder_attention_heads": 12, "is_encoder_decoder": True}
    found = plain(tmp_path, architectures=["BartForSequenceClassification"], **sizes, **own)

    assert (found.hidden_size, found.intermediate_size, found.attention_heads) == (96, 384, 12)
    assert not found.text_only


@pytest.mark.parametrize(
    ("family", "positions", "longest"),
    [
        ("bert", 512, 512),
        ("modernbert", 8192, 8192),
        ("roberta", 514, 512),
        ("xlm-roberta", 8194, 8192),
        ("mpnet", 514, 512),
        ("longformer", 4098, 4096),
        ("esm", 1026, 1024),
    ],
)
def test_positions_that_a_family_never_uses_do_not_count(
    tmp_path: Path, family: str, positions: int, longest: int
) -> None:
    found = plain(tmp_path, model_type=family, max_position_embeddings=positions, pad_token_id=1)

    assert found.max_position_embeddings == longest


def test_a_family_without_a_table_of_positions_has_none_that_are_never_used(tmp_path: Path) -> None:
    found = plain(tmp_path, model_type="esm", max_position_embeddings=1026, position_embedding_type="rotary")

    assert found.max_position_embeddings == 1026


ODD: list[Any] = [[], {}, [[]], [1], {"a": []}, "", "\x1b[31m", "\ud800", -1, 0, 1.5, 10**400, True, "7", [None]]


@pytest.mark.parametrize("architecture", ["BertModel", "BertForSequenceClassification"])
@pytest.mark.parametrize(
    "field",
    [
        *BERT,
        *("pad_token_id", "position_embedding_type", "text_config", "num_labels", "id2label", "head_dim", "dtype"),
        *("qk_nope_head_dim", "qk_rope_head_dim", "num_key_value_heads", "is_encoder_decoder", "vision_config"),
    ],
)
def test_an_odd_value_gives_facts_or_a_reason_that_can_be_shown(
    tmp_path: Path, field: str, architecture: str
) -> None:
    for odd in ODD:
        given = {"architectures": [architecture], "model_type": "roberta", field: odd}
        found = known_or_refused(tmp_path, given)
        if isinstance(found, ModelFacts):
            assert isinstance(found.family, str)
            assert found.architecture.isidentifier()
            assert found.head_dim >= 1
        else:
            assert found.isprintable()


def known_or_refused(folder: Path, config: dict[str, Any]) -> ModelFacts | str:
    try:
        return plain(folder, **config)
    except CacheError as error:
        return error.message


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ({"id2label": {"0": "LABEL_0"}}, 1),
        ({"id2label": {"0": "no", "1": "maybe", "2": "yes"}}, 3),
        ({"num_labels": 1}, 1),
        ({}, 2),
    ],
)
def test_labels_of_a_classifier_are_counted(tmp_path: Path, config: dict[str, Any], labels: int) -> None:
    assert plain(tmp_path, architectures=["BertForSequenceClassification"], **config).num_labels == labels


def test_other_architectures_have_no_labels(tmp_path: Path) -> None:
    assert plain(tmp_path, id2label={"0": "a", "1": "b"}).num_labels == 0


def test_an_image_model_is_not_text_only(tmp_path: Path) -> None:
    assert not plain(tmp_path, architectures=["CLIPModel"], vision_config={"hidden_size": 8}).text_only


def test_a_sentence_transformers_folder_is_read_with_its_modules(tmp_path: Path) -> None:
    found = facts_of(folder_of(tmp_path / "m", sentence_files()))

    assert found.modules == ("Transformer", "Pooling", "Dense", "Normalize")
    assert (found.max_position_embeddings, found.max_sequence_tokens) == (512, 256)
    assert [file.name for file in found.files] == ["model.safetensors", "2_Dense/model.safetensors"]
    assert found.weights_bytes == 128 + 2048 + 32


def test_newer_type_names_of_modules_are_known(tmp_path: Path) -> None:
    moved = [{**item, "type": item["type"].replace(".models.", ".base.modules.")} for item in MODULES]

    assert facts_of(broken(tmp_path, modules_json=json.dumps(moved))).modules[1] == "Pooling"


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "2_Dense/model.safetensors", "modules.json"])
def test_the_fingerprint_covers_the_modules(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path, sentence_files())
    before = facts_of(folder).fingerprint
    (folder / name).write_bytes((folder / name).read_bytes())

    assert facts_of(folder).fingerprint != before


@pytest.mark.parametrize("length", ['{"max_seq_length": null}', "{}", '{"max_seq_length": "256"}'])
def test_a_length_that_is_not_said_is_0(tmp_path: Path, length: str) -> None:
    assert facts_of(broken(tmp_path, sentence_bert_config_json=length)).max_sequence_tokens == 0


def test_the_length_may_stand_in_a_file_with_an_older_name(tmp_path: Path) -> None:
    files = sentence_files()
    files["sentence_xlm-roberta_config.json"] = files.pop("sentence_bert_config.json")

    assert facts_of(folder_of(tmp_path, files)).max_sequence_tokens == 256


def test_modules_of_code_that_comes_with_the_model_are_refused(tmp_path: Path) -> None:
    own = json.dumps([{"path": "", "type": "custom_st.Transformer"}, *MODULES[1:]])

    assert "'custom_st.Transformer'" in refusal(broken(tmp_path, modules_json=own), UnsafeFilesError)


@pytest.mark.parametrize("path", ["../other", "/etc", "1_Pooling/deeper", ".hidden", 7])
def test_a_module_cannot_lie_elsewhere(tmp_path: Path, path: object) -> None:
    other = json.dumps([MODULES[0], {**MODULES[1], "path": path}])

    assert "no folder directly below" in refusal(broken(tmp_path, modules_json=other), UnsafeFilesError)


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ([MODULES[0], MODULES[1], {"path": "2_CNN", "type": "sentence_transformers.models.CNN"}], "has a module CNN"),
        ([MODULES[0]], "lists Transformer; served is"),
        ([MODULES[0], MODULES[3], MODULES[1]], "lists Transformer, Normalize, Pooling; served is"),
        ([MODULES[0], MODULES[1], MODULES[1]], "lists Transformer, Pooling, Pooling; served is"),
        ([{**MODULES[0], "path": "0_Transformer"}, MODULES[1]], "keeps the transformer in 0_Transformer/"),
    ],
)
def test_modules_that_are_not_served_are_named(tmp_path: Path, modules: list[Any], said: str) -> None:
    folder = broken(tmp_path, modules_json=json.dumps(modules))

    assert said in refusal(folder, UnsupportedArchitectureError)


@pytest.mark.parametrize("content", ["{}", "[]", '["x"]', "[1", "null"])
def test_a_modules_file_that_is_no_list_of_modules_is_damage(tmp_path: Path, content: str) -> None:
    assert "modules.json is not" in refusal(broken(tmp_path, modules_json=content), CorruptWeightsError)


def test_a_pooling_that_is_not_known_is_named(tmp_path: Path) -> None:
    folder = broken(tmp_path, **{"1_Pooling__config_json": '{"pooling_mode_magic": true}'})

    assert "1_Pooling/config.json asks for the pooling pooling_mode_magic" in refusal(
        folder, UnsupportedArchitectureError
    )


def test_no_pooling_at_all_is_refused(tmp_path: Path) -> None:
    folder = broken(tmp_path, **{"1_Pooling__config_json": '{"pooling_mode_mean_tokens": false}'})

    assert "asks for the pooling none" in refusal(folder, UnsupportedArchitectureError)


@pytest.mark.parametrize("gone", ["1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"])
def test_a_file_of_a_module_that_is_gone_is_named(tmp_path: Path, gone: str) -> None:
    expected = UnsafeFilesError if gone.endswith("safetensors") else FileMissingError
    message = refusal(broken(tmp_path, gone=gone), expected)

    assert gone in message or "2_Dense: pytorch_model.bin may run code" in message


def test_the_weights_of_a_dense_layer_are_checked(tmp_path: Path) -> None:
    folder = broken(tmp_path, **{"2_Dense__model.safetensors": DENSE[:-4]})

    assert "2_Dense/model.safetensors" in refusal(folder, CorruptWeightsError)


def test_a_classifier_may_have_modules_that_say_nothing_of_vectors(tmp_path: Path) -> None:
    files = sentence_files(architectures=["BertForSequenceClassification"], id2label={"0": "score"})
    files["modules.json"] = json.dumps([MODULES[0]]).encode()
    found = facts_of(folder_of(tmp_path, files))

    assert (found.modules, found.num_labels) == ((), 1)


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode": "lasttoken"}, ("last_token",)),
        ({"pooling_mode": ["mean", "max"]}, ("mean", "max")),
    ],
)
def test_pooling_is_read_in_both_ways_of_writing_it(config: dict[str, Any], modes: tuple[str, ...]) -> None:
    assert pooling_modes(config, source="m", file="1_Pooling/config.json") == modes
