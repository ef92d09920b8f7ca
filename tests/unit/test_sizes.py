"""`--full` runs all cases of a test that has thousands, `make test` a tenth of them."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]
CONFTEST = Path(__file__).parents[1] / "conftest.py"
COUNTING = """
def test_counts(full_size): print("cases:", full_size(20_000), full_size(3))
def test_does_not(): pass
"""


@pytest.fixture
def run(pytester: pytest.Pytester):
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers =\n    full: x\n    chaos: x\naddopts = -p no:asyncio --strict-markers\n")
    pytester.makepyfile(COUNTING)
    return lambda *arguments: pytester.runpytest_inprocess("-rP", *arguments).stdout.str()


def test_without_full_a_tenth_of_the_cases_run_and_never_none(run) -> None:
    assert "cases: 2000 1" in run()


def test_with_full_all_of_them_do(run) -> None:
    assert "cases: 20000 3" in run("--full")


def test_tests_that_change_their_size_are_found_by_their_mark(run) -> None:
    assert "1 passed, 1 deselected" in run("-m", "chaos or full")
