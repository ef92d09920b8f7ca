"""What one tenant has sent makes no answer to another quicker: there is no cache of prompts between requests."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.builders.engine import generate_args, make_tiny_llama
from tests.builders.gateway import chat
from tests.builders.gateway_calls import KEYS, request
from tests.cves.conftest import Stage

from cotenant_serving.engine.base import DeltaStream, Job
from cotenant_serving.engine.generate import GenerateEngine
from cotenant_serving.openai_api import GenerateRequest, Sampling

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SECRET = "the merger with Initech will be announced on the third of May, do not tell. " * 3
PAGE_TOKENS = 32


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def matches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each request that transformers took from what earlier requests had left in the cache; and 0 for each
    cache that was made to look for none."""
    from transformers.generation.continuous_batching.cache import PagedAttentionCache

    found: list[int] = []
    real, make = PagedAttentionCache.search_prefix_match, PagedAttentionCache.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        found.extend([] if self.use_prefix_sharing else [0])

    def search(self: Any, *arguments: Any) -> int:
        found.append(real(self, *arguments))
        return found[-1]

    monkeypatch.setattr(PagedAttentionCache, "search_prefix_match", search)
    monkeypatch.setattr(PagedAttentionCache, "__init__", made)
    return found


async def answered(engine: GenerateEngine, request_id: str) -> None:
    prompt = await engine.encode(GenerateRequest(kind="completion", model="m", prompt=SECRET))
    assert prompt.tokens > 4 * PAGE_TOKENS
    stream = DeltaStream()
    engine.start(Job(request_id, prompt, 4, Sampling(max_tokens=4, temperature=0.0)), stream)
    while not stream.closed:
        await stream.take()


async def test_the_same_prompt_again_shares_no_page_with_the_one_before(llama: Path, matches: list[int]) -> None:
    """CVE-2025-46570 (vLLM before 0.9.0: a prefix that was there already is answered several times quicker, so that a
    tenant learns by trying what another has sent). vLLM salts its cache per tenant; here there is no cache at all."""
    engine = GenerateEngine(generate_args(llama))
    await asyncio.to_thread(engine.load, lambda *_, **__: None)
    try:
        for request_id in ("of-one", "of-another", "of-one-again"):
            await answered(engine, request_id)
    finally:
        engine.close()
    assert set(matches) == {0}


def test_with_shared_blocks_the_same_measure_finds_the_leak(llama: Path, matches: list[int]) -> None:
    """So that the zeros of the test before say something: transformers' own default, which the engine turns off."""
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    model: Any = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="sdpa").eval()
    shared = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS, num_blocks=64, max_batch_tokens=256, allow_block_sharing=True, use_cuda_graph=False
    )
    manager = model.init_continuous_batching(
        generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
        continuous_batching_config=shared,
    )
    manager.start()
    try:
        for request_id in ("of-one", "of-another"):
            manager.add_request(list(range(5 * PAGE_TOKENS)), request_id=request_id, max_new_tokens=2)
            assert manager.get_result(timeout=60) is not None
    finally:
        manager.stop(block=True, timeout=10.0)
    assert max(matches) >= 4 * PAGE_TOKENS


@pytest.mark.asyncio(loop_scope="module")
async def test_the_gateway_keeps_no_answer_for_the_next_one_who_asks(stage: Stage) -> None:
    """CVE-2025-46570's neighbour: a cache of answers, keyed by the prompt. Every request goes to an engine, also with
    fields that ask for a cache."""
    for who in ("search", "ads", "search"):
        body = chat(SECRET, model="search/echo", prompt_cache_key="shared", store=True)
        status, headers, _ = await request(
            stage.gateway, "POST", "/v1/chat/completions", body=body, headers={"authorization": f"Bearer {KEYS[who]}"}
        )
        assert (status, "age" in headers, "etag" in headers) == (200, False, False)
    assert len(stage.heard()) == 3
