"""A file through every fault of a hub at any byte: what is accepted is right, and every fetch has an end."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.fake_hub import FAULTS, FakeHub, Fault
from tests.builders.fetching import SHORT, TOKEN, Fetching, StallClock

from cotenant_cache.contract import BLOCK_BYTES
from cotenant_cache.errors import CacheError, CorruptWeightsError, HubUnreachableError, ModelNotFoundError

pytestmark = pytest.mark.integration

LARGE, SMALL = "model.safetensors", "tokenizer.json"
NOTHING_LOST = ("cut", "stall", "truncated_wrong", "drip", "stall_chunked", "drip_chunked")
"""Faults after which what came is kept, and only the rest is fetched."""
WRONG_BYTES = ("flip", "other_content", "revision")
REFUSED = {"gone": ModelNotFoundError, "nowhere": HubUnreachableError}
SEEDS = 30


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    fake = FakeHub(TOKEN)
    yield fake
    fake.close()


class Case:
    """A repository of its own with two files of random bytes, a part of one already on disk, and one fault."""

    def __init__(self, hub: FakeHub, kind: str, seed: int, folder: Path, times: int = 0) -> None:
        chance = random.Random(f"{kind} {seed}")
        self.repo = f"org/{kind}-{seed}{'-always' if times else ''}"
        self.name = chance.choice((LARGE, LARGE, SMALL))
        size = chance.randrange(2, 3 * 2**20) if self.name == LARGE else chance.randrange(2, 20_000)
        self.content = chance.randbytes(size)
        hub.put(self.repo, {self.name: self.content, "config.json": b"{}"}, private=True)
        self.times = times or chance.choice((1, 1, 2, 4))
        value = {
            "flip": chance.randrange(8),
            "revision": 1,
            "drip": 0.01,
            "drip_chunked": 0.01,
            "rate_limit_after": 7,
        }
        self.fault = Fault(
            kind, self.name, at=chance.randrange(size), times=self.times, value=value.get(kind, 100_000)
        )
        self.path = folder / f"{kind}-{seed}"
        self.there = chance.choice((0, 0, chance.randrange(size)))
        self.path.write_bytes(self.content[: self.there])
        clock = StallClock(hub, self.repo)
        self.fetching = Fetching.of(hub, self.repo, self.name, self.path, limits=SHORT, clock=clock)
        hub.heal()
        hub.fault(self.fault)

    def outcome(self) -> bytes | CacheError:
        try:
            return self.fetching.run(random.Random(self.repo).random)
        except CacheError as error:
            return error


@pytest.mark.parametrize("kind", FAULTS)
def test_no_wrong_byte_is_accepted_and_every_fetch_has_an_end(hub: FakeHub, tmp_path: Path, kind: str) -> None:
    for seed in range(SEEDS):
        case = Case(hub, kind, seed, tmp_path)
        came = case.outcome()
        if isinstance(came, CacheError):
            assert TOKEN not in str(came)
            assert expected_refusal(case, came), f"{kind} {seed}: {came!r}"
            continue
        assert came == case.content, f"{kind} {seed}"
        if kind in NOTHING_LOST:
            assert case.fetching.partial is not None
            missing = len(case.content) - case.there
            assert (case.fetching.partial.written_bytes, case.fetching.partial.restarts) == (missing, 0)
            starts = [start for repo, _, start in hub.starts if repo == case.repo]
            assert starts == sorted(starts), f"{kind} {seed}"
            assert set(starts) <= set(case.fetching.reports), f"{kind} {seed}: what is on disk was asked for again"
            # A reset takes back what the sender's kernel still had, and the next drop may be on its way to one who
            # leaves.
            assert kind in ("cut", "drip", "drip_chunked") or hub.bytes_sent(case.repo) == missing, f"{kind} {seed}"
    assert hub.leaked == set()


def expected_refusal(case: Case, error: CacheError) -> bool:
    """Whether the fault may end in this: bytes that are wrong twice, or a revision that is gone."""
    if case.fault.kind in WRONG_BYTES and case.times > 1:
        return isinstance(error, CorruptWeightsError) and case.path.stat().st_size == 0
    return isinstance(error, REFUSED.get(case.fault.kind, ()))


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_stays_ends_in_an_error_that_says_so(hub: FakeHub, tmp_path: Path, kind: str) -> None:
    case = Case(hub, kind, 1, tmp_path, times=-1)
    came = case.outcome()
    if isinstance(came, bytes):
        # A hub that breaks off each time still gives a file in a few pieces.
        assert kind in ("wrong_etag", "range_ignored", "longer", *NOTHING_LOST)
        assert came == case.content
    else:
        assert kind not in ("wrong_etag", "range_ignored", "longer")
        assert isinstance(came, CorruptWeightsError | HubUnreachableError | ModelNotFoundError)
        assert case.repo in str(came)
        assert TOKEN not in str(came)
    assert hub.bytes_sent(case.repo) <= SHORT.patience.attempts * (len(case.content) + BLOCK_BYTES)
