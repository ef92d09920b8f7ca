"""Numbers of metrics in files that prometheus_client reads."""

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from prometheus_client.mmap_dict import MmapedDict

from cotenant_serving.gateway.metric_values import ValueFiles, value_class


def counter(files: ValueFiles, tenant: str):
    return value_class(files)("counter", "served", "served_total", ("tenant",), (tenant,), "Served.")


def exposed(folder: Path) -> str:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))
    return generate_latest(registry).decode()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[[int], ValueFiles]]:
    """Files of the worker of this number."""
    made: list[ValueFiles] = []

    def make(number: int) -> ValueFiles:
        made.append(ValueFiles(tmp_path, number))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_workers_count_is_summed_up_and_one_that_follows_a_dead_one_goes_on(tmp_path: Path, worker):
    first, second = worker(0), worker(1)
    counter(first, "search").inc(2)
    counter(second, "search").inc(3)
    assert 'served_total{tenant="search"} 5.0' in exposed(tmp_path)

    successor = counter(worker(1), "search")  # nothing was closed, as after a kill
    successor.inc(0.5)

    assert successor.get() == 3.5
    assert 'served_total{tenant="search"} 5.5' in exposed(tmp_path)


@contextlib.contextmanager
def limited(what: int, amount: int) -> Iterator[None]:
    before = resource.getrlimit(what)
    resource.setrlimit(what, (amount, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(what, before)


def test_a_number_that_finds_no_room_is_not_counted_and_harms_nobody(tmp_path: Path, worker):
    files = worker(0)
    known = counter(files, "search")
    size = (tmp_path / "counter_0.db").stat().st_size
    with limited(resource.RLIMIT_FSIZE, size):  # to a program the same as a full disk
        many = [counter(files, f"tenant-{number}") for number in range(2000)]
    for one in (known, *many):
        one.inc(1)
    counter(files, "later").inc(7)

    assert (tmp_path / "counter_0.db").stat().st_size > size, "there is room again"
    shown = exposed(tmp_path)
    assert 'served_total{tenant="search"} 1.0' in shown
    assert 'served_total{tenant="later"} 7.0' in shown
    assert 'tenant="tenant-1999"' not in shown


def test_a_new_number_needs_no_file_descriptor(tmp_path: Path, worker):
    files = worker(0)
    with limited(resource.RLIMIT_NOFILE, 3):
        counter(files, "search").inc(1)
    assert 'served_total{tenant="search"} 1.0' in exposed(tmp_path)


def test_numbers_go_on_when_their_file_grows(tmp_path: Path, worker):
    files = worker(0)
    numbers = [counter(files, f"tenant-{number}") for number in range(2000)]
    grown = (tmp_path / "counter_0.db").stat().st_size
    assert grown > 1 << 16, "the size that the library begins with"

    for value, one in enumerate(numbers):
        one.inc(value)
        one.inc(1)

    found = MmapedDict.read_all_values_from_file(str(tmp_path / "counter_0.db"))
    assert [value for _, value, _, _ in found] == [value + 1 for value in range(2000)]
