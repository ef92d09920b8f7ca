"""What must be known of a model before it may run: sizes from config.json and from headers of its weights. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cotenant_cache import config as fields
from cotenant_cache.headers import WeightsHeader

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
CLASSIFIER = "ForSequenceClassification"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Sizes of one model at one revision. `weights_bytes` is as loaded: floats in `dtype`, the rest as stored.

    Of a torch.export archive only `archive`, `weights_bytes` and `files` are known; its other sizes are 0.
    """

    source: str
    """What it resolved to: `file:///dir`, or `hf://repo@commit` with all 40 hex digits."""
    fingerprint: str
    """Changes when a file does: from names, sizes and times, or the commit."""
    architecture: str
    """The first of config.json's `architectures`; empty for an archive."""
    weights_bytes: int
    num_parameters: int
    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    dtype: str
    dtype_bytes: int
    max_position_embeddings: int
    """Tokens of the longest text it has positions for; 0 when it names no limit."""
    max_sequence_tokens: int = 0
    """Tokens that sentence-transformers cuts a text to (`max_seq_length`); 0 when nothing says so."""
    num_labels: int = 0
    """Outputs of a sequence classifier; 0 for every other architecture."""
    modules: tuple[str, ...] = ()
    """Of modules.json, when it makes vectors of texts: `Transformer`, `Pooling`, then `Dense` or `Normalize`."""
    family: str = ""
    """config.json's `model_type`; empty when it names none."""
    text_only: bool = True
    """One stack over text: no image or sound goes in, and nothing is decoded from an encoder."""
    archive: str = ""
    """Name of the torch.export archive; empty for a model in Hugging Face format."""
    files: tuple[WeightsFile, ...] = ()
    """The weights files that are loaded."""


def facts_from(
    *,
    source: str,
    fingerprint: str,
    config: Mapping[str, Any],
    headers: Sequence[WeightsHeader],
    files: Iterable[WeightsFile],
    modules: tuple[str, ...] = (),
    max_sequence_tokens: int = 0,
) -> ModelFacts:
    """config.json and the headers of all weights files → facts. Raises CacheError."""
    fields.refuse_own_code(config, source=source, file="config.json")
    text = fields.text_part(config)
    dtype = fields.dtype(config, text)
    hidden = fields.size(text, source, *fields.SIZES["hidden_size"])
    heads = fields.size(text, source, *fields.SIZES["attention_heads"])
    architecture = fields.architecture(config, source)
    return ModelFacts(
        source=source,
        fingerprint=fingerprint,
        architecture=architecture,
        weights_bytes=_loaded_bytes(headers, fields.DTYPE_BYTES[dtype]),
        num_parameters=sum(sum(header.parameters_by_dtype.values()) for header in headers),
        layers=fields.size(text, source, *fields.SIZES["layers"]),
        hidden_size=hidden,
        attention_heads=heads,
        intermediate_size=fields.size(text, source, *fields.SIZES["intermediate_size"], default=4 * hidden),
        kv_heads=fields.size(text, source, *fields.SIZES["kv_heads"], default=heads),
        head_dim=fields.head_dim(text, source, hidden // heads),
        vocab_size=fields.size(text, source, "vocab_size"),
        dtype=dtype,
        dtype_bytes=fields.DTYPE_BYTES[dtype],
        max_position_embeddings=fields.longest_text(text, source),
        max_sequence_tokens=max_sequence_tokens,
        num_labels=fields.labels(config, source) if architecture.endswith(CLASSIFIER) else 0,
        modules=modules,
        family=fields.family(text),
        text_only=fields.text_only(config),
        files=tuple(files),
    )


def archive_facts(*, source: str, fingerprint: str, file: WeightsFile, unpacked_bytes: int) -> ModelFacts:
    """A torch.export archive → facts. Its tensors have dtypes of their own, which stay."""
    return ModelFacts(
        source=source,
        fingerprint=fingerprint,
        architecture="",
        weights_bytes=unpacked_bytes,
        num_parameters=0,
        layers=0,
        hidden_size=0,
        intermediate_size=0,
        attention_heads=0,
        kv_heads=0,
        head_dim=0,
        vocab_size=0,
        dtype="",
        dtype_bytes=0,
        max_position_embeddings=0,
        archive=file.name,
        files=(file,),
    )


def _loaded_bytes(headers: Sequence[WeightsHeader], dtype_bytes: int) -> int:
    total = 0
    for header in headers:
        for dtype, stored_bytes in header.bytes_by_dtype.items():
            floats = dtype in _FLOATS
            total += header.parameters_by_dtype[dtype] * dtype_bytes if floats else stored_bytes
    return total
