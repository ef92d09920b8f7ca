"""The tensor engine on small exported programs: equal to the model itself, over real HTTP with tritonclient."""

import asyncio
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.builders.archives import rewrite_archive
from tests.builders.engine import RunningEngine, fake_conductor, running_engine, text_args
from tests.builders.whole_path import Gateway, gateway_before
from torch.export import Dim

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import GenerationError, LoadError, UnaryRequest
from cotenant_serving.engine.tensor import TensorEngine
from cotenant_serving.request_fields import RequestError

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's and gevent's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CLOSE = {"rtol": 0, "atol": 1e-5}
ROWS = Dim("rows", min=1, max=64)


class Scaled(torch.nn.Module):
    """Two inputs, two outputs of different types, a constant, a buffer and no_grad()."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.register_buffer("offset", torch.tensor([1.0, 2.0, 3.0]))
        self.factor = torch.tensor([2.0])

    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            y = self.norm(self.layer(x)).softmax(-1) * scale + self.offset * self.factor
        return {"y": y, "best": y.argmax(dim=-1)}


class Function(torch.nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def export(folder: Path, module: torch.nn.Module, inputs: tuple[Any, ...], dynamic: Any = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=dynamic), str(folder / "model.pt2"))
    return folder


def scaled(folder: Path) -> Path:
    inputs = (torch.randn(2, 4), torch.randn(2, 1))
    return export(folder, Scaled(), inputs, ({0: ROWS}, {0: ROWS}))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    folder = scaled(tmp_path_factory.mktemp("models") / "scaled")
    args = text_args("tensor", folder, slots=64, max_batch=16, batch_wait_s=0.02)
    with fake_conductor() as conductor, running_engine(args, tmp_path_factory.mktemp("engine"), conductor) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(engine, tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[Any]:
    import tritonclient.http as triton

    with triton.InferenceServerClient(gateway.address, concurrency=8) as made:
        yield made


def given(x: np.ndarray, scale: np.ndarray, *, binary: bool = True) -> list[Any]:
    import tritonclient.http as triton

    made = [triton.InferInput(name, list(one.shape), "FP32") for name, one in (("x", x), ("scale", scale))]
    for tensor, one in zip(made, (x, scale), strict=True):
        tensor.set_data_from_numpy(one, binary_data=binary)
    return made


def random_inputs(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, 4)).astype("<f4"), random.normal(size=(rows, 1)).astype("<f4")


def expected(x: np.ndarray, scale: np.ndarray) -> dict[str, np.ndarray]:
    answer = Scaled()(torch.from_numpy(x), torch.from_numpy(scale))
    return {name: tensor.numpy() for name, tensor in answer.items()}


def test_metadata_say_what_forward_takes_and_gives(client: Any, gateway: Gateway) -> None:
    found = client.get_model_metadata("team/tensor", headers=gateway.headers())
    assert found["platform"] == "torch_export"
    assert found["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "scale", "datatype": "FP32", "shape": [-1, 1]},
    ]
    assert found["outputs"] == [
        {"name": "y", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "best", "datatype": "INT64", "shape": [-1]},
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_gets_what_the_model_computes(client: Any, gateway: Gateway, binary: bool) -> None:
    import tritonclient.http as triton

    inputs = random_inputs(3)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("best", "y")]
    answer = client.infer(
        "team/tensor", given(*inputs, binary=binary), outputs=wanted, headers=gateway.headers(), request_id="7"
    )
    assert answer.get_response()["id"] == "7"
    for name, values in expected(*inputs).items():
        np.testing.assert_allclose(answer.as_numpy(name), values, **CLOSE)


def test_requests_at_once_are_joined_and_get_their_own_rows(client: Any, gateway: Gateway) -> None:
    sent = [random_inputs(1 + seed % 5, seed) for seed in range(24)]
    pending = [client.async_infer("tensor", given(*inputs), headers=gateway.headers()) for inputs in sent]
    for inputs, one in zip(sent, pending, strict=True):
        answer = one.get_result()
        for name, values in expected(*inputs).items():
            np.testing.assert_allclose(answer.as_numpy(name), values, **CLOSE)


def infer(engine: RunningEngine, *tensors: dict[str, Any], **body: Any) -> Any:
    return engine.request("POST", "/v2/models/m/infer", {"inputs": list(tensors)} | body)


def tensor(name: str, shape: Sequence[int], **changes: Any) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": list(shape), "data": [1.0] * int(np.prod(shape))} | changes


X, SCALE = tensor("x", (2, 4)), tensor("scale", (2, 1))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([X], "lacks 'scale'"),
        ([X, SCALE, tensor("z", (1,))], "inputs[2].name"),
        ([tensor("x", (2, 5)), SCALE], "Input 'x' has shape [2, 5]"),
        ([tensor("x", (8,)), SCALE], "Input 'x' has shape [8]"),
        ([X, tensor("scale", (3, 1))], "Input 'scale' has shape [3, 1]"),
        ([tensor("x", (70, 4)), tensor("scale", (70, 1))], "1 to 64"),
        ([tensor("x", (20, 4)), tensor("scale", (20, 1))], "at most 16"),
        ([tensor("x", (2, 4), datatype="FP64"), SCALE], "Input 'x' has datatype FP64"),
        ([tensor("x", (2, 4), data=[[1, 2, 3, 4], [5, 6, 7]]), SCALE], "ragged"),
        ([tensor("x", (2, 4), data=[1.0] * 7), SCALE], "Input 'x'"),
        ([tensor("x", (2, 4), data=["a"] * 8), SCALE], "Input 'x'"),
    ],
)
def test_bad_input_is_a_400_that_names_the_input(
    engine: RunningEngine, tensors: list[dict[str, Any]], words: str
) -> None:
    answer = infer(engine, *tensors)
    assert answer.status == 400
    assert list(answer.json) == ["error"]
    assert words in answer.json["error"]


def test_an_output_that_is_not_there_and_parameters_of_other_tasks_are_refused(engine: RunningEngine) -> None:
    assert "outputs[0].name" in infer(engine, X, SCALE, outputs=[{"name": "z"}]).json["error"]
    assert "dimensions" in infer(engine, X, SCALE, parameters={"dimensions": 3}).json["error"]


def test_binary_tensors_that_are_cut_off_are_refused(engine: RunningEngine) -> None:
    head = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}, SCALE]
    }
    answer = engine.request("POST", "/v2/models/m/infer", head, {"inference-header-content-length": "9999"})
    assert answer.status == 400
    answer = engine.request("POST", "/v2/models/m/infer", head)
    assert (answer.status, "binary_data_size" in answer.json["error"]) == (400, True)


def test_not_a_number_comes_back_in_binary_and_is_refused_in_json(client: Any, gateway: Gateway) -> None:
    x, scale = random_inputs(1)
    x[0, 0] = np.nan
    answer = client.infer("tensor", given(x, scale), headers=gateway.headers())
    assert np.isnan(answer.as_numpy("y")).all()
    import tritonclient.http as triton

    wanted = [triton.InferRequestedOutput("y", binary_data=False)]
    with pytest.raises(triton.InferenceServerException, match=r"Output 'y'.*NaN"):
        client.infer("tensor", given(x, scale), outputs=wanted, headers=gateway.headers())


def test_routes_of_other_tasks_are_not_there(engine: RunningEngine) -> None:
    assert engine.request("POST", "/v1/embeddings", {"model": "m", "input": "x"}).status == 404


class Served:
    """An engine in this process."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.engine = TensorEngine(text_args("tensor", folder, **options))
        self.engine.load(lambda *_, **__: None)

    async def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        names = {"float32": "FP32", "int64": "INT64", "bool": "BOOL", "float16": "FP16"}
        tensors = [
            {"name": name, "datatype": names[str(one.dtype)], "shape": list(one.shape), "data": one.tolist()}
            for name, one in inputs.items()
        ]
        body = json.dumps({"inputs": tensors}).encode()
        answer = await self.engine.answer(UnaryRequest(str(id(tensors)), "POST", "/v2/models/m/infer", body))
        return {
            one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in json.loads(answer.body)["outputs"]
        }


def served(
    folder: Path, function: Callable[..., Any], *inputs: torch.Tensor, dynamic: Any = None, **options: Any
) -> Served:
    shapes = {"inputs": dynamic} if dynamic else None
    return Served(export(folder, Function(function), inputs, shapes), **options)


async def test_one_request_that_fails_fails_no_neighbour(tmp_path: Path) -> None:
    table = torch.arange(30.0).reshape(10, 3)
    make = served(
        tmp_path, lambda x: table[x], torch.tensor([1, 2]), dynamic=({0: ROWS},), batch_wait_s=0.05, max_batch=8
    )
    asked = [np.array([1, 2]), np.array([99]), np.array([3])]
    found = await asyncio.gather(*(make(inputs_0=one) for one in asked), return_exceptions=True)
    assert isinstance(found[1], GenerationError)
    assert found[1].code == "computation_failed"
    for one, answer in ((asked[0], found[0]), (asked[2], found[2])):
        assert isinstance(answer, dict)
        np.testing.assert_array_equal(answer["output"], table[torch.from_numpy(one)])


@pytest.mark.parametrize("size", [1.0, 1e-4])
async def test_rows_that_touch_each_other_are_not_joined(size: float, tmp_path: Path) -> None:
    def centred(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(dim=0)) * size

    make = served(tmp_path, centred, torch.randn(2, 3), dynamic=({0: ROWS},), batch_wait_s=0.05)
    asked = [np.random.default_rng(seed).normal(size=(2, 3)).astype("f4") for seed in range(4)]
    answers = await asyncio.gather(*(make(inputs_0=one) for one in asked))
    for one, answer in zip(asked, answers, strict=True):
        np.testing.assert_allclose(answer["output"], (one - one.mean(axis=0)) * size, rtol=0, atol=1e-5 * size)


async def test_fixed_shapes_nested_inputs_and_several_outputs(tmp_path: Path) -> None:
    class Nested(torch.nn.Module):
        def forward(self, parts: dict[str, Any], flag: torch.Tensor, half: bool = True) -> tuple[torch.Tensor, ...]:
            return parts["a"] + parts["b"][0], ~flag, (parts["a"] / 2).half()

    inputs = ({"a": torch.randn(3), "b": [torch.randn(3)]}, torch.tensor([True, False]), True)
    make = Served(export(tmp_path, Nested(), inputs))
    a, b, flag = np.ones(3, "f4"), np.full(3, 2, "f4"), np.array([True, False])
    answer = await make(parts_a=a, parts_b_0=b, flag=flag)
    np.testing.assert_array_equal(answer["output_0"], a + b)
    np.testing.assert_array_equal(answer["output_1"], ~flag)
    np.testing.assert_array_equal(answer["output_2"], a / 2)


async def test_branches_and_conditions_of_shapes(tmp_path: Path) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] % 2 == 0:
            x = x + 1
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))

    make = served(tmp_path, function, torch.ones(4, 2), dynamic=({0: Dim.DYNAMIC},))
    for value in (5.0, -5.0):
        x = np.full((4, 2), value, "f4")
        np.testing.assert_allclose((await make(inputs_0=x))["output"], function(torch.from_numpy(x)), **CLOSE)
    with pytest.raises(RequestError, match="% 2"):
        await make(inputs_0=np.ones((3, 2), "f4"))


class Counts(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        return x + self.seen


def refusal(folder: Path, **options: Any) -> LoadError:
    with pytest.raises(LoadError) as refused:
        Served(folder, **options)
    return refused.value


@pytest.mark.parametrize("module", [Counts(), torch.nn.BatchNorm1d(3).train()])
def test_a_program_that_changes_itself_is_refused(module: torch.nn.Module, tmp_path: Path) -> None:
    refused = refusal(export(tmp_path, module, (torch.randn(2, 3),)))
    assert refused.reason is Reason.UNSUPPORTED_ARCHITECTURE
    assert "eval mode" in refused.message


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


async def test_what_torch_would_unpickle_is_never_read(tmp_path: Path) -> None:
    folder, canary = scaled(tmp_path / "m"), tmp_path / "canary"
    rewrite_archive(folder / "model.pt2", {"data/sample_inputs/model.pt": pickle.dumps(Canary(canary))})
    x, scale = random_inputs(2)
    answer = await Served(folder)(x=x, scale=scale)
    np.testing.assert_allclose(answer["y"], expected(x, scale)["y"], **CLOSE)
    assert not canary.exists()


def with_program(folder: Path, change: Callable[[Any], None]) -> None:
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        program = json.loads(archive.read(name))
    change(program)
    rewrite_archive(folder / "model.pt2", {"models/model.json": json.dumps(program).encode()})


def test_code_hidden_in_the_program_is_refused_and_does_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = f"__import__('os').mkdir({str(canary)!r})"

    def in_a_size(program: Any) -> None:
        tensors = program["graph_module"]["graph"]["tensor_values"]
        tensors["x"]["sizes"][0]["as_expr"]["expr_str"] = code

    def in_a_name(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["name"] = f"a\n    {code}\n    b"

    def in_an_operator(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.mkdir"

    def in_a_guard(program: Any) -> None:
        program["guards_code"] = [f"{code} is None"]

    for number, change in enumerate((in_a_size, in_a_name, in_an_operator, in_a_guard)):
        folder = scaled(tmp_path / str(number))
        with_program(folder, change)
        refused = refusal(folder)
        assert refused.reason in (Reason.UNSAFE_FILES, Reason.UNSUPPORTED_ARCHITECTURE), refused.message
    assert not canary.exists()


def test_weights_that_are_shorter_than_they_say_are_damaged(tmp_path: Path) -> None:
    folder = scaled(tmp_path)
    rewrite_archive(folder / "model.pt2", {"data/weights/weight_0": b"\x00" * 8})
    assert refusal(folder).reason is Reason.CORRUPT_WEIGHTS


def test_an_archive_larger_than_the_share_does_not_fit(tmp_path: Path) -> None:
    assert refusal(scaled(tmp_path), share_bytes=100).reason is Reason.DOES_NOT_FIT
