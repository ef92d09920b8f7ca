"""What an engine loses, and what it keeps, while the sidecar that held its lease is gone."""

import mmap
import signal

import pytest
from tests.builders.cache_nodes import CacheNodes
from tests.builders.cached_models import model_files
from tests.builders.fake_hub import FakeHub
from tests.integration.cache.test_sidecar import leases, until

from cotenant_cache.cache import Cache
from cotenant_cache.client import open_checked
from cotenant_cache.source import HubAccess

pytestmark = pytest.mark.integration


def test_until_its_sidecar_is_back_a_model_in_use_may_go_but_not_the_bytes_that_are_mapped(
    hub: FakeHub, nodes: CacheNodes
) -> None:
    files = model_files()
    hub.put("org/a", files)
    program = nodes.start()
    opened = open_checked("hf://org/a", "", lease="engine-1", socket=program.socket)
    weights = opened.folder / "model.safetensors"
    with weights.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        program.stop(signal.SIGKILL)
        with Cache(program.root, access=HubAccess(endpoint=hub.url)) as other:
            assert other.evict(["hf://org/a"], yes=True).fits
        assert not weights.exists()
        program.start()
        assert program.models() == {}
        assert mapped[:] == files["model.safetensors"]

        with Cache(program.root, access=HubAccess(endpoint=hub.url)) as other:
            other.ensure("hf://org/a")  # for whoever asks next: then the engine has its lease again
        until(lambda: leases(program, "org/a") == 1, "the engine did not ask again")
    opened.close()


def test_a_pin_holds_a_model_while_its_sidecar_is_gone(hub: FakeHub, nodes: CacheNodes) -> None:
    hub.put("org/a", model_files())
    program = nodes.start()
    opened = open_checked("hf://org/a", "", lease="engine-1", socket=program.socket)
    with Cache(program.root) as other:
        other.pin("hf://org/a")
        program.stop(signal.SIGKILL)
        refused = other.evict(["hf://org/a"], yes=True)
    assert (refused.fits, "pinned" in refused.refusal) == (False, True)
    opened.close()
