"""Which files of a model are ever fetched, by name; and why the others are not. Pure."""

import re
from typing import Literal

Kind = Literal["weights", "description", "code", "pickle", "text", "binary"]

PLAIN_NAME = re.compile(r"\w[\w .+-]*(/\w[\w .+-]*)?", re.ASCII)
"""Of a file, or of one in a folder directly below: the only names of a listing that are ever joined to a path."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz")
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".ipynb", ".whl")
_DESCRIPTIONS = (".json", ".jinja", ".model", ".tiktoken")
_TEXTS = (".md", ".txt", ".gitattributes", ".gitignore", ".png", ".jpg", ".jpeg", ".svg", ".pdf", ".csv")
_REFUSALS: dict[Kind, str] = {
    "code": "is code, which is never fetched and never run",
    "pickle": "may run code when it is read; it is never fetched: use safetensors",
    "binary": "is of no kind that is read; weights are read from safetensors and .pt2 archives",
}


def kind_of(name: str) -> Kind:
    """`description`: tokenizer, configuration and generation files. What has an unknown ending is `binary`."""
    lower = name.lower()
    if lower.endswith((".safetensors", ".pt2")):
        return "weights"
    if lower.endswith(_CODE):
        return "code"
    if lower.endswith(_PICKLES):
        return "pickle"
    if lower.endswith(_DESCRIPTIONS) or lower.rpartition("/")[2] in ("merges.txt", "vocab.txt"):
        return "description"
    base = lower.rpartition("/")[2]
    return "text" if lower.endswith(_TEXTS) or base in ("license", "notice", "readme") else "binary"


def refusal(name: str) -> str:
    """Why a file stays on the hub, as `modeling_x.py is code, …`; empty for what may be fetched or is only read."""
    said = _REFUSALS.get(kind_of(name), "")
    return f"{name} {said}" if said else ""
