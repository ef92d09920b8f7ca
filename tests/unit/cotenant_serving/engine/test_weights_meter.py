"""What an engine says of the bytes that it fetches and reads: how far, how fast, and from where."""

from pathlib import Path

import pytest
from tests.builders.engine import generate_args

from cotenant_serving.amounts import of_bytes
from cotenant_serving.contract import Fetch, WeightsLoad
from cotenant_serving.engine import weights_meter
from cotenant_serving.engine.status import EngineStatus
from cotenant_serving.engine.weights_meter import Began, WeightsMeter, WeightsRead, begin_reading, read_since

MB = 10**6


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    def __init__(self) -> None:
        self.clock = Clock()
        self.meter = WeightsMeter(self.clock)

    def fetched(self, at_s: float, done: int, total: int = 800 * MB) -> None:
        self.clock.now_s = 100.0 + at_s
        self.meter.fetched(done, total)


def test_nothing_is_said_before_anything_was_fetched_or_read() -> None:
    meter = WeightsMeter()
    assert (meter.fetch(), meter.load()) == (None, None)


def test_a_fetch_says_how_far_it_is_and_how_fast() -> None:
    bench = Bench()
    for second in range(5):
        bench.fetched(second, second * 50 * MB)
    fetch = bench.meter.fetch()
    assert fetch == Fetch(done_bytes=200 * MB, total_bytes=800 * MB, bytes_per_s=50 * MB)
    assert fetch.eta_s == pytest.approx(12)


def test_what_was_there_before_counts_for_no_rate() -> None:
    bench = Bench()
    bench.fetched(0, 400 * MB)
    bench.fetched(4, 500 * MB)
    fetch = bench.meter.fetch()
    assert fetch is not None
    assert fetch.bytes_per_s == 25 * MB


def test_a_fetch_that_stalls_has_no_end_in_sight() -> None:
    bench = Bench()
    bench.fetched(0, 0)
    bench.fetched(5, 500 * MB)
    bench.clock.now_s += 11
    fetch = bench.meter.fetch()
    assert fetch is not None
    assert (fetch.bytes_per_s, fetch.eta_s) == (0, None)


def test_the_rate_is_that_of_the_last_seconds() -> None:
    bench = Bench()
    for second in range(61):
        bench.fetched(second, min(second, 30) * 10 * MB + max(0, second - 30) * MB)
    fetch = bench.meter.fetch()
    assert fetch is not None
    assert fetch.bytes_per_s == MB


def test_once_all_is_there_nothing_is_fetched_any_more() -> None:
    bench = Bench()
    bench.fetched(0, 0)
    bench.fetched(8, 800 * MB)
    assert bench.meter.fetch() is None
    assert bench.meter.load() == WeightsLoad(fetched_bytes=800 * MB, fetched_s=8)


def test_what_is_read_after_a_fetch_stays_a_download() -> None:
    bench = Bench()
    bench.fetched(0, 0)
    bench.fetched(8, 800 * MB)
    bench.meter.was_read(WeightsRead(790 * MB, 0.5, "memory"))
    load = bench.meter.load()
    assert load == WeightsLoad(
        fetched_bytes=800 * MB, fetched_s=8, read_bytes=790 * MB, read_s=0.5, read_from="memory"
    )
    assert load.rung == "download"


def test_a_model_that_is_whole_already_is_no_download() -> None:
    bench = Bench()
    bench.fetched(0, 800 * MB)
    bench.meter.was_read(WeightsRead(800 * MB, 2.0, "disk"))
    assert bench.meter.load() == WeightsLoad(read_bytes=800 * MB, read_s=2)


def test_what_hardly_touched_a_disk_was_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights_meter, "_OWN_IO", tmp_path / "io")
    for from_disk, expected in ((10 * MB, "memory"), (90 * MB, "disk")):
        (tmp_path / "io").write_text(f"rchar: 9\nread_bytes: {1000 * MB + from_disk}\nwrite_bytes: 5\n")
        assert read_since(Began(0.0, 1000 * MB), 100 * MB).read_from == expected


def test_where_the_kernel_does_not_tell_a_read_counts_as_one_of_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(weights_meter, "_OWN_IO", tmp_path / "missing")
    assert read_since(begin_reading(), MB).read_from == "disk"


def test_heartbeats_carry_the_fetch_while_it_lasts_and_then_what_it_was() -> None:
    clock = Clock()
    status = EngineStatus(generate_args(Path("/m")), instance="i", host="h", port=1, clock=clock)
    assert (status.snapshot().fetch, status.snapshot().load) == (None, None)
    status.progress("fetching", 0.0, fetched=(0, 100 * MB))
    clock.now_s += 2
    status.progress("fetching", 0.1, fetched=(50 * MB, 100 * MB))
    assert status.snapshot().fetch == Fetch(done_bytes=50 * MB, total_bytes=100 * MB, bytes_per_s=25 * MB)
    status.progress("importing torch", 0.2)
    beat = status.snapshot()
    assert (beat.fetch, beat.load) == (None, WeightsLoad(fetched_bytes=50 * MB, fetched_s=2))


@pytest.mark.parametrize(
    ("done", "total", "words"),
    [
        (3_100_000_000, 8_000_000_000, "3.1 of 8.0 GB"),
        (3_140_000, 800_000_000, "3 of 800 MB"),
        (0, 0, "0 of 0 MB"),
    ],
)
def test_bytes_are_told_as_people_say_them(done: int, total: int, words: str) -> None:
    assert of_bytes(done, total) == words
