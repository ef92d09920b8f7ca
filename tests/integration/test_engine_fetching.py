"""An engine whose model is not on this machine yet: it fetches before it asks for its device."""

from pathlib import Path

import msgspec
import pytest
from tests.builders.engine import fake_conductor, running_engine, text_args
from tests.builders.fake_hub import FakeHub, Fault
from tests.builders.text_models import make_bert

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_an_engine_fetches_without_the_start_lease_of_its_device_and_maps_what_it_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_bert(tmp_path / "bert")
    hub = FakeHub()
    hub.put("org/bert", {path.name: path.read_bytes() for path in folder.iterdir()})
    hub.fault(Fault("drip", "model.safetensors", at=1000, times=-1, value=0.05))
    for name, value in {"HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_HUB_OFFLINE": "0"}.items():
        monkeypatch.setenv(name, value)
    args = text_args("embed", folder, cache_dir=str(tmp_path / "cache"))
    args = msgspec.structs.replace(args, spec=msgspec.structs.replace(args.spec, source="hf://org/bert"))
    try:
        with (
            fake_conductor(grant=False) as conductor,
            running_engine(args, tmp_path, conductor, wait=False) as engine,
        ):
            fetching = conductor.wait_for(lambda beat: beat.fetch is not None)
            assert (fetching.state, fetching.holds_lease) == ("loading", False)
            hub.heal()  # what drips goes on: the rest comes by the next connection
            conductor.wait_for(lambda beat: beat.state == "waiting")
            assert not any(beat.holds_lease for beat in conductor.heartbeats)
            conductor.grant = True
            loading = conductor.wait_for(lambda beat: beat.holds_lease)
            assert (loading.state, loading.fetch) == ("loading", None)
            ready = conductor.wait_for(lambda beat: beat.state == "ready")
            assert ready.load is not None
            assert ready.load.fetched_bytes > 0
            mapped = Path(f"/proc/{engine.process.pid}/maps").read_text()
            assert str(tmp_path / "cache") in mapped
            assert engine.request("POST", "/v1/embeddings", {"model": "m", "input": "a"}).status == 200
    finally:
        hub.close()
