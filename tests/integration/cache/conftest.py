"""A fake hub, and instances of the cache in processes of their own that ask it."""

from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from tests.builders.cache_nodes import CacheNodes, cache_nodes
from tests.builders.cache_processes import CacheProcesses, asking
from tests.builders.fake_hub import FakeHub


@pytest.fixture(scope="module", autouse=True)
def no_child_is_left() -> Iterator[None]:
    """multiprocessing keeps a process of its own for the rest of a program; tests after these count children."""
    yield
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that another test loaded in this process has told every hub tool to stay offline."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    yield fake
    fake.close()


@pytest.fixture
def instances(hub: FakeHub) -> Iterator[CacheProcesses]:
    with CacheProcesses(asking(hub.url)) as processes:
        yield processes


@pytest.fixture
def nodes(hub: FakeHub, tmp_path: Path) -> Iterator[CacheNodes]:
    with cache_nodes(tmp_path, asking(hub.url)) as made:
        yield made
