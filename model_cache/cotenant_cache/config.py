"""config.json → sizes, whatever an architecture calls them. Pure."""

from collections.abc import Mapping
from typing import Any

from cotenant_cache.errors import UnsafeFilesError, UnsupportedArchitectureError

DTYPE_BYTES = {"float64": 8, "float32": 4, "float16": 2, "half": 2, "bfloat16": 2, "float": 4, "double": 8}
SIZES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "dim"),
    "intermediate_size": ("intermediate_size", "n_inner", "hidden_dim", "encoder_ffn_dim", "d_ff"),
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "encoder_layers", "num_layers"),
    "attention_heads": ("num_attention_heads", "n_head", "n_heads", "encoder_attention_heads", "num_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len"),
}
_LARGEST = 2**53
PADDED_POSITIONS = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Families whose positions begin after the padding token's, so that the first ones of the table are never used."""
_OWN_PADDING = {"mpnet": 1}
"""Families that do not take it from the configuration."""
_OWN_CODE = ("auto_map", "trust_remote_code", "custom_pipelines")
_OTHER_SENSES = ("vision_config", "audio_config", "speech_config", "video_config")


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language part of a multimodal model's configuration, with the whole around it; else the whole."""
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, Mapping) else config


def refuse_own_code(config: Mapping[str, Any], *, source: str, file: str) -> None:
    """Raises UnsafeFilesError when the file asks, at any depth, for Python code that comes with the model.

    Parts of a configuration are configurations that transformers reads by themselves, and some of its models have
    taken the permission to run code from there.
    """
    left: list[Any] = [config]
    while left:
        value = left.pop()
        if isinstance(value, Mapping):
            named = next((name for name in _OWN_CODE if value.get(name)), None)
            if named is not None:
                raise UnsafeFilesError(
                    f"{source}: {file} has {named}, which runs Python code that comes with the model; that is never "
                    "run. Use a model that transformers implements itself; if this one is, remove "
                    f"{named} from a local copy"
                )
            left += value.values()
        elif isinstance(value, list):
            left += value


def architecture(config: Mapping[str, Any], source: str) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str) or not names[0].isidentifier():
        raise UnsupportedArchitectureError(
            f"{source}: config.json names no architecture ('architectures'); save the model with save_pretrained"
        )
    return names[0]


def family(config: Mapping[str, Any]) -> str:
    """`model_type`; empty when it names none."""
    named = config.get("model_type")
    return named if isinstance(named, str) else ""


def size(config: Mapping[str, Any], source: str, *names: str, default: int | None = None) -> int:
    """The first of these fields that is set. Raises UnsupportedArchitectureError."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
            raise UnsupportedArchitectureError(
                f"{source}: config.json has {name} = {repr(value)[:80]}, not a size of at least 1 and at most "
                f"{_LARGEST}; ask the owner of the model"
            )
        return value
    if default is None:
        raise UnsupportedArchitectureError(
            f"{source}: config.json has none of {', '.join(names)}, so its memory cannot be estimated; "
            "language models in Hugging Face format are served"
        )
    return default


def head_dim(config: Mapping[str, Any], source: str, otherwise: int) -> int:
    """Latent attention (`qk_nope_head_dim`) caches keys of both parts; the wider of key and value counts."""
    if config.get("qk_nope_head_dim") is not None:
        nope = size(config, source, "qk_nope_head_dim")
        return nope + size(config, source, "qk_rope_head_dim", default=0)
    return size(config, source, "head_dim", default=max(1, otherwise))


def longest_text(config: Mapping[str, Any], source: str) -> int:
    """Tokens of the longest text the model has positions for; 0 when it names no limit.

    Plans and engines both ask here. Raises UnsupportedArchitectureError.
    """
    positions = size(config, source, *SIZES["max_position_embeddings"], default=0)
    if not positions or family(config) not in PADDED_POSITIONS:
        return positions
    if config.get("position_embedding_type", "absolute") == "rotary":  # no table, as esm may be
        return positions
    padding = _OWN_PADDING.get(family(config), config.get("pad_token_id"))
    return max(1, positions - (padding if isinstance(padding, int) and padding >= 0 else 1) - 1)


def labels(config: Mapping[str, Any], source: str) -> int:
    """Outputs of a sequence classifier; transformers' own default is 2."""
    named = config.get("id2label")
    if isinstance(named, Mapping) and named:
        return len(named)
    return size(config, source, "num_labels", default=2)


def text_only(config: Mapping[str, Any]) -> bool:
    """Whether it is one stack over text: no image or sound goes in, and nothing is decoded from an encoder."""
    return not config.get("is_encoder_decoder") and not any(config.get(name) for name in _OTHER_SENSES)


def dtype(*configs: Mapping[str, Any]) -> str:
    """The dtype that weights are loaded in. When config.json names none, engines on the CPU load float32; on a
    GPU they load half of that, and the estimate is an upper bound."""
    for config in configs:
        for name in ("dtype", "torch_dtype"):
            value = str(config.get(name, "")).removeprefix("torch.")
            if value in DTYPE_BYTES:
                return value
    return "float32"
