"""Prompts from a file: a text per line, or JSON lines."""

from typing import NamedTuple


class Prompt(NamedTuple):
    text: str
    output_tokens: int | None = None
