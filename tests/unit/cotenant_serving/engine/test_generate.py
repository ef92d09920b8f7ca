"""Sizing of the KV cache, and how a failure to load is explained. No torch is needed for either."""

from types import SimpleNamespace

import pytest
from tests.builders.engine import echo_args

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.generate import cache_pages, check_length, kv_bytes_per_token
from cotenant_serving.engine.load_errors import explain, load_errors
from cotenant_serving.openai_api import RequestError


def test_a_token_costs_keys_and_values_of_every_layer() -> None:
    qwen3_4b = SimpleNamespace(
        num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128, hidden_size=2560
    )
    assert kv_bytes_per_token(qwen3_4b, dtype_bytes=2) == 147456


def test_without_grouped_heads_and_head_dim_they_follow_from_the_rest() -> None:
    gpt2 = SimpleNamespace(num_hidden_layers=12, num_attention_heads=12, hidden_size=768)
    assert kv_bytes_per_token(gpt2, dtype_bytes=4) == 2 * 12 * 768 * 4


def test_the_budget_becomes_whole_pages() -> None:
    assert cache_pages(1_000_000, bytes_per_token=1000, context_tokens=100, slots=8) == 31


def test_the_cache_is_no_larger_than_all_slots_can_fill() -> None:
    assert cache_pages(10**12, bytes_per_token=1000, context_tokens=100, slots=2) == 8


def test_a_budget_that_holds_not_even_one_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(LoadError) as caught:
        cache_pages(127_999, bytes_per_token=1000, context_tokens=100, slots=2)
    assert caught.value.reason is Reason.DOES_NOT_FIT
    assert "128000" in caught.value.message
    assert "127999" in caught.value.message


class CacheErrorOfTheHub(Exception):
    reason = "HubUnreachable"


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (CacheErrorOfTheHub("no route"), Reason.HUB_UNREACHABLE, "no route"),
        (MemoryError(), Reason.MEMORY_EXCEEDED, "share of"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
         Reason.MEMORY_EXCEEDED, "tried to allocate 8 bytes"),
        (ValueError("first\nlast line."), Reason.LOAD_FAILED, "ValueError: last line. The engine's log"),
        (KeyError(), Reason.LOAD_FAILED, "no message"),
    ],
)  # fmt: skip
def test_every_error_gets_a_reason_and_its_last_line(error: Exception, reason: Reason, words: str) -> None:
    explained = explain(error, echo_args())
    assert explained.reason is reason
    assert words in explained.message


def test_a_load_error_is_passed_on_as_it_is() -> None:
    own = LoadError(Reason.UNSAFE_FILES, "why")
    with pytest.raises(LoadError) as caught, load_errors(echo_args()):
        raise own
    assert caught.value is own


def one_for_each_word(text: str) -> dict[str, list[int]]:
    assert len(text) <= 4096, "more was read than need be"
    return {"input_ids": [1] * len(text.split())}


@pytest.mark.parametrize("text", ["word " * 500_000, "word " * 2000, " " * 20_000])
def test_a_text_far_above_the_context_is_refused_before_it_is_read_whole(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_length(one_for_each_word, text, 512, "messages")
    assert (refused.value.status, refused.value.code) == (400, "context_length_exceeded")
    assert refused.value.param == "messages"


def test_a_text_of_few_tokens_may_be_long() -> None:
    check_length(one_for_each_word, "w" * 16_000, 512, "prompt")
