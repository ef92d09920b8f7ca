"""What a listing may say of a model's files, whoever made it: a hub, a proxy before it, another node. Pure."""

from collections.abc import Collection

from cotenant_cache.contract import ModelFile

MOST_FILES = 10_000
"""That an engine may read. Models have some thousands of shards at most; each file costs a request and a row."""
MOST_BYTES = 2**50
"""Of them together. What a volume's ledger can add up ends at 2**63."""


def excess(files: Collection[ModelFile]) -> str:
    """What is too much for a model, as `20000 files (at most 10000 are taken)`; empty when nothing is."""
    if len(files) > MOST_FILES:
        return f"{len(files)} files (at most {MOST_FILES} are taken)"
    size_bytes = sum(file.size_bytes for file in files)
    return f"{size_bytes} bytes (at most {MOST_BYTES} are taken)" if size_bytes > MOST_BYTES else ""
