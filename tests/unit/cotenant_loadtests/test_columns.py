from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.load_records import Request, answered, answered_whole, failed, run_of

from cotenant_loadtests.columns import columns_of, decode_steps, event_times, tokens_in_parts
from cotenant_loadtests.record import NEVER, decode_times, encode_times
from cotenant_loadtests.spec import Goodput

times_us = st.lists(st.integers(0, 2**40), max_size=30).map(sorted)


def columns(*requests: Request):
    output = run_of(requests)
    return columns_of(output.plan, output.records)


@given(st.lists(times_us, max_size=20))
def test_many_records_times_are_decoded_as_each_alone(many: list[list[int]]) -> None:
    encoded = [encode_times(times) for times in many]
    of, at_us, gap_us = event_times(encoded)
    assert [at_us[of == one].tolist() for one in range(len(many))] == [decode_times(one) for one in encoded] == many
    assert [int(gap) for gap in gap_us if gap != NEVER] == [
        later - earlier for times in many for earlier, later in pairwise(times)
    ]


def test_nothing_encoded_is_no_time() -> None:
    steps, counts = decode_steps([b"", b""])
    assert (len(steps), counts.tolist()) == (0, [0, 0])
    assert [len(part) for part in event_times([])] == [0, 0, 0]


def test_latencies_of_a_streamed_answer_count_from_its_schedule() -> None:
    one = columns(answered(at_s=2, ttft_ms=20, gaps_ms=[10, 30], tail_ms=5, late_ms=3))
    assert one.ttft_us.tolist() == [20_000]
    assert one.e2e_us.tolist() == [65_000]
    assert one.tpot_us.tolist() == [22_500]
    assert one.lateness_us.tolist() == [3_000]


def test_tokens_are_the_servers_count_where_it_told() -> None:
    one = columns(answered(ttft_ms=20, gaps_ms=[10, 30], tokens=5))
    assert one.tokens.tolist() == [5]
    assert one.tpot_us.tolist() == [10_000]


def test_tokens_are_events_where_the_server_told_none() -> None:
    planned, record = answered(ttft_ms=20, gaps_ms=[10, 30])
    one = columns((planned, msgspec.structs.replace(record, completion_tokens=NEVER)))
    assert one.tokens.tolist() == [3]


def test_an_answer_that_is_not_streamed_has_its_first_token_at_its_end_and_no_tpot() -> None:
    one = columns(answered_whole(took_ms=40))
    assert one.ttft_us.tolist() == one.e2e_us.tolist() == [40_000]
    assert one.tpot_us.tolist() == [NEVER]


def test_a_single_token_has_no_tpot() -> None:
    assert columns(answered(gaps_ms=[])).tpot_us.tolist() == [NEVER]


def test_a_cancelled_answer_has_a_first_token_but_no_end() -> None:
    one = columns(answered(ttft_ms=20, gaps_ms=[10], outcome="cancelled"))
    assert one.success.tolist() == [True]
    assert (one.ttft_us.tolist(), one.e2e_us.tolist(), one.tpot_us.tolist()) == ([20_000], [NEVER], [NEVER])


def test_a_failure_has_no_latency_even_with_tokens() -> None:
    one = columns(answered(ttft_ms=20, gaps_ms=[10], outcome="timeout"))
    assert (one.ttft_us.tolist(), one.e2e_us.tolist(), one.tpot_us.tolist()) == ([NEVER], [NEVER], [NEVER])


def test_embeddings_have_no_completion_tokens() -> None:
    assert columns(answered_whole(api="embeddings", tokens=-1)).tokens.tolist() == [0]


def test_prompt_tokens_are_the_words_sent_where_the_server_told_none() -> None:
    planned, record = answered()
    one = columns((planned, msgspec.structs.replace(record, prompt_tokens=NEVER)), answered())
    assert one.prompt_tokens.tolist() == [8, 8]


GOOD = [
    ("no limits", None, True),
    ("all met", Goodput(ttft_ms=20, tpot_ms=20, e2e_ms=60), True),
    ("first token late", Goodput(ttft_ms=19.9), False),
    ("tokens slow", Goodput(tpot_ms=19.9), False),
    ("end late", Goodput(e2e_ms=59.9), False),
]


@pytest.mark.parametrize(("limits", "good"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_a_request_is_good_within_all_limits(limits: Goodput | None, good: bool) -> None:
    assert columns(answered(ttft_ms=20, gaps_ms=[10, 30])).good(limits).tolist() == [good]


def test_a_limit_on_a_latency_that_a_request_does_not_have_is_met() -> None:
    limits = Goodput(tpot_ms=1, e2e_ms=15)
    some = columns(answered_whole(took_ms=10), answered(ttft_ms=10, gaps_ms=[90], outcome="cancelled"))
    assert some.good(limits).tolist() == [True, True]


def test_failures_are_never_good() -> None:
    assert columns(failed("timeout"), failed("rate_limited", status=429)).good(None).tolist() == [False, False]


def test_tokens_of_events_sum_to_the_servers_count() -> None:
    some = columns(answered(gaps_ms=[1, 1], tokens=7), answered_whole(tokens=4), failed("reset"))
    (part,) = tokens_in_parts(some)
    assert np.bincount(part.row, part.tokens, 3).tolist() == pytest.approx([7, 4, 0])


def test_an_answer_that_is_not_streamed_brings_its_tokens_at_its_end() -> None:
    (part,) = tokens_in_parts(columns(answered_whole(at_s=1, took_ms=40, tokens=4)))
    assert (part.at_us.tolist(), part.tokens.tolist(), part.gap_us.tolist()) == ([1_040_000], [4.0], [NEVER])
