"""Texts, pairs of texts and token ids → tokens that the model can take, and those of a batch → padded tensors."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cotenant_cache.config import longest_text
from cotenant_serving.engine.loader import Loaded
from cotenant_serving.engine.tokens import Ids, Tokens, kept_lengths, plain_ids, read_template
from cotenant_serving.pooling_api import Input
from cotenant_serving.request_fields import RequestError

NO_LIMIT_TOKENS = 1_000_000
"""Tokenizers that know no limit name an enormous one."""


MAX_CHARS_PER_TOKEN = 32
"""Of a text, so many characters are read for each token that the model takes. A tokenizer needs some 300 bytes and a
microsecond for each. Few texts have more than five per token; spaces and words that it does not know may."""
LIKELY_CHARS_PER_TOKEN = 8
"""A text with more is probably too long: so much of it is read first, which mostly decides."""
MIN_CHARS = 4096
MARGIN_TOKENS = 128
"""The last word of a text that is cut may be read as other tokens; WordPiece knows words of up to 100 letters."""
GROUP_CHARS = 1 << 16
"""Read at once, unless one text has more. In between others' texts are read."""


def position_limit(model: Any) -> int | None:
    """Tokens for which the model has positions, as plans count them; None when nothing says so."""
    config = model.config.get_text_config()
    return longest_text(config.to_dict(), config.name_or_path) or None


def limit_tokens(context_tokens: int, loaded: Loaded, further: int | None = None) -> int:
    """The longest input that an engine takes: what was asked for, or less if model or tokenizer say so."""
    limits = [position_limit(loaded.model), getattr(loaded.tokenizer, "model_max_length", None), further]
    return min([context_tokens, *(limit for limit in limits if limit is not None and limit < NO_LIMIT_TOKENS)])


def vocabulary_size(model: Any) -> int:
    """Tokens for which the model has embeddings."""
    return int(model.get_input_embeddings().weight.shape[0])


class TextReader:
    """Blocks; call it from one thread only, as a fast tokenizer must not be used by two.

    With `pairs` it reads pairs of texts, else texts and token ids.
    """

    def __init__(self, loaded: Loaded, limit: int, *, pairs: bool = False) -> None:
        self._tokenizer = loaded.tokenizer
        self._vocabulary = vocabulary_size(loaded.model)
        self._pairs = pairs
        self._template = read_template(loaded.tokenizer, pairs=pairs)
        self.limit = limit
        self.max_chars = max(MIN_CHARS, MAX_CHARS_PER_TOKEN * limit)
        self._likely_chars = max(MIN_CHARS, LIKELY_CHARS_PER_TOKEN * limit)

    def read(
        self,
        inputs: Sequence[Input] | Sequence[tuple[str, str]],
        name_of: Callable[[int], str],
        truncate: int | None = None,
    ) -> Iterator[list[Tokens]]:
        """The tokens of all inputs in their order, some at a time. `truncate` as in `PoolingRequest`.

        Raises RequestError (400) that names an input which does not fit.
        """
        longest = self._longest(truncate)
        known: dict[str, Ids] = {}
        for group in self._groups(inputs):
            self._learn([text for index in group for text in self._texts(inputs[index])], known)
            yield [self._tokens(inputs[index], known, longest, name_of(index)) for index in group]

    def _longest(self, truncate: int | None) -> int | None:
        """Tokens to which an input is cut; None when it is refused instead."""
        if truncate is None:
            return None
        if truncate > self.limit:
            raise self._bad_truncate(truncate, f"this model takes at most {self.limit} tokens", "-1 means as many")
        if 0 < truncate <= (own := self._template.own_tokens):
            raise self._bad_truncate(truncate, f"the model adds {own} tokens of its own", "ask for more")
        return self.limit if truncate == -1 else truncate

    def _bad_truncate(self, given: int, why: str, step: str) -> RequestError:
        message = f"'truncate_prompt_tokens' is {given}, and {why} ({step})."
        return RequestError(400, message, param="truncate_prompt_tokens", code="invalid_value")

    def _texts(self, given: Any) -> tuple[str, ...]:
        """None of token ids."""
        return given if self._pairs else (given,) if isinstance(given, str) else ()

    def _groups(self, inputs: Sequence[Any]) -> Iterator[list[int]]:
        """Indices of inputs with about GROUP_CHARS in all."""
        group: list[int] = []
        chars = 0
        for index, given in enumerate(inputs):
            added = sum(min(len(text), self.max_chars) for text in self._texts(given))
            if group and chars + added > GROUP_CHARS:
                yield group
                group, chars = [], 0
            group.append(index)
            chars += added
        yield group

    def _learn(self, texts: Sequence[str], known: dict[str, Ids]) -> None:
        """Reads those that are not known. Of a text that is too long it reads no more than shows that."""
        new = [text for text in dict.fromkeys(texts) if text not in known]
        long = [text for text in new if len(text) > self._likely_chars]
        short = [text for text in new if len(text) <= self._likely_chars]
        known.update(zip(short, plain_ids(self._tokenizer, short), strict=True))
        for text in long:
            ids = plain_ids(self._tokenizer, [text[: self._likely_chars]])[0]
            if len(ids) <= self.limit + MARGIN_TOKENS:
                ids = plain_ids(self._tokenizer, [text[: self.max_chars]])[0]
            known[text] = ids

    def _tokens(self, given: Any, known: dict[str, Ids], longest: int | None, name: str) -> Tokens:
        texts = self._texts(given)
        if not texts:
            tokens = Tokens(self._known(array("q", given), name, "has"))
            if longest is None and len(tokens) > self.limit:
                raise self._too_long(f"{len(tokens)} tokens", "", name)
            return Tokens(tokens.ids[:longest])
        read = [known[text] for text in texts]
        if longest is None:
            self._check_length(texts, read, name)
        else:
            room = longest - self._template.own_tokens
            lengths = kept_lengths([len(ids) for ids in read], max(0, room))
            read = [ids[:length] for ids, length in zip(read, lengths, strict=True)]
        tokens = self._template.join(read)
        if not len(tokens):
            raise RequestError(400, f"'{name}' has no tokens; send more than that.", param=name)
        self._known(tokens.ids, name, "is read as")
        return tokens

    def _check_length(self, texts: Sequence[str], read: Sequence[Ids], name: str) -> None:
        tokens = sum(map(len, read)) + self._template.own_tokens
        if max(map(len, texts)) > self.max_chars:
            chars = sum(map(len, texts))
            raise self._too_long(f"{chars} characters", f" tokens, of at most {self.max_chars} characters", name)
        if tokens > self.limit:
            whole = max(map(len, texts)) <= self._likely_chars
            raise self._too_long(f"{tokens} tokens" if whole else f"{tokens} tokens or more", "", name)

    def _too_long(self, size: str, more: str, name: str) -> RequestError:
        return RequestError(
            400,
            f"'{name}' has {size}, and this model takes at most {self.limit}{more}. Shorten it, or send "
            "'truncate_prompt_tokens': -1 to have only its beginning read.",
            param=name,
            code="context_length_exceeded",
        )

    def _known(self, ids: Sequence[int], name: str, how: str) -> Sequence[int]:
        if max(ids) >= self._vocabulary:
            raise RequestError(
                400,
                f"'{name}' {how} token id {max(ids)}; this model's ids are 0 to {self._vocabulary - 1}.",
                param=name,
                code="invalid_value",
            )
        return ids


def padding_id(model: Any, tokenizer: Any) -> int | None:
    """The config's own, else the tokenizer's; None when neither is a token that the model knows."""
    named = (getattr(model.config.get_text_config(), "pad_token_id", None), getattr(tokenizer, "pad_token_id", None))
    known = range(vocabulary_size(model))
    return next((int(token) for token in named if token is not None and token in known), None)


class Padder:
    """Tokens of a batch → tensors on the model's device, padded on the right."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.pad_id = padding_id(model, tokenizer) or 0
        self._device = model.device

    def __call__(self, batch: Sequence[Tokens]) -> dict[str, Any]:
        """input_ids, attention_mask and for pairs token_type_ids: (items, longest) int64."""
        import numpy as np
        import torch

        width = max(map(len, batch))
        ids = np.full((len(batch), width), self.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        types = np.zeros_like(ids) if any(tokens.types is not None for tokens in batch) else None
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens.ids
            mask[row, : len(tokens)] = 1
            if types is not None and tokens.types is not None:
                types[row, : len(tokens)] = tokens.types
        named = {"input_ids": ids, "attention_mask": mask} | ({} if types is None else {"token_type_ids": types})
        return {name: torch.from_numpy(array).to(self._device) for name, array in named.items()}
