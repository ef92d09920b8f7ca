"""A reader does what README.md and docs/ say, command by command, with a home folder of their own.

The quick start comes first. The other pages go on where it ends: its two tenants, its models, its `cotenant up`.
A page that serves other models begins anew, without the quick start. tests/builders/docs.py says how a page is read,
and which commands no test can run.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.docs import PAGES, ROOT, blocks
from tests.builders.reader import Reader

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

QUICK_START = ROOT / "docs" / "quickstart.md"
ALONE = [ROOT / "docs" / "load-testing.md"]
GO_ON = [page for page in PAGES if page not in (QUICK_START, *ALONE) and any(block.runs for block in blocks(page))]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    one = Reader(tmp_path_factory.mktemp("reader"))
    yield one
    one.leave()


def test_the_quick_start_works_word_for_word(reader: Reader) -> None:
    reader.read_once(QUICK_START)


@pytest.mark.parametrize("page", GO_ON, ids=lambda page: page.name)
def test_the_commands_of_a_page_work_after_the_quick_start(page: Path, reader: Reader) -> None:
    reader.read_once(QUICK_START)
    reader.read_once(page)


@pytest.mark.parametrize("page", ALONE, ids=lambda page: page.name)
def test_a_page_with_models_of_its_own_works_by_itself(page: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        reader.read_once(page)
    finally:
        reader.leave()
