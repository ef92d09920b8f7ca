"""Engines that are told to go while they load, and the weights that transformers chooses."""

import json
import signal
from pathlib import Path

import pytest
from tests.builders.engine import echo_args, fake_conductor, generate_args, make_tiny_llama, running_engine

from cotenant_serving.contract import EchoOptions
from cotenant_serving.engine.loader import load
from cotenant_serving.engine.model_source import ModelSource

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's and transformers' own
]


def test_an_engine_that_is_told_to_go_while_it_loads_goes_at_once(tmp_path: Path) -> None:
    args = echo_args(echo=EchoOptions(load_s=1e6))
    with fake_conductor() as conductor, running_engine(args, tmp_path, conductor, wait=False) as engine:
        conductor.wait_for(lambda beat: beat.state == "loading")
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(timeout=30) == 0


def test_an_engine_that_is_told_to_go_while_it_waits_for_the_lease_goes_at_once(tmp_path: Path) -> None:
    with (
        fake_conductor(grant=False) as conductor,
        running_engine(echo_args(), tmp_path, conductor, wait=False) as engine,
    ):
        conductor.wait_for(lambda beat: beat.state == "waiting")
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(timeout=30) == 0


def test_transformers_loads_the_files_that_were_checked_and_no_others(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_weights": "adapter_model.bin"}))
    loaded = load(args := generate_args(folder), ModelSource(args), lambda *_, **__: None)
    assert loaded.model.lm_head.weight.shape[1] == 64
