"""docs/weight-cache.md names tests for each promise; each is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "weight-cache.md").read_text()
TESTS = ROOT / "tests" / "integration" / "cache"


def promises() -> dict[str, list[str]]:
    rows = re.findall(r"^\| (.+?) \| (`test_.+`) \|$", PAGE, re.MULTILINE)
    return {promise: re.findall(r"`(test_\w+\.py::test_\w+)`", shown) for promise, shown in rows}


def test_every_promise_names_tests_that_are_there() -> None:
    assert len(promises()) >= 17
    for promise, tests in promises().items():
        assert tests, promise
        for test in tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (TESTS / file).read_text(), test
