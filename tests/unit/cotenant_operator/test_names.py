import pytest

from cotenant_operator.names import UnknownNameError, model_named, tenant_named

MODELS = ["search/chat", "search/embed", "ads/embed"]


@pytest.mark.parametrize(
    ("given", "meant"), [("chat", "search/chat"), ("search/chat", "search/chat"), ("ads/embed", "ads/embed")]
)
def test_a_model_is_found_by_its_whole_or_its_unambiguous_bare_name(given: str, meant: str) -> None:
    assert model_named(given, MODELS) == meant


@pytest.mark.parametrize("given", ["chta", "search/chta", "serch/chat"])
def test_a_name_that_is_mistyped_gets_the_nearest_one(given: str) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'search/chat'\? known: ads/embed, search/chat"):
        model_named(given, MODELS)


def test_a_bare_name_of_two_models_asks_for_the_whole_one() -> None:
    with pytest.raises(UnknownNameError, match="'embed' is ambiguous; say one of: ads/embed, search/embed"):
        model_named("embed", MODELS)


def test_a_long_list_of_names_is_cut() -> None:
    with pytest.raises(UnknownNameError, match="t19 and 5 more"):
        tenant_named("zzz", [f"t{number:02}" for number in range(25)])
