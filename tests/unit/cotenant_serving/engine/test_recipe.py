"""What a model's files say about its vectors, and that nothing in them is left out in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.builders.text_models import write_json

from cotenant_cache.errors import CacheError
from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.recipe import Dense, Normalize, Recipe, output_size, read_recipe

TANH = "torch.nn.modules.activation.Tanh"
MODULES = ("Transformer", "Pooling", "Dense", "Normalize")


def sentence_files(folder: Path, **changes: Any) -> Path:
    """All four modules over a model with 8 numbers a token; `changes` are of the files, by their short names."""
    files: dict[str, Any] = {
        "modules": [
            {"path": f"{at}_{kind}" if at else "", "type": f"sentence_transformers.models.{kind}"}
            for at, kind in enumerate(MODULES)
        ],
        "pooling": {"word_embedding_dimension": 8, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
        "dense": {"in_features": 8, "out_features": 4, "bias": True, "activation_function": TANH},
        "length": {"max_seq_length": 128, "do_lower_case": False},
        "prompts": {"prompts": {"query": "q: "}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    } | changes
    names = {
        "modules": "modules.json",
        "pooling": "1_Pooling/config.json",
        "dense": "2_Dense/config.json",
        "length": "sentence_bert_config.json",
        "prompts": "config_sentence_transformers.json",
    }
    for name, value in files.items():
        write_json(folder / names[name], value)
    return folder


def read(folder: Path, **options: Any) -> Recipe:
    return read_recipe(folder, **{"hidden_size": 8, "decoder": False} | options)


def test_all_files_together_make_a_recipe(tmp_path: Path) -> None:
    recipe = read(sentence_files(tmp_path, prompts={"prompts": {"q": "query: "}, "default_prompt_name": "q"}))
    dense = Dense(tmp_path / "2_Dense" / "model.safetensors", 8, 4, True, "tanh")
    assert recipe == Recipe(("mean",), (dense, Normalize()), max_tokens=128, lower=False, prompt="query: ")
    assert output_size(recipe, 8) == 4
    assert recipe.normalized


@pytest.mark.parametrize(("decoder", "mode"), [(False, "cls"), (True, "last_token")])
def test_without_files_it_is_the_first_token_of_an_encoder_and_the_last_of_a_decoder(
    decoder: bool, mode: str, tmp_path: Path
) -> None:
    recipe = read(tmp_path, decoder=decoder)
    assert recipe == Recipe((mode,), (Normalize(),))  # type: ignore[arg-type]
    assert output_size(recipe, 8) == 8


def test_the_length_counts_without_modules_too(tmp_path: Path) -> None:
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    recipe = read(tmp_path)
    assert (recipe.max_tokens, recipe.lower) == (64, True)


@pytest.mark.parametrize("name", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_the_length_is_read_from_files_with_older_names(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / f"sentence_{name}_config.json", {"max_seq_length": 64})
    assert read(tmp_path).max_tokens == 64
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 32})
    assert read(tmp_path).max_tokens == 32


def test_newer_files_are_read_as_well(tmp_path: Path) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
    ]
    length = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    }
    pooling = {"embedding_dimension": 8, "pooling_mode": "lasttoken", "include_prompt": True}
    recipe = read(sentence_files(tmp_path, modules=modules, pooling=pooling, length=length))
    assert recipe == Recipe(("last_token",), ())
    assert not recipe.normalized


def dense(**changes: Any) -> dict[str, Any]:
    return {"in_features": 8, "out_features": 4, "bias": True, "activation_function": TANH} | changes


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"pooling": {"word_embedding_dimension": 9, "pooling_mode_mean_tokens": True}}, "word_embedding_dimension"),
    ({"pooling": {"pooling_mode_mean_tokens": True, "made_up": 1}}, "made_up"),
    ({"pooling": {"pooling_mode_mean_tokens": True, "include_prompt": False},
      "prompts": {"prompts": {"q": "q"}, "default_prompt_name": "q"}}, "include_prompt"),
    ({"dense": dense(activation_function="os.system")}, "activation_function"),
    ({"dense": dense(activation_function="torch.nn.modules.activation.Softplus")}, "Softplus"),
    ({"dense": dense(in_features=16)}, "in_features"),
    ({"dense": dense(out_features="4")}, "out_features"),
    ({"dense": dense(use_residual=True)}, "use_residual"),
    ({"dense": dense(module_input_name="token_embeddings")}, "module_input_name"),
    ({"length": {"max_seq_length": 0}}, "max_seq_length"),
    ({"length": {"max_seq_length": 8, "transformer_task": "fill-mask"}}, "transformer_task"),
    ({"length": {"processing_kwargs": {"text": {"max_length": 5}}}}, "processing_kwargs"),
    ({"length": {"modality_config": {"text": {"method": "get_text_features"}}}}, "modality_config"),
    ({"prompts": {"model_type": "SparseEncoder"}}, "model_type"),
    ({"prompts": {"default_prompt_name": "q", "prompts": {}}}, "default_prompt_name"),
    ({"prompts": {"truncate_dim": 3}}, "truncate_dim"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field"), REFUSED, ids=[field for _, field in REFUSED])
def test_what_is_not_served_is_refused_by_its_name(changes: dict[str, Any], field: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError) as refused:
        read(sentence_files(tmp_path, **changes))
    assert refused.value.reason is Reason.UNSUPPORTED_ARCHITECTURE
    assert field in refused.value.message
    assert str(tmp_path) in refused.value.message


@pytest.mark.parametrize("kind", ["custom.MyPooling", "sentence_transformers.models.CNN"])
def test_modules_of_other_kinds_are_refused(kind: str, tmp_path: Path) -> None:
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": kind}]
    with pytest.raises(CacheError, match=kind.rpartition(".")[2]):
        read(sentence_files(tmp_path, modules=modules))


@pytest.mark.parametrize("content", ["{", "[1]", json.dumps({"x": "y" * (1 << 20)})])
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "sentence_bert_config.json").write_text(content)
    with pytest.raises(LoadError, match="sentence_bert_config") as refused:
        read(tmp_path)
    assert refused.value.reason is Reason.CORRUPT_WEIGHTS
