"""Texts, pairs of texts and token ids → tokens that the model can take, and those of a batch → padded tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cotenant_cache.config import longest_text
from cotenant_serving.engine.loader import Loaded
from cotenant_serving.pooling_api import Input
from cotenant_serving.request_fields import RequestError

NO_LIMIT_TOKENS = 1_000_000
"""Tokenizers that know no limit name an enormous one."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of one input, special tokens included. `types`: which text of a pair each belongs to; None is all the first."""

    ids: Sequence[int]
    types: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def position_limit(model: Any) -> int | None:
    """Tokens for which the model has positions, as plans count them; None when nothing says so."""
    config = model.config.get_text_config()
    return longest_text(config.to_dict(), config.name_or_path) or None


def limit_tokens(context_tokens: int, loaded: Loaded, further: int | None = None) -> int:
    """The longest input that an engine takes: what was asked for, or less if model or tokenizer say so."""
    limits = [position_limit(loaded.model), getattr(loaded.tokenizer, "model_max_length", None), further]
    return min([context_tokens, *(limit for limit in limits if limit is not None and limit < NO_LIMIT_TOKENS)])


class TextReader:
    """Blocks; call it from one thread only, as a fast tokenizer must not be used by two."""

    def __init__(self, loaded: Loaded, limit: int) -> None:
        self._tokenizer = loaded.tokenizer
        self._vocabulary = int(loaded.model.get_input_embeddings().weight.shape[0])
        self._typed = "token_type_ids" in loaded.tokenizer.model_input_names
        self.limit = limit

    def read(
        self,
        inputs: Sequence[Input] | Sequence[tuple[str, str]],
        name_of: Callable[[int], str],
        truncate: int | None = None,
        *,
        pairs: bool = False,
    ) -> list[Tokens]:
        """`truncate` as in `PoolingRequest`. Raises RequestError (400) that names an input which does not fit."""
        longest = self._longest(truncate, pairs)
        texts = [index for index, given in enumerate(inputs) if pairs or isinstance(given, str)]
        found: list[Tokens | None] = [None] * len(inputs)
        for index, tokens in zip(texts, self._tokenize([inputs[index] for index in texts], pairs), strict=True):
            found[index] = tokens
        read = []
        for index, given in enumerate(inputs):
            tokens = found[index] or Tokens(self._known(given, name_of(index)))
            if len(tokens) > (longest or self.limit):
                tokens = self._cut(given, tokens, longest, name_of(index), pairs)
            if not len(tokens):
                raise RequestError(
                    400, f"'{name_of(index)}' has no tokens; send more than that.", param=name_of(index)
                )
            read.append(tokens)
        return read

    def _longest(self, truncate: int | None, pairs: bool) -> int | None:
        """Tokens to which an input is cut; None when it is refused instead."""
        if truncate is None:
            return None
        if truncate > self.limit:
            raise self._bad_truncate(truncate, f"this model takes at most {self.limit} tokens", "-1 means as many")
        special = self._tokenizer.num_special_tokens_to_add(pair=pairs)
        if 0 < truncate <= special:
            raise self._bad_truncate(truncate, f"the model adds {special} tokens of its own", "ask for more")
        return self.limit if truncate == -1 else truncate

    def _bad_truncate(self, given: int, why: str, step: str) -> RequestError:
        return RequestError(
            400,
            f"'truncate_prompt_tokens' is {given}, and {why} ({step}).",
            param="truncate_prompt_tokens",
            code="invalid_value",
        )

    def _tokenize(self, inputs: Sequence[Any], pairs: bool, **truncation: Any) -> list[Tokens]:
        if not inputs:
            return []
        firsts, seconds = ([list(side) for side in zip(*inputs, strict=True)]) if pairs else (list(inputs), None)
        encoded = self._tokenizer(
            firsts,
            seconds,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=self._typed and pairs,
            verbose=False,
            **{"truncation": False, **truncation},
        )
        types = encoded["token_type_ids"] if self._typed and pairs else [None] * len(inputs)
        return [Tokens(ids, kinds) for ids, kinds in zip(encoded["input_ids"], types, strict=True)]

    def _known(self, ids: Any, name: str) -> Sequence[int]:
        if max(ids) >= self._vocabulary:
            raise RequestError(
                400,
                f"'{name}' has token id {max(ids)}; this model's ids are 0 to {self._vocabulary - 1}.",
                param=name,
                code="invalid_value",
            )
        return list(ids)

    def _cut(self, given: Any, tokens: Tokens, longest: int | None, name: str, pairs: bool) -> Tokens:
        if longest is None:
            raise RequestError(
                400,
                f"'{name}' has {len(tokens)} tokens, and this model takes at most {self.limit}. Shorten it, or send "
                "'truncate_prompt_tokens': -1 to have only its beginning read.",
                param=name,
                code="context_length_exceeded",
            )
        if not pairs and not isinstance(given, str):
            return Tokens(tokens.ids[:longest])
        return self._tokenize([given], pairs, truncation=True, max_length=longest)[0]


class Padder:
    """Tokens of a batch → tensors on the model's device, padded on the right."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        config = model.config.get_text_config()
        own = getattr(config, "pad_token_id", None)
        self.pad_id = int(own if own is not None else getattr(tokenizer, "pad_token_id", None) or 0)
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
