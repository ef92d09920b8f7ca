"""A model that computes one row of numbers for each text or pair: read, batched, padded, computed.

Shared by `embed`, `rerank` and `classify`, which differ in what stands on top of the model (`head`) and in the shapes
of their API.
"""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cotenant_serving.contract import DeviceKind, EngineArgs, Usage
from cotenant_serving.engine.base import Progress, UnaryRequest
from cotenant_serving.engine.dynamic_batching import BatchLimits, DynamicBatcher, Work
from cotenant_serving.engine.loader import Loaded
from cotenant_serving.engine.texts import Padder, TextReader
from cotenant_serving.engine.tokens import Tokens
from cotenant_serving.pooling_api import Input

PADDED_TOKENS: dict[DeviceKind, int] = {"cpu": 2048, "cuda": 8192}
"""Tokens of one pass at most, padding included: more do not make it faster, and a share must have room for the
activations of so many. One text of the longest kind is always computed. The estimate of a share
(`cotenant_operator.estimate`) counts with no fewer.

Activations: T = max(this, longest text) tokens need T x bytes of the dtype x (8 x hidden size + 2 x intermediate
size), and masked attention T x longest text x 4 bytes on top. Measured with BERT on the CPU: T = 4096, hidden 384:
103 MiB (without the mask 96); hidden 768: 219 MiB (192); T = 8192 in one text, hidden 384: 321 MiB (192 + 256). A
process with torch and transformers and next to no model has 750 MiB RSS, 330 of them of files."""


def padded_tokens(device: DeviceKind, limit_tokens: int) -> int:
    return max(PADDED_TOKENS[device], limit_tokens)


class TextModel:
    """`forward` gets input_ids, attention_mask and so on, and returns (items, numbers) float32."""

    def __init__(
        self,
        args: EngineArgs,
        loaded: Loaded,
        limit: int,
        forward: Callable[[dict[str, Any]], Any],
        max_rows: int,
        *,
        pairs: bool = False,
    ) -> None:
        self._forward = forward
        self._padder = Padder(loaded.model, loaded.tokenizer)
        self._reader = TextReader(loaded, limit, pairs=pairs)
        padded = padded_tokens(args.spec.device, limit)
        self._limits = BatchLimits(min(max_rows, args.spec.max_batch), padded, args.spec.batch_wait_s)
        self._batcher = DynamicBatcher(self._compute, self._limits, is_fatal=is_fatal)
        self._tokenizing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")

    @property
    def healthy(self) -> bool:
        return not self._batcher.broken

    def warm_up(self, progress: Progress) -> None:
        """One pass of the most that a batch can be, so that memory in use is what it will be, and one that pads: a
        model that cannot fails here, not in every batch. Blocks."""
        limit = self._reader.limit
        items = max(1, min(self._limits.max_rows, self._limits.max_padded_tokens // limit))
        progress(f"warming up: {items} texts of {limit} tokens", 0.9)
        token = 0 if self._padder.pad_id != 0 else 1
        self._batcher.compute_now([Tokens([token] * limit)] * items)
        if self._limits.max_rows > 1 and limit > 1:
            self._batcher.compute_now([Tokens([token] * 2), Tokens([token])])
        progress("loaded", 1.0)

    async def run(
        self,
        request: UnaryRequest,
        inputs: Sequence[Input] | Sequence[tuple[str, str]],
        name_of: Callable[[int], str],
        truncate: int | None,
    ) -> tuple[list[Any], Usage]:
        """A row (numpy, float32) for each input, and what they cost. Raises RequestError, GenerationError."""
        loop = asyncio.get_running_loop()
        reading = self._reader.read(inputs, name_of, truncate)
        tokens: list[Tokens] = []
        # A group at a time, so that a long request holds nobody up, and one that is cancelled ends.
        while group := await loop.run_in_executor(self._tokenizing, next, reading, None):
            tokens += group
        usage = Usage(prompt_tokens=sum(map(len, tokens)), completion_tokens=0)
        request.used(usage)
        works = [Work(payload=one, length=len(one)) for one in tokens]
        return await self._batcher.run(request.request_id, works), usage

    def cancel(self, request_id: str) -> None:
        self._batcher.cancel(request_id)

    def close(self) -> None:
        self._tokenizing.shutdown(wait=False, cancel_futures=True)
        self._batcher.close()

    def _compute(self, batch: Sequence[Tokens]) -> list[Any]:
        """In one thread at a time. Rows that are not finite come back as errors: JSON could not carry them."""
        import numpy as np
        import torch

        with torch.inference_mode():
            rows = self._forward(self._padder(batch)).cpu().numpy()
        finite = np.isfinite(rows).all(axis=1)
        return [
            row if good else ArithmeticError("the model's answer has NaN or infinite values")
            for row, good in zip(rows, finite, strict=True)
        ]


def forward_with(model: Any) -> Callable[[dict[str, Any]], Any]:
    """The model's own forward pass, with those of the tensors that it takes, and without a cache."""
    takes = inspect.signature(model.forward).parameters
    options = {"use_cache": False} if "use_cache" in takes else {}

    def forward(named: dict[str, Any]) -> Any:
        kept = {name: tensor for name, tensor in named.items() if name != "token_type_ids" or name in takes}
        return model(**kept, **options)

    return forward


def is_fatal(error: Exception) -> bool:
    """A CUDA context that has seen such an error computes nothing any more. Not run on a GPU."""
    import torch

    return isinstance(error, torch.AcceleratorError)
