"""The files with which sentence-transformers says how a text becomes a vector. Pure.

modules.json                 [{"path": "", "type": "….Transformer"}, {"path": "1_Pooling", "type": "….Pooling"}, …]
1_Pooling/config.json        how the vectors of tokens become one
2_Dense/                     a linear layer after it: config.json and model.safetensors
sentence_bert_config.json    {"max_seq_length": 512}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cotenant_cache.errors import CorruptWeightsError, UnsafeFilesError, UnsupportedArchitectureError

MODULES_FILE = "modules.json"
LENGTH_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""Names that one file has had; sentence-transformers reads the first that is there."""
KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last_token"]
_PLAIN_FOLDER = re.compile(r"[\w][\w.-]*", re.ASCII)
_MODE_FIELDS: dict[str, PoolingMode] = {  # in the order in which several are joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}
_MODE_WORDS: dict[str, PoolingMode] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}


@dataclass(frozen=True, slots=True)
class Module:
    kind: str
    path: str
    """Its folder below the model's; empty for the model's own."""


def parse_modules(value: Any, *, source: str) -> tuple[Module, ...]:
    """The content of modules.json, in order. Raises CorruptWeightsError, UnsafeFilesError."""
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        raise CorruptWeightsError(f"{source}: {MODULES_FILE} is not a list of modules; fetch the model again")
    return tuple(_module(item, source) for item in value)


def _module(item: Mapping[str, Any], source: str) -> Module:
    kind, path = str(item.get("type", "")), item.get("path", "")
    if not kind.startswith("sentence_transformers."):
        raise UnsafeFilesError(
            f"{source}: {MODULES_FILE} has the type {kind!r}, which is Python code that comes with the model; "
            "that is never run. Use a model of sentence-transformers' own modules"
        )
    if not isinstance(path, str) or (path and not _PLAIN_FOLDER.fullmatch(path)):
        raise UnsafeFilesError(
            f"{source}: {MODULES_FILE} has the path {path!r}, which is no folder directly below the model's; "
            "get the model again from a source that you trust"
        )
    return Module(kind.rpartition(".")[2], path)


def refuse_other_modules(modules: Sequence[Module], *, source: str) -> None:
    """Raises UnsupportedArchitectureError unless it is a transformer of the model's own folder, pooled, and at most
    followed by linear layers and normalisation."""
    kinds = [module.kind for module in modules]
    other = [kind for kind in kinds if kind not in KINDS]
    if other:
        raise UnsupportedArchitectureError(
            f"{source}: {MODULES_FILE} has a module {other[0]}; served are {', '.join(KINDS)}"
        )
    if kinds[:2] != ["Transformer", "Pooling"] or kinds.count("Transformer") + kinds.count("Pooling") != 2:
        raise UnsupportedArchitectureError(
            f"{source}: {MODULES_FILE} lists {', '.join(kinds)}; served is one Transformer, then one Pooling, "
            "then any Dense and Normalize"
        )
    if modules[0].path:
        raise UnsupportedArchitectureError(
            f"{source}: {MODULES_FILE} keeps the transformer in {modules[0].path}/; it must be in the model's "
            "own folder. Save the model again with a current sentence-transformers"
        )


def pooling_modes(config: Mapping[str, Any], *, source: str, file: str) -> tuple[PoolingMode, ...]:
    """How the vectors of a text's tokens become one; several are joined, in this order.

    A list has its own order, flags have sentence-transformers'. Raises UnsupportedArchitectureError for a way that is
    not known.
    """
    word = config.get("pooling_mode")
    asked = [word] if isinstance(word, str) else word if isinstance(word, list | tuple) else None
    if asked is None:
        on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
        asked = sorted(on, key=lambda name: [*_MODE_FIELDS, name].index(name))
    known = {**_MODE_FIELDS, **_MODE_WORDS}
    unknown = [str(name) for name in asked if str(name) not in known]
    if unknown or not asked:
        raise UnsupportedArchitectureError(
            f"{source}: {file} asks for the pooling {unknown[0] if unknown else 'none'}; known are "
            f"{', '.join(_MODE_WORDS)}"
        )
    return tuple(known[str(name)] for name in asked)
