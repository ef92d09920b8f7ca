"""The CUDA device and the engines on a real GPU."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.builders.engine import MIB, generate_args, make_tiny_llama, text_args
from tests.builders.text_models import Direct, make_bert

from cotenant_serving.engine.base import DeltaStream, Job, Prompt, UnaryRequest
from cotenant_serving.engine.device import open_device
from cotenant_serving.engine.embed import EmbedEngine
from cotenant_serving.engine.generate import GenerateEngine
from cotenant_serving.engine.tensor import TensorEngine
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
    await asyncio.to_thread(engine.load, lambda *_, **__: None)
    try:
        stream = DeltaStream()
        engine.start(Job("a", Prompt(tokens=3, ids=(1, 2, 3)), 8, Sampling(temperature=0.0)), stream)
        async with asyncio.timeout(60):
            while (await stream.take())[-1].finish_reason is None:
                pass
        assert 1 <= stream.tokens <= 8
    finally:
        engine.close()


async def ask(engine: EmbedEngine | TensorEngine, path: str, body: Any) -> Any:
    await asyncio.to_thread(engine.load, lambda *_, **__: None)
    try:
        answer = await engine.answer(UnaryRequest("r", "POST", path, json.dumps(body).encode()))
        return json.loads(answer.body)
    finally:
        engine.close()


async def test_vectors_from_the_gpu_are_those_of_the_cpu(tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "model")
    engine = EmbedEngine(text_args("embed", folder, device="cuda", device_bytes=16384 * MIB))
    answer = await ask(engine, "/v1/embeddings", {"model": "m", "input": ["one", "two three four"]})
    direct = Direct(folder)
    for item, text in zip(answer["data"], ("one", "two three four"), strict=True):
        first = direct.hidden(text)[0]
        assert item["embedding"] == pytest.approx((first / first.norm()).tolist(), abs=1e-3)


async def test_an_exported_program_runs_on_the_gpu(tmp_path: Path) -> None:
    import torch

    model, x = torch.nn.Linear(4, 3).eval(), torch.ones(2, 4)
    torch.export.save(torch.export.export(model, (x,)), str(tmp_path / "model.pt2"))
    engine = TensorEngine(text_args("tensor", tmp_path, device="cuda", device_bytes=16384 * MIB))
    tensor = {"name": "input", "datatype": "FP32", "shape": [2, 4], "data": x.flatten().tolist()}
    answer = await ask(engine, "/v2/models/m/infer", {"inputs": [tensor]})
    assert answer["outputs"][0]["data"] == pytest.approx(model(x).flatten().tolist(), abs=1e-3)
