"""Whatever a server says, a request ends as what it is, and the run goes on."""

from collections.abc import Iterator

import pytest
from tests.builders.loadtest_worker import WorkerRun, chat, run_worker
from tests.builders.nonsense_server import NONSENSE, nonsense_server

from cotenant_loadtests.checks import MAX_TOKENS
from cotenant_loadtests.record import NEVER

pytestmark = pytest.mark.integration

KINDS = list(NONSENSE)
DEADLINE_S = 4.0
MEMORY_BYTES = 150 << 20
"""Less than three of the longest answers that are read; the program itself takes 45 MB."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerRun]:
    """One request for each kind of nonsense, a hundredth of a second apart, in one worker."""
    usual = {"check": "shape", "include_usage": False, "deadline_s": DEADLINE_S}
    plan = [
        chat(number, **{**usual, "model": kind, "at_s": 0.01 * number, **NONSENSE[kind].asked})
        for number, kind in enumerate(KINDS)
    ]
    with nonsense_server() as port:
        yield run_worker(plan, port, tmp_path_factory.mktemp("worker"))


@pytest.mark.parametrize("kind", KINDS)
def test_nonsense_is_called_what_it_is(run: WorkerRun, kind: str) -> None:
    record = run.records[KINDS.index(kind)]
    assert record.outcome in NONSENSE[kind].outcomes, record


def test_nonsense_neither_hangs_nor_kills_nor_fills_the_memory(run: WorkerRun) -> None:
    assert len(run.records) == len(KINDS)
    assert run.done.ended == "finished"
    assert run.done.max_rss_bytes < MEMORY_BYTES
    assert run.stderr == ""


def test_no_record_holds_a_count_that_no_answer_can_have(run: WorkerRun) -> None:
    counts = {count for record in run.records for count in (record.prompt_tokens, record.completion_tokens)}
    assert min(counts) >= NEVER
    assert max(counts) <= MAX_TOKENS


def test_details_quote_nothing_that_a_server_says_in_sentences(run: WorkerRun) -> None:
    assert not [record for record in run.records if "secret" in record.detail or " " in record.detail]
