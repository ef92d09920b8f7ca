"""The `generate` engine: a causal language model on transformers' continuous batching."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from cotenant_serving.contract import EngineArgs, Reason
from cotenant_serving.engine.admission import PageLedger, pages_for
from cotenant_serving.engine.base import DeltaStream, Job, LoadError, Progress, Prompt
from cotenant_serving.engine.batching import Batcher, Manager
from cotenant_serving.engine.chat_template import check_template, render
from cotenant_serving.engine.load_errors import load_errors
from cotenant_serving.engine.loader import Loaded, load
from cotenant_serving.engine.model_source import ModelSource
from cotenant_serving.engine.texts import LIKELY_CHARS_PER_TOKEN, MARGIN_TOKENS, MAX_CHARS_PER_TOKEN, MIN_CHARS
from cotenant_serving.engine.timed_thread import TimedThread
from cotenant_serving.openai_api import GenerateRequest, RequestError

PAGE_TOKENS = 32
MAX_BATCH_TOKENS = 256
"""Prompt tokens of one step at most: longer prompts are cut up, so that other streams go on."""
WARM_UP_TOKENS = 2
WARM_UP_TIMEOUT_S = 300.0


def kv_bytes_per_token(config: Any, dtype_bytes: int) -> int:
    """2 (key, value) x layers x KV heads x head dimension x bytes. `config` is transformers' text config."""
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * kv_heads * head_dim * dtype_bytes)


def cache_pages(kv_cache_bytes: int, bytes_per_token: int, context_tokens: int, slots: int) -> int:
    """Pages of the KV cache: what the budget holds, but no more than all slots can fill.

    Raises LoadError(DoesNotFit) when not even one context fits.
    """
    affordable = kv_cache_bytes // (PAGE_TOKENS * bytes_per_token)
    one_context = pages_for(context_tokens, PAGE_TOKENS)
    if affordable < one_context:
        needed = one_context * PAGE_TOKENS * bytes_per_token
        raise LoadError(
            Reason.DOES_NOT_FIT,
            f"one context of {context_tokens} tokens needs {needed} bytes of KV cache, and the share leaves "
            f"{kv_cache_bytes}. Give the model more memory (spec.gpu.memory) or lower spec.engine.contextTokens.",
        )
    return min(affordable, one_context * slots)


def eos_ids(model: Any) -> frozenset[int]:
    """Token ids that end an answer."""
    for config in (model.generation_config, model.config.get_text_config()):
        value = getattr(config, "eos_token_id", None)
        if value is not None:
            return frozenset([value] if isinstance(value, int) else value)
    return frozenset()


class GenerateEngine:
    """See the module. Greedy (temperature 0) equals `model.generate(do_sample=False)`."""

    def __init__(self, args: EngineArgs) -> None:
        self._args = args
        self._source = ModelSource(args)
        self._context_tokens = args.spec.context_tokens
        self._loaded: Loaded | None = None
        self._batcher: Batcher | None = None
        # One thread: a fast tokenizer must not be used by two at once, and a long prompt must not stop the loop.
        self._tokenizing = TimedThread("tokenize")

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    @property
    def restarts(self) -> int:
        """Generation loops that died and were replaced."""
        return self._batcher.restarts if self._batcher else 0

    def fetch(self, progress: Progress) -> None:
        self._source.open(progress)

    def load(self, progress: Progress) -> None:
        args = self._args
        loaded = load(args, self._source, progress)
        with load_errors(args):
            check_template(loaded.tokenizer.chat_template)
            config = loaded.model.config.get_text_config()
            trained = getattr(config, "max_position_embeddings", None) or self._context_tokens
            self._context_tokens = min(self._context_tokens, trained)
            per_token = kv_bytes_per_token(config, loaded.dtype_bytes)
            pages = cache_pages(args.kv_cache_bytes, per_token, self._context_tokens, args.spec.concurrency)
            make_manager = partial(_start_manager, loaded, pages)
            progress("warming up", 0.9)
            manager = make_manager()
            _warm_up(manager, loaded)
        decode = partial(loaded.tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ledger = PageLedger(pages, PAGE_TOKENS)
        self._batcher = Batcher(manager, make_manager, ledger, decode, eos_ids(loaded.model), config.vocab_size)
        self._loaded = loaded
        progress("loaded", 1.0)

    async def encode(self, request: GenerateRequest) -> Prompt:
        ids = await self._tokenizing.run(partial(self._encode, request))
        return Prompt(tokens=len(ids), ids=ids)

    def start(self, job: Job, stream: DeltaStream) -> None:
        self._ready_batcher().start(job, stream)

    def cancel(self, request_id: str) -> None:
        if self._batcher:
            self._batcher.cancel(request_id)

    def healthy(self) -> bool:
        return self._batcher is None or not self._batcher.broken

    def close(self) -> None:
        self._tokenizing.close()
        if self._batcher:
            self._batcher.close()
        self._source.close()

    def _ready_batcher(self) -> Batcher:
        if self._batcher is None:
            raise RuntimeError("start() before load()")
        return self._batcher

    def _encode(self, request: GenerateRequest) -> Sequence[int]:
        assert self._loaded is not None, "encode() before load()"
        tokenizer = self._loaded.tokenizer
        if request.kind == "chat":
            text = "".join(message.content for message in request.messages)
            check_length(tokenizer, text, self._context_tokens, "messages")
            prompt = render(tokenizer, request, self._tokenizing)
            check_length(tokenizer, prompt, self._context_tokens, "messages")  # a template may say more than they do
            chat_ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            return chat_ids
        if isinstance(request.prompt, tuple):
            return _checked_ids(request.prompt, self._loaded.model.config.get_text_config().vocab_size)
        check_length(tokenizer, request.prompt, self._context_tokens, "prompt")
        ids: list[int] = tokenizer(request.prompt)["input_ids"]
        if not ids:
            raise RequestError(400, "'prompt' is empty; send at least one token.", param="prompt")
        return ids


def check_length(tokenizer: Any, text: str, context_tokens: int, param: str) -> None:
    """Before all of a text is read: a tokenizer takes memory for each character, which is not in the engine's share.

    Raises RequestError (400, `context_length_exceeded`) for what is surely or almost surely above the context.
    """
    most = max(MIN_CHARS, MAX_CHARS_PER_TOKEN * context_tokens)
    likely = max(MIN_CHARS, LIKELY_CHARS_PER_TOKEN * context_tokens)
    if len(text) <= likely:
        return
    if len(text) <= most and len(tokenizer(text[:likely])["input_ids"]) <= context_tokens + MARGIN_TOKENS:
        return
    raise RequestError(
        400,
        f"This model's maximum context length is {context_tokens} tokens, and at most {most} characters are read. "
        f"However, your {param} has {len(text)} characters. Please reduce the length of the {param}.",
        param=param,
        code="context_length_exceeded",
    )


def _checked_ids(ids: tuple[int, ...], vocabulary: int) -> tuple[int, ...]:
    if max(ids) >= vocabulary:
        raise RequestError(
            400, f"'prompt' has token id {max(ids)}; this model's ids are 0 to {vocabulary - 1}.", param="prompt"
        )
    return ids


def _start_manager(loaded: Loaded, pages: int) -> Manager:
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    # Sampling values other than the neutral ones: only then are there processors that take them per request.
    sampling = GenerationConfig(
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        top_k=50,
        eos_token_id=sorted(eos_ids(loaded.model)) or -1,
        pad_token_id=0,
    )
    batching = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=pages,
        max_batch_tokens=MAX_BATCH_TOKENS,
        per_request_processors=True,
        auto_switch_to_flash=False,
        # Tenants share this cache: a shared prefix would tell one by its timing what another has sent.
        allow_block_sharing=False,
        # We admit by tokens ourselves, so every request that is handed over has all the room it can need.
        safety_margin=0.0,
        # Memory use stays what it is after the warm-up.
        use_async_batching=False,
        use_cuda_graph=False,
    )
    manager: Any = loaded.model.init_continuous_batching(
        generation_config=sampling, continuous_batching_config=batching
    )
    manager.start()
    started: Manager = manager
    return started


def _warm_up(manager: Any, loaded: Loaded) -> None:
    """One short generation, so that the first request pays for nothing. Raises RuntimeError."""
    manager.add_request([0] * 4, request_id="warm-up", max_new_tokens=WARM_UP_TOKENS, eos_token_id=-1)
    result = manager.get_result(timeout=WARM_UP_TIMEOUT_S)
    if result is None or result.error is not None:
        cause = getattr(result, "error", None) or manager.background_thread_status.fatal_error or "no answer"
        manager.stop(block=True, timeout=5.0, hard_stop=True)
        raise RuntimeError(f"the first generation failed: {cause}")
