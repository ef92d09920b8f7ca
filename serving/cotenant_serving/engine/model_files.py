"""What an engine needs of a model's folder beyond what the weight cache has checked. Knows no torch."""

from pathlib import Path

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def check_tokenizer(folder: Path) -> None:
    """Some tokenizer is there. Raises LoadError(FileMissing)."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise LoadError(
            Reason.FILE_MISSING,
            f"{folder / TOKENIZERS[0]} is missing: no tokenizer is in the folder. Fetch the model again, complete.",
        )
