"""Traces: when requests came somewhere, and how long they were."""

from typing import NamedTuple

BLOCK_TOKENS = 512
"""Of Mooncake's `hash_ids`: one block of the KV cache."""


class TraceRow(NamedTuple):
    """One request of a trace. Traces name neither tenants nor models: those are drawn as the scenario says."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    """Hash ids of the prompt's blocks: equal ids are equal text."""
