"""Plans and engines count a model's positions alike, and as transformers does, for every family it has."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from cotenant_cache import config
from cotenant_serving.engine.texts import position_limit

NOT_TEXT_ALONE = {"altclip", "bridgetower", "clap", "evolla", "lxmert", "pp_doclayout_v2"}
"""Modules of transformers with such a table that read images or sound too."""
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 40,
    "max_position_embeddings": 66,
    "attention_window": [8],
}
FAMILIES = sorted(config.PADDED_POSITIONS)


@pytest.mark.parametrize("family", ["bert", *FAMILIES])
@pytest.mark.parametrize("padding", [1, 3])
def test_positions_are_those_of_the_table_behind_the_padding(family: str, padding: int) -> None:
    made = transformers.AutoConfig.for_model(family, **SMALL, pad_token_id=padding)
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(made)
    table: Any = model.get_submodule("embeddings.position_embeddings")
    begin = table.padding_idx + 1 if table.padding_idx is not None else 0

    assert position_limit(model) == table.weight.shape[0] - begin
    assert config.longest_text({**made.to_dict(), "model_type": family}, "m") == table.weight.shape[0] - begin


def test_no_family_of_transformers_is_forgotten() -> None:
    folder = Path(transformers.__file__).parent / "models"
    padded = re.compile(
        r"self\.position_embeddings = \w*\.?\w*Embedding\([^)]*padding_idx=|position_embeddings = QuantEm"
    )
    found = {
        file.parent.name for file in folder.glob("*/modeling_*.py") if padded.search(file.read_text(encoding="utf-8"))
    }

    assert found - NOT_TEXT_ALONE == {_module(family) for family in FAMILIES}


def _module(family: str) -> Any:
    return transformers.AutoConfig.for_model(family).__module__.split(".")[-2]
