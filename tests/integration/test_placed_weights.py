"""Models whose weights our own reader placed, against transformers' whole `from_pretrained`."""

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.builders.text_models import bert_tokenizer, make_bert, make_llama_classifier, make_roberta

from cotenant_cache.client import open_checked
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.loader import _KINDS, _model_config, _refuse_missing_weights, _without_pooler
from cotenant_serving.engine.placed_weights import place_weights

pytestmark = pytest.mark.integration


def no_progress(stage: str, fraction: float, **more: Any) -> None:
    del stage, fraction, more


def placed(
    folder: Path, task: Any, dtype: Any = None, progress: Any = no_progress, *, immutable: bool = False
) -> tuple[Any, Any]:
    import torch
    import transformers

    opened = replace(open_checked(f"file://{folder}", ""), immutable=immutable)
    config, model_class = _model_config(transformers, _KINDS[task], folder, opened.facts.architecture)
    return place_weights(
        model_class,
        config,
        opened,
        "cpu",
        progress,
        dtype=dtype or torch.float32,
        **_without_pooler(model_class),
    )


def by_transformers(folder: Path, auto_class: str, dtype: Any = None, **options: Any) -> Any:
    import torch
    import transformers

    return getattr(transformers, auto_class).from_pretrained(folder, dtype=dtype or torch.float32, **options).eval()


def assert_same(found: Any, expected: Any) -> None:
    """Every parameter and buffer, the ones of no file included; and what is tied there is tied here."""
    import torch

    assert type(found) is type(expected)
    for kind in ("named_parameters", "named_buffers"):
        ours = dict(getattr(found, kind)(remove_duplicate=False))
        theirs = dict(getattr(expected, kind)(remove_duplicate=False))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].dtype == tensor.dtype, name
            assert ours[name].device == tensor.device, name
            assert torch.equal(ours[name], tensor), name
        assert tied(ours) == tied(theirs)


def tied(tensors: dict[str, Any]) -> set[frozenset[str]]:
    by_address: dict[int, set[str]] = {}
    for name, tensor in tensors.items():
        by_address.setdefault(tensor.data_ptr(), set()).add(name)
    return {frozenset(names) for names in by_address.values() if len(names) > 1}


def make_llama(folder: Path, *, tie: bool, shards: bool = False) -> Path:
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tie,
    )
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [7, 9]
    model.save_pretrained(folder, max_shard_size="20KB" if shards else "1GB")
    bert_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("shards", [False, True])
def test_a_decoder_is_the_one_that_transformers_loads(tmp_path: Path, tie: bool, shards: bool) -> None:
    folder = make_llama(tmp_path / "m", tie=tie, shards=shards)
    assert shards == (len(list(folder.glob("*.safetensors"))) > 1)

    model, report = placed(folder, "generate")
    expected = by_transformers(folder, "AutoModelForCausalLM")

    assert not report["missing_keys"]
    assert_same(model, expected)
    assert len(tied(dict(model.named_parameters(remove_duplicate=False)))) == tie
    assert model.generation_config.to_dict() == expected.generation_config.to_dict()
    assert model.generation_config.eos_token_id == [7, 9]
    assert model.config.name_or_path == str(folder)


def test_what_older_models_say_of_generation_in_their_config_counts(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "m", tie=False)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "eos_token_id": 5, "temperature": 0.3, "do_sample": True})
    )

    model, _ = placed(folder, "generate")
    expected = by_transformers(folder, "AutoModelForCausalLM").generation_config
    assert model.generation_config.to_dict() == expected.to_dict()
    assert model.generation_config.eos_token_id == 5


@pytest.mark.parametrize("make", [make_bert, make_roberta])
def test_an_encoder_is_the_one_that_transformers_loads(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "m")
    model, _ = placed(folder, "embed")
    assert_same(model, by_transformers(folder, "AutoModel", add_pooling_layer=False))


def test_a_stack_comes_out_of_the_weights_of_a_head(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "m", "BertForSequenceClassification", num_labels=3)
    model, _ = placed(folder, "embed")
    assert_same(model, by_transformers(folder, "AutoModel", add_pooling_layer=False))


def test_a_classifier_is_the_one_that_transformers_loads(tmp_path: Path) -> None:
    folder = make_llama_classifier(tmp_path / "m", pad=True)
    model, _ = placed(folder, "classify")
    assert_same(model, by_transformers(folder, "AutoModelForSequenceClassification"))


def test_tensors_of_old_names_are_renamed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_bert(tmp_path / "m")
    new = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in new.items()
    }
    assert old.keys() != new.keys()
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})

    model, report = placed(folder, "embed")
    assert not report["missing_keys"]
    assert_same(model, by_transformers(folder, "AutoModel", add_pooling_layer=False))


def test_tensors_of_experts_are_merged(tmp_path: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(4)
    config = transformers.Qwen3MoeConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        head_dim=8,
    )
    folder = tmp_path / "m"
    transformers.Qwen3MoeForCausalLM(config).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)

    model, report = placed(folder, "generate")
    assert not report["missing_keys"]
    assert_same(model, by_transformers(folder, "AutoModelForCausalLM"))


def test_weights_are_cast_to_the_dtype_of_the_model_and_their_memory_goes(tmp_path: Path) -> None:
    import torch

    folder = make_llama(tmp_path / "m", tie=True)
    model, _ = placed(folder, "generate", torch.bfloat16)
    gc.collect()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert_same(model, by_transformers(folder, "AutoModelForCausalLM", torch.bfloat16))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_files_of_the_cache_are_mapped_and_give_the_same_model(tmp_path: Path, dtype: str) -> None:
    """Mapped unless cast: what is cast has memory of its own, and the mapping goes."""
    import torch

    folder = make_llama(tmp_path / "m", tie=True, shards=True)
    model, _ = placed(folder, "generate", getattr(torch, dtype), immutable=True)
    gc.collect()
    assert_same(model, by_transformers(folder, "AutoModelForCausalLM", getattr(torch, dtype)))
    assert (str(folder) in Path("/proc/self/maps").read_text()) == (dtype == "float32")
    model.get_input_embeddings().weight.data.fill_(1.0)  # stays in this process
    again, _ = placed(folder, "generate", immutable=True)
    assert not bool((again.get_input_embeddings().weight == 1.0).all())


def test_a_loaded_model_does_not_change_with_its_files(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "m")
    model, _ = placed(folder, "embed")
    expected = by_transformers(folder, "AutoModel", add_pooling_layer=False).state_dict()
    expected = {name: tensor.clone() for name, tensor in expected.items()}
    file = folder / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))

    assert all(bool((tensor == expected[name]).all()) for name, tensor in model.state_dict().items())


def test_a_tensor_that_no_file_has_is_still_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make_bert(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    _, report = placed(folder, "embed")
    with pytest.raises(LoadError, match=r"lack 1 tensors .*encoder\.layer\.1\.output\.dense\.weight"):
        _refuse_missing_weights(folder, report)


def test_the_stage_says_how_many_bytes_were_read_and_how_fast(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "m")
    size = (folder / "model.safetensors").stat().st_size
    told: list[tuple[str, float]] = []
    placed(folder, "embed", progress=lambda stage, fraction: told.append((stage, fraction)))

    assert told[0][0].startswith(f"reading weights: {size} of {size} bytes at ")
    assert [fraction for _, fraction in told] == [0.8, 0.8]
