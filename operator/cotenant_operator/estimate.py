"""Model facts and engine options → bytes of device memory. Pure.

    generate                  share = weights + runtime + reserve + KV cache + what each KV token needs beside itself
    embed, rerank, classify   share = weights + runtime + reserve: what one forward pass needs
    tensor                    share = weights + runtime + a guess of what one forward pass needs
    echo                      share = runtime + reserve: what it was told to allocate

Numbers without a formula are measurements; each says where it comes from.
"""

from dataclasses import dataclass

from cotenant_cache.facts import ModelFacts
from cotenant_operator.quantity import MIB, show_bytes
from cotenant_serving.contract import DeviceKind, Task

PAGE_TOKENS = 32
"""Tokens per page of the KV cache, as the `generate` engine makes it."""
BATCH_TOKENS = 256
"""Tokens of one forward pass of the `generate` engine, at most."""
PASS_TOKENS: dict[DeviceKind, int] = {"cpu": 2048, "cuda": 8192}
"""Tokens, padding included, of one forward pass of the engines for embed, rerank and classify, at most; a single text
that is longer is a pass of its own."""
_STEP_BY_STEP = (
    "mpnet rembert gemma2 gptj gpt_neo gpt_oss mpt bloom ibert luke megatron-bert roformer squeezebert convbert xlm "
    "xlnet flaubert funnel big_bird longformer"
)
SCORE_COPIES = {**dict.fromkeys(_STEP_BY_STEP.split(), 3), "deberta": 8, "deberta-v2": 8}
"""Families whose attention transformers computes step by step: how many times the scores of all heads exist at once
(measured on the CPU: 5 to 7.5 for DeBERTa, 1.5 to 2.2 for MPNet, RemBERT and Gemma 2). The others use torch's fused
kernels, which never hold them."""
TENSOR_GUESS_BYTES = 256 * MIB
"""What the forward pass of an archive is guessed to need beside once more its weights: nothing in it says so."""

RUNTIME_BYTES: dict[tuple[Task, DeviceKind], int] = {
    # measured with `make demo` (torch 2.15, transformers 5.23, Ray 2.60): 860 to 1010 MiB RSS with a model of 9 MiB;
    # importing torch and transformers alone leaves 720 MiB
    ("generate", "cpu"): 1152 * MIB,
    # measured with tests/integration/test_up_tasks.py: 840 MiB RSS with next to no model, 330 of them of files
    ("embed", "cpu"): 1024 * MIB,
    # as embed: without Ray all three have 750 MiB
    ("rerank", "cpu"): 1024 * MIB,
    ("classify", "cpu"): 1024 * MIB,
    # measured there too: 800 MiB RSS, without transformers
    ("tensor", "cpu"): 1024 * MIB,
    # measured with `make demo`: 140 to 170 MiB RSS
    ("echo", "cpu"): 224 * MIB,
    # not measured, all of cuda: room for the CUDA context with torch's kernels and for cuBLAS workspaces
    ("generate", "cuda"): 768 * MIB,
    ("embed", "cuda"): 768 * MIB,
    ("rerank", "cuda"): 768 * MIB,
    ("classify", "cuda"): 768 * MIB,
    ("tensor", "cuda"): 768 * MIB,
    # not measured either: room for a CUDA context
    ("echo", "cuda"): 512 * MIB,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareParts:
    """A share, divided: the parts add up to it. Names are those of `Estimate`."""

    weights_bytes: int
    kv_cache_bytes: int
    runtime_bytes: int
    reserve_bytes: int
    """The guess included."""
    scratch_bytes: int
    unused_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What an engine needs on one kind of device, bytes."""

    weights_bytes: int
    runtime_bytes: int
    reserve_bytes: int
    """Activations and logits of one forward pass; for echo, what it was told to allocate."""
    guess_bytes: int = 0
    """Wanted for the forward pass, but a guess: a smaller share is taken at the user's word."""
    kv_bytes_per_token: int = 0
    scratch_bytes_per_token: int = 0
    """Beside each token of KV cache: its column of the attention mask, and one layer's gathered copy of it."""
    kv_floor_tokens: int = 0
    """One full context, in whole pages: less cannot answer the longest request."""
    kv_wanted_tokens: int = 0
    """A full context for every slot: more is never used."""

    @property
    def fixed_bytes(self) -> int:
        return self.weights_bytes + self.runtime_bytes + self.reserve_bytes

    @property
    def bytes_per_token(self) -> int:
        return self.kv_bytes_per_token + self.scratch_bytes_per_token

    @property
    def kv_floor_bytes(self) -> int:
        return self.kv_floor_tokens * self.bytes_per_token

    @property
    def floor_bytes(self) -> int:
        """The smallest share that can serve at all."""
        return self.fixed_bytes + self.kv_floor_bytes

    @property
    def wanted_bytes(self) -> int:
        """The share above which nothing gets better."""
        return self.fixed_bytes + self.guess_bytes + self.kv_wanted_tokens * self.bytes_per_token

    def kv_tokens_in(self, share_bytes: int) -> int:
        """Tokens of KV cache that a share has room for: whole pages, never more than wanted."""
        if not self.bytes_per_token:
            return 0
        room = max(0, share_bytes - self.fixed_bytes) // self.bytes_per_token
        return min(room // PAGE_TOKENS * PAGE_TOKENS, self.kv_wanted_tokens)

    def kv_cache_bytes_in(self, share_bytes: int) -> int:
        return self.kv_tokens_in(share_bytes) * self.kv_bytes_per_token

    def split(self, share_bytes: int) -> "ShareParts":
        """What a share is used for. The guess takes what the rest leaves, up to itself."""
        kv_tokens = self.kv_tokens_in(share_bytes)
        left = share_bytes - self.fixed_bytes - kv_tokens * self.bytes_per_token
        guess = min(self.guess_bytes, max(0, left))
        return ShareParts(
            weights_bytes=self.weights_bytes,
            kv_cache_bytes=kv_tokens * self.kv_bytes_per_token,
            runtime_bytes=self.runtime_bytes,
            reserve_bytes=self.reserve_bytes + guess,
            scratch_bytes=kv_tokens * self.scratch_bytes_per_token,
            unused_bytes=left - guess,
        )

    def parts(self) -> str:
        """The floor in words: `weights 1.1 GiB + KV floor 0.9 GiB + runtime 1.2 GiB`."""
        named = (
            ("weights", self.weights_bytes),
            ("KV floor", self.kv_floor_bytes),
            ("runtime", self.runtime_bytes),
            ("reserve", self.reserve_bytes),
        )
        return " + ".join(f"{name} {show_bytes(size)}" for name, size in named if size)


def estimate_generate(facts: ModelFacts, *, context_tokens: int, concurrency: int, device: DeviceKind) -> Estimate:
    """KV per token = 2 (key and value) × layers × kv_heads × head_dim × dtype bytes."""
    pages = -(-context_tokens // PAGE_TOKENS) * PAGE_TOKENS
    return Estimate(
        weights_bytes=facts.weights_bytes,
        runtime_bytes=RUNTIME_BYTES["generate", device],
        reserve_bytes=_activations_bytes(facts, concurrency),
        kv_bytes_per_token=2 * facts.layers * facts.kv_heads * facts.head_dim * facts.dtype_bytes,
        scratch_bytes_per_token=_scratch_bytes_per_token(facts),
        kv_floor_tokens=pages,
        kv_wanted_tokens=concurrency * pages,
    )


def estimate_pooling(
    facts: ModelFacts, *, task: Task, context_tokens: int, max_batch: int, device: DeviceKind
) -> Estimate:
    """For embed, rerank and classify. A pass has max_batch × context tokens, but at most PASS_TOKENS, or one text."""
    tokens = min(max_batch * context_tokens, max(context_tokens, PASS_TOKENS[device]))
    return Estimate(
        weights_bytes=facts.weights_bytes,
        runtime_bytes=RUNTIME_BYTES[task, device],
        reserve_bytes=tokens * _pass_bytes_per_token(facts, context_tokens),
    )


def estimate_tensor(facts: ModelFacts, *, device: DeviceKind) -> Estimate:
    """Weights are the archive's bytes when it is unpacked."""
    return Estimate(
        weights_bytes=facts.weights_bytes,
        runtime_bytes=RUNTIME_BYTES["tensor", device],
        reserve_bytes=0,
        guess_bytes=facts.weights_bytes + TENSOR_GUESS_BYTES,
    )


def estimate_echo(*, allocate_bytes: int, device: DeviceKind) -> Estimate:
    return Estimate(weights_bytes=0, runtime_bytes=RUNTIME_BYTES["echo", device], reserve_bytes=allocate_bytes)


def _activations_bytes(facts: ModelFacts, concurrency: int) -> int:
    """Peak of one forward pass of BATCH_TOKENS tokens, in float32 where the engine computes in it.

    Per token: 8 vectors of the hidden size (residual, norm, query, key, value, output and two in flight) and 3 of
    the intermediate size (gate, up and their product), in the model's dtype. Per slot: 3 vectors of the vocabulary
    in float32 (logits, sorted logits, probabilities), because logits are made for the last token of a request only.
    """
    per_token = (8 * facts.hidden_size + 3 * facts.intermediate_size) * facts.dtype_bytes
    logits = 3 * min(concurrency, BATCH_TOKENS) * facts.vocab_size * 4
    mask = BATCH_TOKENS * BATCH_TOKENS * facts.dtype_bytes
    return BATCH_TOKENS * per_token + logits + mask


def _pass_bytes_per_token(facts: ModelFacts, context_tokens: int) -> int:
    """Peak of one layer of an encoder, for each token of a pass.

    In the model's dtype: 4 vectors of the hidden size (residual, norm, output and one in flight), 6 of all heads
    (query, key and value, two of them rotated or repeated, and their result), 3 of the intermediate size (gate, up
    and their product); scores of all heads against each of `context_tokens`, where they exist. And the mask against
    each of them (as booleans, inverted, and as float32), and the last hidden state in float32, from which vectors
    are pooled. Measured with 3 layers on the CPU, that is 1.0 to 1.4 times the peak of BERT, ModernBERT and Qwen3.
    """
    heads = facts.attention_heads * facts.head_dim
    vectors = 4 * facts.hidden_size + 6 * heads + 3 * facts.intermediate_size
    scores = SCORE_COPIES.get(facts.family, 0) * facts.attention_heads * context_tokens
    return (vectors + scores) * facts.dtype_bytes + 6 * context_tokens + 4 * facts.hidden_size


def _scratch_bytes_per_token(facts: ModelFacts) -> int:
    """Attention in transformers' paged `sdpa` reads the cache into a dense copy, one layer at a time: keys and
    values once per KV head and once more repeated to all heads; and has a mask of (BATCH_TOKENS, tokens).
    """
    gathered = 2 * facts.head_dim * (facts.kv_heads + facts.attention_heads) * facts.dtype_bytes
    return gathered + BATCH_TOKENS * facts.dtype_bytes
