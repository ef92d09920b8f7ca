"""How texts become tokens: as the tokenizer has it, in bounded pieces, each text once, or refused by name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.engine import text_args
from tests.builders.text_models import bert_tokenizer, roberta_tokenizer

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.loader import Loaded
from cotenant_serving.engine.text_model import TextModel
from cotenant_serving.engine.texts import (
    GROUP_CHARS,
    MARGIN_TOKENS,
    MAX_CHARS_PER_TOKEN,
    MIN_CHARS,
    Padder,
    TextReader,
    padding_id,
)
from cotenant_serving.engine.tokens import Tokens, read_template
from cotenant_serving.request_fields import RequestError

LIMIT = 16
MAX_CHARS = max(MIN_CHARS, MAX_CHARS_PER_TOKEN * LIMIT)
TOKENIZERS = {"bert": bert_tokenizer(), "roberta": roberta_tokenizer()}
texts = st.text("ab zé", min_size=1, max_size=30)


class Recorder:
    """A tokenizer that remembers the texts of every call."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.calls: list[list[str]] = []

    def __call__(self, given: Any, *more: Any, **options: Any) -> Any:
        self.calls.append([given] if isinstance(given, str) else list(given))
        return self._tokenizer(given, *more, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    @property
    def read(self) -> list[str]:
        return [text for call in self.calls for text in call]


def fake_model(embeddings: int = 500, **config: Any) -> Any:
    named = SimpleNamespace(**config)
    named.get_text_config = lambda: named
    return SimpleNamespace(
        config=named,
        device=torch.device("cpu"),
        get_input_embeddings=lambda: torch.nn.Embedding(embeddings, 1),
    )


def reader(tokenizer: Any, limit: int = LIMIT, *, embeddings: int = 500, pairs: bool = False) -> TextReader:
    return TextReader(Loaded(fake_model(embeddings), tokenizer, 4, Path("/m")), limit, pairs=pairs)


def read(reading: TextReader, inputs: Sequence[Any], truncate: int | None = None) -> list[Tokens]:
    return [one for group in reading.read(inputs, "input[{}]".format, truncate) for one in group]


def refusal(act: Callable[[], Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        act()
    assert caught.value.status == 400
    return caught.value


def as_lists(tokens: Tokens) -> tuple[list[int], list[int] | None]:
    return list(tokens.ids), None if tokens.types is None else list(tokens.types)


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.lists(texts, min_size=1, max_size=4), st.integers(3, LIMIT))
def test_texts_are_read_and_cut_as_the_tokenizer_does(name: str, inputs: list[str], longest: int) -> None:
    tokenizer = TOKENIZERS[name]
    expected = [tokenizer(text, truncation=True, max_length=longest)["input_ids"] for text in inputs]
    assert [as_lists(tokens) for tokens in read(reader(tokenizer), inputs, longest)] == [
        (ids, None) for ids in expected
    ]


@pytest.mark.parametrize("name", TOKENIZERS)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.integers(5, LIMIT))
def test_pairs_are_read_and_cut_as_the_tokenizer_does(name: str, inputs: list[Any], longest: int) -> None:
    tokenizer = TOKENIZERS[name]
    found = [as_lists(tokens) for tokens in read(reader(tokenizer, pairs=True), inputs, longest)]
    for pair, (ids, types) in zip(inputs, found, strict=True):
        expected = tokenizer(*pair, truncation="longest_first", max_length=longest, return_token_type_ids=True)
        assert ids == expected["input_ids"]
        assert types == (expected["token_type_ids"] if name == "bert" else None)


def test_the_beginning_is_kept_whatever_the_tokenizers_files_say() -> None:
    tokenizer = bert_tokenizer()
    tokenizer.truncation_side = "left"
    assert read(reader(tokenizer), ["abcdef"], 4) == read(reader(bert_tokenizer()), ["abcdef"], 4)
    pair = [("abcdef", "ghijkl")]
    assert read(reader(tokenizer, pairs=True), pair, 6) == read(reader(bert_tokenizer(), pairs=True), pair, 6)


def test_the_query_of_many_pairs_is_read_once() -> None:
    tokenizer = Recorder(bert_tokenizer())
    reading = reader(tokenizer, limit=200, pairs=True)
    tokenizer.calls.clear()
    assert len(read(reading, [("q" * 90, f"d {'x' * (at % 7)}") for at in range(2000)])) == 2000
    assert tokenizer.read.count("q" * 90) == 1
    assert len(tokenizer.read) == 8


@pytest.mark.parametrize("truncate", [None, -1])
@pytest.mark.parametrize("pairs", [False, True])
def test_of_a_text_that_is_far_too_long_only_a_beginning_is_read(truncate: int | None, pairs: bool) -> None:
    tokenizer = Recorder(bert_tokenizer())
    reading = reader(tokenizer, pairs=pairs)
    long = "a b " * 100_000
    given: Any = ("q", long) if pairs else long
    if truncate is None:
        error = refusal(lambda: read(reading, [given]))
        assert (error.param, error.code) == ("input[0]", "context_length_exceeded")
        assert f"at most {LIMIT} tokens, of at most {MAX_CHARS} characters" in error.message
    else:
        assert len(read(reading, [given], truncate)[0]) == LIMIT
    assert max(map(len, tokenizer.read)) <= MAX_CHARS


def test_a_text_of_many_characters_and_few_tokens_is_read_whole_within_the_bound() -> None:
    tokenizer = bert_tokenizer()
    limit = 2 * MIN_CHARS // MAX_CHARS_PER_TOKEN
    sparse = "a" + " " * (2 * MIN_CHARS - 2) + "b"
    assert as_lists(read(reader(tokenizer, limit), [sparse])[0])[0] == tokenizer(sparse)["input_ids"]
    assert refusal(lambda: read(reader(tokenizer, limit), [sparse + " "])).code == "context_length_exceeded"


def test_a_dense_text_is_not_read_to_the_bound() -> None:
    tokenizer = Recorder(bert_tokenizer())
    limit = 1024
    reading = reader(tokenizer, limit)
    long = "ab" * 16 * limit
    spaced = " ".join(long[: 8 * limit])
    assert "tokens or more" in refusal(lambda: read(reading, [spaced])).message
    assert len(read(reading, [spaced], -1)[0]) == limit
    assert max(map(len, tokenizer.read)) == 8 * limit > limit + MARGIN_TOKENS


def test_many_texts_are_read_in_groups_so_that_others_come_between() -> None:
    tokenizer = Recorder(bert_tokenizer())
    reading = reader(tokenizer, limit=1000)
    inputs = [letter * 90 + " " * 3000 for letter in "abcdefgh"] * 20
    groups = list(reading.read(inputs, "input[{}]".format))
    assert [len(tokens) for group in groups for tokens in group] == [92] * len(inputs)
    assert len(groups) > 1
    assert max(sum(map(len, call)) for call in tokenizer.calls) <= GROUP_CHARS


@pytest.mark.parametrize("pairs", [False, True])
def test_a_text_whose_tokens_the_model_does_not_know_is_a_400(pairs: bool) -> None:
    poison = bert_tokenizer().convert_tokens_to_ids("poison")
    given: Any = ("a", "poison") if pairs else "poison"
    error = refusal(lambda: read(reader(bert_tokenizer(), embeddings=poison, pairs=pairs), [given]))
    assert error.param == "input[0]"
    assert f"is read as token id {poison}; this model's ids are 0 to {poison - 1}" in error.message


def test_a_text_without_tokens_is_a_400() -> None:
    bare = bert_tokenizer()
    bare.backend_tokenizer.post_processor = None
    assert "'input[1]' has no tokens" in refusal(lambda: read(reader(bare), ["a", "  "])).message
    assert len(read(reader(bare, pairs=True), [("a", "  ")])[0]) == 1


def test_a_tokenizer_that_changes_texts_with_its_own_tokens_is_refused() -> None:
    class Odd(Recorder):
        def __call__(self, given: Any, *more: Any, **options: Any) -> Any:
            encoded = super().__call__(given, *more, **options)
            if options.get("add_special_tokens", True) and " " in given:
                encoded["input_ids"] = encoded["input_ids"][::-1]
            return encoded

    with pytest.raises(LoadError, match="same tokens around every pair") as refused:
        read_template(Odd(bert_tokenizer()), pairs=True)
    assert refused.value.reason is Reason.UNSUPPORTED_ARCHITECTURE


@pytest.mark.parametrize(
    ("own", "tokenizers", "found"),
    [(3, 4, 3), (None, 4, 4), (0, 4, 0), (None, None, None), (58, 4, 4), (-1, None, None), (None, 58, None)],
)
def test_padding_is_a_token_that_the_model_knows(own: int | None, tokenizers: int | None, found: int | None) -> None:
    model, tokenizer = fake_model(58, pad_token_id=own), SimpleNamespace(pad_token_id=tokenizers)
    assert padding_id(model, tokenizer) == found
    assert Padder(model, tokenizer).pad_id == (found or 0)


def test_a_model_that_cannot_take_padding_fails_as_it_is_loaded() -> None:
    def forward(named: dict[str, Any]) -> torch.Tensor:
        if not named["attention_mask"].all():
            raise IndexError("index out of range in self")
        return torch.zeros(len(named["input_ids"]), 1)

    loaded = Loaded(fake_model(), bert_tokenizer(), 4, Path("/m"))
    model = TextModel(text_args("embed", Path("/m")), loaded, LIMIT, forward, 4)
    with pytest.raises(IndexError):
        model.warm_up(lambda *_: None)
    model.close()
