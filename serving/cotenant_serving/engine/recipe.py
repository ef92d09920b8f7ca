"""How the vectors of a text's tokens become one vector, as the model's own files say. Knows no torch.

Files of sentence-transformers say it (`modules.json` and what it names; see `cotenant_cache.modules`). Without them
it is what vLLM and text-embeddings-inference do: the first token of an encoder, the last of a decoder, normalised.
Whatever such a file asks for and is not served is refused, never left out: it would be another vector.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotenant_cache.modules import (
    LENGTH_FILES,
    MODULES_FILE,
    Module,
    PoolingMode,
    parse_modules,
    pooling_modes,
    refuse_other_modules,
)
from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError

PROMPTS_FILE = "config_sentence_transformers.json"
MAX_JSON_BYTES = 1 << 20
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
}
"""Activations by the names that files have for them. Nothing else is looked up: a name in a file is not imported."""


@dataclass(frozen=True, slots=True)
class Dense:
    """A linear layer and its activation; `weights` is a safetensors file."""

    weights: Path
    in_features: int
    out_features: int
    bias: bool
    activation: str
    """One of the values of ACTIVATIONS."""


@dataclass(frozen=True, slots=True)
class Normalize:
    """To unit length."""


@dataclass(frozen=True, slots=True)
class Recipe:
    modes: tuple[PoolingMode, ...]
    """Several are joined in this order."""
    steps: tuple[Dense | Normalize, ...]
    max_tokens: int | None = None
    lower: bool = False
    prompt: str = ""
    """Stands before every text (not before token ids)."""

    @property
    def normalized(self) -> bool:
        return bool(self.steps) and isinstance(self.steps[-1], Normalize)


def read_recipe(folder: Path, *, hidden_size: int, decoder: bool) -> Recipe:
    """Raises CacheError, or LoadError(UnsupportedArchitecture) for what is not served."""
    length_file = next((file for name in LENGTH_FILES if (file := folder / name).is_file()), folder / LENGTH_FILES[0])
    max_tokens, lower = _length(_object(length_file), length_file)
    prompt = _prompt(_object(folder / PROMPTS_FILE), folder / PROMPTS_FILE)
    if not (folder / MODULES_FILE).is_file():
        return Recipe(("last_token" if decoder else "cls",), (Normalize(),), max_tokens, lower, prompt)
    source = str(folder)
    modules = parse_modules(_json(folder / MODULES_FILE), source=source)
    refuse_other_modules(modules, source=source)
    modes = _pooling(folder / modules[1].path / "config.json", source, hidden_size, prompt)
    steps = tuple(_step(folder, module) for module in modules[2:])
    _check_sizes(folder, steps, hidden_size * len(modes))
    return Recipe(modes, steps, max_tokens, lower, prompt)


def output_size(recipe: Recipe, hidden_size: int) -> int:
    sizes = [step.out_features for step in recipe.steps if isinstance(step, Dense)]
    return sizes[-1] if sizes else hidden_size * len(recipe.modes)


def _pooling(file: Path, source: str, hidden_size: int, prompt: str) -> tuple[PoolingMode, ...]:
    config = _object(file)
    sizes = {"word_embedding_dimension": hidden_size, "embedding_dimension": hidden_size}
    for name, value in config.items():
        if name == "include_prompt":
            if value is not True and prompt:
                raise refused(file, name, value, "leaving the prompt out of the pooling")
        elif name in sizes:
            if value != sizes[name]:
                raise refused(file, name, value, f"any other size than config.json's, {sizes[name]}")
        elif not name.startswith("pooling_mode"):
            raise refused(file, name, value, "this field")
    return pooling_modes(config, source=source, file=str(file.relative_to(source)))


def _step(folder: Path, module: Module) -> Dense | Normalize:
    config = _object(file := folder / module.path / "config.json")
    for name in ("module_input_name", "module_output_name"):
        if config.get(name) not in (None, "sentence_embedding"):
            raise refused(file, name, config[name], "reading or writing anything but the sentence's vector")
    if module.kind == "Normalize":
        return Normalize()
    known = {"in_features", "out_features", "bias", "activation_function", "module_input_name", "module_output_name"}
    for name, value in config.items():
        if name not in known and value:
            raise refused(file, name, value, "this field")
    return Dense(
        folder / module.path / "model.safetensors",
        _size(file, config, "in_features"),
        _size(file, config, "out_features"),
        bool(config.get("bias", True)),
        activation(
            file, "activation_function", config.get("activation_function", "torch.nn.modules.activation.Tanh")
        ),
    )


def activation(file: Path, field: str, name: object) -> str:
    """Raises LoadError for one that is not in ACTIVATIONS."""
    found = ACTIVATIONS.get(name) if isinstance(name, str) else None
    if found is None:
        raise refused(file, field, name, f"an activation other than {', '.join(ACTIVATIONS)}")
    return found


def _check_sizes(folder: Path, steps: tuple[Dense | Normalize, ...], size: int) -> None:
    for step in steps:
        if isinstance(step, Dense):
            if step.in_features != size:
                file = step.weights.parent / "config.json"
                raise refused(file, "in_features", step.in_features, f"another size than it gets, {size}")
            size = step.out_features


def _length(config: Mapping[str, Any], file: Path) -> tuple[int | None, bool]:
    """(longest text in tokens, whether texts are lowered)."""
    text = config.get("modality_config")
    text = text.get("text") if isinstance(text, Mapping) else None
    plain: dict[str, tuple[object, ...]] = {
        "transformer_task": ("feature-extraction",),
        "module_output_name": ("token_embeddings",),
        "unpad_inputs": (True, False),
    }
    for name, value in config.items():
        if name == "modality_config":
            if text not in (None, {"method": "forward", "method_output_name": "last_hidden_state"}):
                raise refused(file, name, text, "text read in another way than by forward() → last_hidden_state")
        elif name not in ("max_seq_length", "do_lower_case") and value and value not in plain.get(name, ()):
            raise refused(file, name, value, "this field")
    longest = config.get("max_seq_length")
    return (_size(file, config, "max_seq_length") if longest is not None else None), config.get(
        "do_lower_case"
    ) is True


def _prompt(config: Mapping[str, Any], file: Path) -> str:
    """The prompt that every text gets when a request names none, which no request can."""
    for name, value in config.items():
        if name == "model_type" and value != "SentenceTransformer":
            raise refused(file, name, value, "anything but SentenceTransformer")
        if (
            name not in ("__version__", "model_type", "prompts", "default_prompt_name", "similarity_fn_name")
            and value
        ):
            raise refused(file, name, value, "this field")
    chosen = config.get("default_prompt_name")
    if not chosen:
        return ""
    prompts = config.get("prompts")
    prompt = prompts.get(chosen) if isinstance(prompts, Mapping) else None
    if not isinstance(prompt, str):
        raise refused(file, "default_prompt_name", chosen, "a prompt that is not in 'prompts'")
    return prompt


def _size(file: Path, config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise refused(file, name, value, "anything but a size of at least 1")
    return value


def _object(file: Path) -> Mapping[str, Any]:
    """Empty when there is no such file."""
    value = _json(file) if file.is_file() else {}
    if not isinstance(value, dict):
        raise LoadError(Reason.CORRUPT_WEIGHTS, f"{file} is not a JSON object. Fetch the model again.")
    return value


def _json(file: Path) -> Any:
    with file.open("rb") as stream:
        content = stream.read(MAX_JSON_BYTES + 1)
    try:
        return json.loads(content) if len(content) <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        raise LoadError(Reason.CORRUPT_WEIGHTS, f"{file} is not JSON. Fetch the model again.") from None


def refused(file: Path, field: str, value: object, what: str) -> LoadError:
    shown = json.dumps(value, default=str)
    return LoadError(
        Reason.UNSUPPORTED_ARCHITECTURE,
        f"{file} has {field} = {shown if len(shown) <= 80 else shown[:79] + '…'}; {what} is not served, and the "
        "answers would be others without it. Use another model, or change the file in a copy of your own.",
    )
