"""Numbers of metrics in files that prometheus_client reads."""

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
