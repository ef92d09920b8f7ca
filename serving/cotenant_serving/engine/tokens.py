"""Token ids of texts, and the tokens that a model wants around a text or a pair (`Template`).

The tokenizer reads each text alone and without tokens of its own; they are put around it here. So the query of a
thousand pairs is read once, and what is cut off a text does not depend on the tokenizer's files.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError

Ids: TypeAlias = "array[int]"
PROBES = (("a", "b"), ("b a", "a b b"))
"""Pairs of texts with which a tokenizer is asked for its template, and is checked against it."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one input, special tokens included. `types`: which text of a pair each belongs to; None is all the first."""

    ids: Sequence[int]
    types: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Template:
    """`own`: the model's tokens before, between and after the texts, and `own_types` theirs; `types` those of the
    texts, None when the model knows none."""

    own: tuple[Ids, ...]
    own_types: tuple[Ids, ...] = ()
    types: tuple[int, ...] | None = None

    @property
    def own_tokens(self) -> int:
        return sum(map(len, self.own))

    def join(self, texts: Sequence[Ids]) -> Tokens:
        """One text fewer than `own` has parts."""
        ids = self.own[0][:]
        for text, after in zip(texts, self.own[1:], strict=True):
            ids += text
            ids += after
        if self.types is None:
            return Tokens(ids)
        types = self.own_types[0][:]
        for text, own, after in zip(texts, self.types, self.own_types[1:], strict=True):
            types += array("b", [own]) * len(text) + after
        return Tokens(ids, types)


def kept_lengths(lengths: Sequence[int], longest: int) -> tuple[int, ...]:
    """How much of one text or of each of two is kept so that all have `longest` tokens at most.

    As tokenizers do it ("longest first"): of two, the longer one gives way until both are as long. Pure.
    """
    if sum(lengths) <= longest:
        return tuple(lengths)
    if len(lengths) == 1:
        return (longest,)
    short = min(lengths)
    kept = (short, longest - short) if 2 * short <= longest else (longest // 2, longest - longest // 2)
    return kept if lengths[0] <= lengths[1] else kept[::-1]


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[Ids]:
    """Tokens of each text alone, without the model's own. Blocks."""
    if not texts:
        return []
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    encoded = tokenizer(list(texts), add_special_tokens=False, padding=False, truncation=False, **options)
    return [array("q", ids) for ids in encoded["input_ids"]]


def read_template(tokenizer: Any, *, pairs: bool) -> Template:
    """Raises LoadError(UnsupportedArchitecture) when the tokenizer does not merely put tokens around texts."""
    probe, check = (texts[: 2 if pairs else 1] for texts in PROBES)
    template = _template(_whole(tokenizer, probe), plain_ids(tokenizer, probe))
    if template is None or template.join(plain_ids(tokenizer, check)) != _whole(tokenizer, check):
        raise LoadError(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"the tokenizer ({type(tokenizer).__name__}) does not put the same tokens around every "
            f"{'pair of texts' if pairs else 'text'}, which is not served. Use another model.",
        )
    return template


def _whole(tokenizer: Any, texts: Sequence[str]) -> Tokens:
    typed = len(texts) > 1 and "token_type_ids" in tokenizer.model_input_names
    encoded = tokenizer(*texts, truncation=False, return_token_type_ids=typed, verbose=False)
    return Tokens(array("q", encoded["input_ids"]), array("b", encoded["token_type_ids"]) if typed else None)


def _template(whole: Tokens, texts: Sequence[Ids]) -> Template | None:
    """None when the texts are not in it, in their order: the first as early, the second as late as may be."""
    ids = array("q", whole.ids)
    parts: list[slice] = []
    at = 0
    for text in texts:
        places = [start for start in range(at, len(ids) - len(text) + 1) if ids[start : start + len(text)] == text]
        if not places or not text:
            return None
        start = places[-1] if parts else places[0]
        parts.append(slice(at, start))
        at = start + len(text)
    parts.append(slice(at, len(ids)))
    own = tuple(ids[part] for part in parts)
    if whole.types is None:
        return Template(own)
    types = array("b", whole.types)
    return Template(own, tuple(types[part] for part in parts), tuple(types[part.stop] for part in parts[:-1]))
