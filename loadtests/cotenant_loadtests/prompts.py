"""Prompts from a file: a text per line; in `.jsonl` files a JSON object per line. The only place that reads them."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from cotenant_loadtests.planned import MOST_TOKENS
from cotenant_loadtests.problems import check_size, read_errors, refused

MAX_BYTES = 64 * 2**20


class Prompt(msgspec.Struct, frozen=True):
    """Of a line of JSON, other fields are passed over, so that data sets can be used as they are."""

    prompt: str
    output_tokens: int | None = None


def read_prompts(path: Path) -> list[Prompt]:
    """At least one; empty lines are passed over. Raises ScenarioError with file and line."""
    with read_errors(path):
        check_size(path, MAX_BYTES)
        lines = path.read_text(encoding="utf-8").split("\n")
    read: Callable[[Path, int, str], Prompt] = _json_line if path.suffix == ".jsonl" else _text_line
    prompts = [read(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not prompts:
        raise refused(path, 0, "has no prompts; write one on each line")
    return prompts


def _text_line(path: Path, number: int, line: str) -> Prompt:
    return Prompt(line.removesuffix("\r"))


def _json_line(path: Path, number: int, line: str) -> Prompt:
    try:
        prompt = msgspec.json.decode(line, type=Prompt)
    except (ValueError, RecursionError) as error:  # of msgspec: all that it raises
        raise refused(path, number, f"is no JSON object with prompt and perhaps output_tokens: {error}") from None
    few_or_none = prompt.output_tokens is None or 1 <= prompt.output_tokens <= MOST_TOKENS
    if not prompt.prompt.strip() or not few_or_none:
        raise refused(path, number, f"prompt must not be empty, and output_tokens must be from 1 to {MOST_TOKENS}")
    return prompt
