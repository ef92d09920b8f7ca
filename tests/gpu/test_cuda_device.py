"""The CUDA device and the generate engine on a real GPU."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.builders.engine import MIB, generate_args, make_tiny_llama

from cotenant_serving.engine.base import DeltaStream, Job, Prompt
from cotenant_serving.engine.device import open_device
from cotenant_serving.engine.generate import GenerateEngine
from cotenant_serving.openai_api import Sampling

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(autouse=True)
def _needs_cuda() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"no CUDA device here (torch {torch.__version__}, CUDA {torch.version.cuda})")


def test_what_torch_allocates_shows_as_this_processs_use(tmp_path: Path) -> None:
    import torch

    device = open_device(generate_args(tmp_path, device="cuda"), os.environ)
    torch.zeros(1, device="cuda")
    before = device.used_bytes()
    kept = torch.zeros(256 * MIB, dtype=torch.uint8, device="cuda")
    assert device.used_bytes() - before >= 255 * MIB
    del kept


async def test_generation_runs_on_the_gpu_within_its_share(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "model")
    engine = GenerateEngine(generate_args(folder, device="cuda", device_bytes=16384 * MIB))
    await asyncio.to_thread(engine.load, lambda *_: None)
    try:
        stream = DeltaStream()
        engine.start(Job("a", Prompt(tokens=3, ids=(1, 2, 3)), 8, Sampling(temperature=0.0)), stream)
        async with asyncio.timeout(60):
            while (await stream.take())[-1].finish_reason is None:
                pass
        assert 1 <= stream.tokens <= 8
    finally:
        engine.close()
