"""Names of tenants and models, and how often each is drawn."""

import pytest

from cotenant_loadtests.names import chooser, expand
from cotenant_loadtests.seeded import Source


@pytest.mark.parametrize(
    ("names", "expanded"),
    [
        (["chat"], ["chat"]),
        (["b", "a"], ["b", "a"]),
        (["echo-{1..3}"], ["echo-1", "echo-2", "echo-3"]),
        (["echo-{08..11}/x", "y"], ["echo-08/x", "echo-09/x", "echo-10/x", "echo-11/x", "y"]),
        (["{1..2}-{01..02}"], ["1-01", "1-02", "2-01", "2-02"]),
        (["{5..5}"], ["5"]),
    ],
)
def test_ranges_stand_for_their_names_in_order(names: list[str], expanded: list[str]) -> None:
    assert list(expand(names)) == expanded


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["echo-{1..}"], "'echo-{1..}' has a brace that is no range; write a range like {01..20}"),
        (["echo-{a,b}"], "has a brace that is no range"),
        (["echo-{9..1}"], "has a range that runs backwards; write {1..9}"),
        (["echo-{1..99999}"], "stands for 99999 names; at most 10000 are allowed"),
        (["{1..200}-{1..200}"], "stands for 40000 names; at most 10000 are allowed"),
        (["a{1..6000}", "b{1..6000}"], "stands for more than 10000 names"),
        (["a", "{1..2}", "2", "a", "a"], "'a' stands there 3 times"),
    ],
)
def test_what_is_no_list_of_names_is_refused_with_the_reason(names: list[str], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        expand(names)
    assert reason in str(caught.value)


def draws(names: list[str], zipf: float, count: int = 20_000) -> dict[str, int]:
    choose = chooser(names, zipf, Source(3, "model"))
    found = [choose() for _ in range(count)]
    return {name: found.count(name) for name in expand(names)}


def test_without_zipf_each_name_is_drawn_equally_often() -> None:
    assert list(draws(["m-{1..4}"], 0).values()) == [pytest.approx(5000, abs=400)] * 4


def test_zipf_draws_the_kth_name_in_proportion_to_one_over_k() -> None:
    counts = draws(["m-{1..4}"], 1)
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert counts == {f"m-{rank}": pytest.approx(20_000 / rank / harmonic, abs=450) for rank in range(1, 5)}


def test_a_single_name_draws_nothing() -> None:
    source = Source(1)
    assert chooser(["only"], 1.0, source)() == "only"
    assert source.bits() == Source(1).bits()
