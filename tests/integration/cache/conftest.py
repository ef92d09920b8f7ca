"""A fake hub, and instances of the cache in processes of their own that ask it."""

from collections.abc import Iterator

import pytest
from tests.builders.cache_processes import CacheProcesses
from tests.builders.fake_hub import FakeHub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub()
    yield fake
    fake.close()


@pytest.fixture
def instances(hub: FakeHub) -> Iterator[CacheProcesses]:
    with CacheProcesses({"HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_HUB_DISABLE_TELEMETRY": "1"}) as processes:
        yield processes
