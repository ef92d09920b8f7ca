import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders.load_records import Request, answered, answered_whole, failed, run_of

from cotenant_loadtests.columns import columns_of
from cotenant_loadtests.fairness_index import fairness_of
from cotenant_loadtests.results import Fairness
from cotenant_loadtests.window import Window

ALL_THE_TIME = Window(0.0, 1000.0)


def fairness(*requests: Request, window: Window = ALL_THE_TIME) -> Fairness:
    output = run_of(requests)
    return fairness_of(columns_of(output.plan, output.records), window, round(output.duration_s * 1e6))


def served(tenant: str, tokens: int, *, at_s: float = 0.0, until_s: float = 10.0) -> Request:
    """Backlogged from `at_s` to `until_s`, with its tokens in the middle."""
    middle_ms = (until_s - at_s) * 500
    return answered(tenant=tenant, at_s=at_s, ttft_ms=middle_ms, tail_ms=middle_ms, tokens=tokens)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=8).filter(any))
def test_tenants_backlogged_all_the_time_have_jains_index_of_their_tokens(tokens: list[int]) -> None:
    found = fairness(*(served(f"tenant-{number}", count) for number, count in enumerate(tokens)))
    squares = sum(count**2 for count in tokens)
    assert found.jain == pytest.approx(sum(tokens) ** 2 / (len(tokens) * squares))
    assert found.backlogged_s == pytest.approx(10)
    assert list(found.tokens.values()) == pytest.approx(tokens)


@pytest.mark.parametrize(("tokens", "jain"), [((50, 50), 1.0), ((100, 0), 0.5), ((75, 25), 0.8), ((1, 0, 0), 1 / 3)])
def test_equal_parts_are_1_and_all_for_one_of_n_is_1_in_n(tokens: tuple[int, ...], jain: float) -> None:
    assert fairness(*(served(f"tenant-{number}", count) for number, count in enumerate(tokens))).jain == (
        pytest.approx(jain)
    )


def test_tokens_that_come_while_a_tenant_is_alone_do_not_count() -> None:
    found = fairness(
        served("heavy", 900, until_s=10),
        served("heavy", 50, at_s=10, until_s=20),
        served("light", 50, at_s=10, until_s=20),
    )
    assert found.jain == pytest.approx(1)
    assert found.tokens == {"heavy": 50, "light": 50}
    assert found.backlogged_s == pytest.approx(10)


def test_tenants_that_were_never_backlogged_together_have_no_index() -> None:
    found = fairness(served("one", 10, until_s=5), served("other", 10, at_s=5, until_s=10))
    assert (found.jain, found.backlogged_s, found.tokens) == (None, 0, {})


def test_equal_parts_of_groups_that_change_are_fair() -> None:
    """Three tenants have a third each, then two of them a half each, at half the speed."""
    found = fairness(
        served("a", 100, until_s=10),
        served("b", 100, until_s=10),
        served("c", 100, until_s=10),
        served("a", 75, at_s=10, until_s=20),
        served("b", 75, at_s=10, until_s=20),
    )
    assert found.jain == pytest.approx(1)
    assert found.tokens == {"a": 175, "b": 175, "c": 100}


def test_a_tenant_starved_for_a_moment_weighs_as_much_as_that_moment() -> None:
    brief = fairness(served("a", 1000), served("b", 1000), served("c", 0, at_s=9, until_s=10))
    long = fairness(served("a", 1000), served("b", 1000), served("c", 0, at_s=0, until_s=10))
    assert brief.jain == pytest.approx(1)
    assert long.jain == pytest.approx(2 / 3)


def test_only_time_within_the_window_counts() -> None:
    found = fairness(
        served("a", 90, until_s=5),
        served("b", 10, until_s=5),
        served("a", 50, at_s=5, until_s=10),
        served("b", 50, at_s=5, until_s=10),
        window=Window(5.0, 10.0),
    )
    assert (found.jain, found.backlogged_s) == (pytest.approx(1), pytest.approx(5))


def test_a_request_that_waits_and_fails_keeps_its_tenant_backlogged() -> None:
    found = fairness(served("heavy", 100), failed("timeout", took_ms=10_000, tenant="starved"))
    assert found.jain == pytest.approx(0.5)
    assert found.tokens == {"heavy": 100, "starved": 0}


def test_the_last_token_counts_though_it_ends_the_backlog() -> None:
    found = fairness(*(answered_whole(tenant=tenant, took_ms=1000, tokens=5) for tenant in ("a", "b")))
    assert found.tokens == {"a": 5, "b": 5}


def test_without_generated_tokens_each_answer_counts_as_one() -> None:
    calls = [answered_whole(tenant=tenant, api="oip", took_ms=took) for tenant, took in (("a", 100), ("b", 100))]
    found = fairness(*calls, *calls[:1])
    assert (found.service, found.tokens) == ("answers", {"a": 2, "b": 1})


@pytest.mark.parametrize("api", ["embeddings", "oip"])
def test_a_tenant_that_asks_for_no_tokens_makes_those_that_do_no_less_equal(api: str) -> None:
    chats = [served("chat-1", 50), served("chat-2", 50)]
    vectors = answered_whole(tenant="vectors", api=api, took_ms=10_000, tokens=0)
    found = fairness(*chats, vectors)
    assert (found.service, found.jain) == ("tokens", pytest.approx(1))
    assert found.tokens == {"chat-1": 50, "chat-2": 50}
    assert fairness(chats[0], vectors).jain is None


def test_a_tenant_that_never_gets_its_first_token_counts_beside_those_that_do() -> None:
    found = fairness(served("heavy", 100), failed("timeout", took_ms=10_000, tenant="starved", api="completions"))
    assert (found.service, found.jain) == ("tokens", pytest.approx(0.5))


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.floats(0, 20), st.floats(0.001, 10), st.integers(0, 50)), max_size=40
    )
)
def test_the_index_is_a_share_and_no_tenant_gets_more_than_it_was_served(
    requests: list[tuple[str, float, float, int]],
) -> None:
    some = [served(tenant, count, at_s=at, until_s=at + took) for tenant, at, took, count in requests]
    found = fairness(*some)
    assert found.jain is None or 0 < found.jain <= 1
    for tenant, tokens in found.tokens.items():
        assert tokens <= sum(count for name, _, _, count in requests if name == tenant) + 0.001
