"""Is an answer right? Pure. Every finding is an outcome and a short word that quotes neither prompt nor answer."""

import re
import zlib
from itertools import cycle, islice
from typing import Any, NamedTuple

import msgspec

from cotenant_loadtests.answer_shapes import Embeddings, Inference, OutputTensor, Usage
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.record import NEVER, Outcome
from cotenant_loadtests.words import text_of

_CODE = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_OTHERS = re.compile(r"[^\x21-\x7e]+")
MAX_WORD_CHARS = 64
MAX_TOKENS = 10**9
"""More than any answer has; sums over all requests of a run still fit into 64 bits."""
MAX_RANK = 64
"""Of a tensor; numpy's is the same."""


class Finding(NamedTuple):
    outcome: Outcome
    detail: str = ""


class EchoAnswer(NamedTuple):
    text: str
    tokens: int


def status_outcome(status: int) -> Outcome | None:
    """None: 200, the answer decides."""
    if status == 200:
        return None
    if 300 <= status < 400:
        return "redirect"
    known: dict[int, Outcome] = {429: "rate_limited", 503: "overloaded"}
    return known.get(status, "http_error")


def echo_answer(planned: Planned) -> EchoAnswer:
    """What cotenant's echo engine answers: words of the last user message (the prompt) in turn, then a checksum.

    A word is a token; with `max_tokens` n there are n, the checksum is the last. Without, each word comes once.
    """
    users = [message for message in planned.messages if message.role == "user"]
    words = text_of((users or planned.messages)[-1]).split()
    tokens = planned.max_tokens or len(words) + 1
    spoken = " ".join(islice(cycle(words or ["empty"]), tokens - 1))
    return EchoAnswer(f"{spoken} [crc32={zlib.crc32(spoken.encode()):08x}]", tokens)


def same_model(asked: str, answered: str, *, exactly: bool = False) -> bool:
    """Unless `exactly`, a name may be said with its namespace or bare: `team/echo` and `echo`."""
    if asked == answered or exactly:
        return asked == answered
    return ("/" in asked) != ("/" in answered) and asked.rsplit("/", 1)[-1] == answered.rsplit("/", 1)[-1]


def check_usage(usage: Usage | None, expected_tokens: int | None) -> Finding | None:
    """Of chat and completions: all three counts are there and add up; an echo answer's length is known."""
    if usage is None:
        return Finding("wrong_usage", "missing")
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    if min(counts) < 0:
        return Finding("wrong_usage", "incomplete")
    if max(counts) > MAX_TOKENS:
        return Finding("wrong_usage", "too_many")
    if usage.prompt_tokens + usage.completion_tokens != usage.total_tokens:
        return Finding("wrong_usage", "sum")
    if expected_tokens is not None and usage.completion_tokens != expected_tokens:
        return Finding("wrong_usage", "completion_tokens")
    return None


def check_embeddings(planned: Planned, answer: Embeddings) -> Finding | None:
    """A vector for each input, in order, all of the same length."""
    if not answer.data:
        return Finding("empty")
    if [vector.index for vector in answer.data] != list(range(len(planned.messages))):
        return Finding("wrong_answer", "vectors")
    if len({len(vector.embedding) for vector in answer.data}) > 1 or not answer.data[0].embedding:
        return Finding("wrong_answer", "dimensions")
    return None if answer.usage is None else _check_input_usage(answer.usage)


def _check_input_usage(usage: Usage) -> Finding | None:
    """Where nothing is generated, not every server tells every count."""
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    if min(counts) < NEVER:
        return Finding("wrong_usage", "incomplete")
    if max(counts) > MAX_TOKENS:
        return Finding("wrong_usage", "too_many")
    if usage.total_tokens < usage.prompt_tokens + max(0, usage.completion_tokens):
        return Finding("wrong_usage", "sum")
    return None


def check_inference(answer: Inference) -> Finding | None:
    """Every output has as many values as its shape says."""
    if not answer.outputs:
        return Finding("empty")
    return None if all(map(_fits_its_shape, answer.outputs)) else Finding("wrong_answer", "shape")


def _fits_its_shape(output: OutputTensor) -> bool:
    if output.data is None:
        return isinstance((output.parameters or {}).get("binary_data_size"), int)
    values = _values(output.data)
    return _size_up_to(values, output.shape) == values


def _size_up_to(most: int, shape: list[int]) -> int:
    """How many values a tensor of the shape has; NEVER if more than `most`. A product of many lengths takes long."""
    if len(shape) > MAX_RANK or min(shape, default=0) < 0:
        return NEVER
    size = 0 if 0 in shape else 1
    for length in shape:
        size *= length
        if size > most:
            return NEVER
    return size


def _values(data: list[Any]) -> int:
    """Tensors may be nested or flat."""
    return sum(_values(row) if isinstance(row, list) else 1 for row in data)


def decoding_finding(data: bytes | bytearray, problem: Exception, shape: Outcome) -> Finding:
    """Why `data` could not be decoded; `shape` where it is JSON of another form."""
    if not is_utf8(data):
        return Finding("bad_utf8")
    return Finding(shape, "shape") if isinstance(problem, msgspec.ValidationError) else Finding("bad_json")


def is_utf8(data: bytes | bytearray) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def error_code(body: bytes) -> str:
    """Of an error's JSON: `error.code`, else `error.type`; empty where there is none that looks like a code."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    return code_of(fields.get("error", fields)) if isinstance(fields, dict) else ""


def code_of(error: Any) -> str:
    """An error's code. Its message is never taken: some servers quote the request there."""
    if not isinstance(error, dict):
        return ""
    codes = [error.get("code"), error.get("type")]
    named = [code for code in codes if isinstance(code, str) and _CODE.fullmatch(code)]
    return named[0] if named else ""


def short_word(text: str) -> str:
    """A server's word, fit to be shown: printable, without spaces, bounded."""
    return _OTHERS.sub("?", text[:MAX_WORD_CHARS])


def tokens_of(usage: Usage | None) -> tuple[int, int]:
    """(prompt, completion) tokens, or NEVER; a count that no answer can have is NEVER, whatever is checked."""
    if usage is None:
        return NEVER, NEVER
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return (
        prompt if 0 <= prompt <= MAX_TOKENS else NEVER,
        completion if 0 <= completion <= MAX_TOKENS else NEVER,
    )
