"""The tables of what a load test writes are read from the code that writes it."""

import pytest
from scripts import loadtest_docs

from cotenant_loadtests.columns import OUTCOMES
from cotenant_loadtests.gate import LATENCIES, SLOS, STATISTICS
from cotenant_loadtests.results import Results

SOURCE = '''
class Inner(Struct):
    pass

class Outer(Struct):
    """Of two
    lines; None is null."""

    count: int
    values: tuple[float | None, ...] = ()
    """What there is; None where
    there is nothing."""
'''


def test_fields_are_found_with_the_strings_under_them() -> None:
    _, outer = loadtest_docs.structs(SOURCE)
    assert outer.about == "Of two\nlines; null is null."
    assert outer.fields == (
        ("count", "int", ""),
        ("values", "tuple[float | None, ...]", "What there is; null where there is nothing."),
    )


TYPES = [
    ("int", "integer"),
    ("float | None", "number or null"),
    ("tuple[Inner, ...]", "list of [Inner](#inner)"),
    ("tuple[tuple[float, float], ...]", "list of [number, number]"),
    ("dict[str, int]", "map of integer"),
    ("dict[str, Any]", "map"),
    ("Literal['a', 'b']", "`a` or `b`"),
    ("Verdict", "`passed` or `missed`"),
]


@pytest.mark.parametrize(("hint", "words"), TYPES, ids=[row[0] for row in TYPES])
def test_types_are_told_as_a_reader_of_json_sees_them(hint: str, words: str) -> None:
    assert loadtest_docs.type_words(hint, {"Inner"}, {"Verdict": "`passed` or `missed`"}) == words


def test_the_tables_begin_with_the_outermost_and_have_all_its_fields() -> None:
    outermost, *_ = loadtest_docs.results()
    assert outermost.name == "Results"
    assert [name for name, _, _ in outermost.fields] == list(Results.__struct_fields__)


def test_every_outcome_is_listed() -> None:
    assert [row[0] for row in loadtest_docs.outcomes()] == [f"`{outcome}`" for outcome in OUTCOMES]


def test_every_slo_is_in_the_table() -> None:
    table = loadtest_docs.slo_table()
    others = [slo for slo in SLOS if not slo.endswith("_ms")]
    assert [slo for slo in others if f"`{slo}`" not in table] == []
    assert [word for word in (*LATENCIES, *STATISTICS) if word not in table] == []
