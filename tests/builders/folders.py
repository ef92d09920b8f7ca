"""Model folders with tiny zero weights, for what is judged without reading a tensor."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cotenant_cache.facts import WeightsFile, archive_facts
from tests.builders.operator import SOURCE, safetensors

BERT: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "vocab_size": 100,
    "pad_token_id": 0,
}
BERT_BASE: dict[str, Any] = {
    "architecture": "BertModel",
    "family": "bert",
    "weights_bytes": 440_000_000,
    "layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "attention_heads": 12,
    "kv_heads": 12,
    "head_dim": 64,
    "dtype": "float32",
    "dtype_bytes": 4,
    "max_position_embeddings": 512,
}
"""Fields of its facts: 110 million parameters in float32."""
ARCHIVE = archive_facts(
    source=SOURCE,
    fingerprint="a" * 40,
    file=WeightsFile("net.pt2", 100 * 2**20),
    unpacked_bytes=100 * 2**20,
)
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
]
DENSE = safetensors({"linear.weight": ("F32", [8, 64], 2048), "linear.bias": ("F32", [8], 32)})


def sentence_files(**config: Any) -> dict[str, bytes]:
    """Every file of a sentence-transformers model by name, with some that nobody may fetch."""
    return {
        "config.json": json.dumps({**BERT, **config}).encode(),
        "tokenizer.json": b"{}",
        "model.safetensors": safetensors(),
        "modules.json": json.dumps(MODULES).encode(),
        "sentence_bert_config.json": b'{"max_seq_length": 256, "do_lower_case": false}',
        "config_sentence_transformers.json": b'{"prompts": {"query": "query: "}}',
        "1_Pooling/config.json": b'{"word_embedding_dimension": 64, "pooling_mode_mean_tokens": true}',
        "2_Dense/config.json": b'{"in_features": 64, "out_features": 8, "bias": true}',
        "2_Dense/model.safetensors": DENSE,
        "2_Dense/pytorch_model.bin": b"pickle",
        "2_Dense/dense.py": b"print('never')",
        "onnx/config.json": b"{}",
        "README.md": b"# hello",
        "pytorch_model.bin": b"pickle",
    }


def folder_of(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def archive(*, without: str = "", root: str = "model", pickled: bool = False, **more: bytes) -> bytes:
    """A torch.export archive as torch 2.8 and newer lay it out, with 1024 bytes of weights. `more` are further
    entries, their names with `__` for `/`."""
    described = {"config": {"weight": {"path_name": "weight_0", "use_pickle": pickled}}}
    entries = {
        "archive_format": b"pt2",
        "models/model.json": b"{}",
        "data/weights/weight_0": bytes(1024),
        "data/weights/model_weights_config.json": json.dumps(described).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "data/sample_inputs/model.pt": b"pickle",
        **{name.replace("__", "/"): content for name, content in more.items()},
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, content in entries.items():
            if name != without:
                opened.writestr(f"{root}/{name}", content)
    return stream.getvalue()
