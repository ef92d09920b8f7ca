"""The `tensor` engine: a torch.export archive behind the Open Inference Protocol.

Requests are joined along dimension 0 when the program has one size there for all inputs and outputs, and a trial at
load shows that its rows do not touch each other; else they run one by one. The trial cannot see what only certain
values do: a program in which one row may change another's result must not be exported with a dynamic dimension 0.
"""

import asyncio
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cotenant_serving.contract import EngineArgs, Reason, Usage
from cotenant_serving.engine.base import LoadError, Progress, UnaryAnswer, UnaryRequest
from cotenant_serving.engine.dynamic_batching import BatchLimits, DynamicBatcher, Work
from cotenant_serving.engine.load_errors import load_errors
from cotenant_serving.engine.loader import prepare_torch
from cotenant_serving.engine.model_source import ModelSource
from cotenant_serving.engine.oip import infer_answer, metadata_answer, model_path, read_infer
from cotenant_serving.engine.tensor_archive import Archive
from cotenant_serving.engine.tensor_data import dtype_of, to_oip, to_torch
from cotenant_serving.engine.tensor_program import Program, load_program
from cotenant_serving.engine.tensor_signature import Signature, TensorSpec
from cotenant_serving.engine.text_model import is_fatal
from cotenant_serving.engine.weights_meter import begin_reading, read_since
from cotenant_serving.oip_api import InferRequest, TensorFacts
from cotenant_serving.request_fields import RequestError

PLATFORM = "torch_export"
FREE_SIZE = 8
"""Of a dimension of any size, in the pass that warms up, where the archive has no size from its export."""
NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0)

log = logging.getLogger("cotenant.engine")


class TensorEngine:
    """See the module."""

    def __init__(self, args: EngineArgs) -> None:
        self._args = args
        self._signature: Signature
        self._max_rows = 0
        """Rows of a batch at most; 0 when requests are not joined."""
        self._batcher: DynamicBatcher | None = None
        self._source = ModelSource(args)
        # Large bodies must not stop the loop.
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="read")

    def fetch(self, progress: Progress) -> None:
        self._source.open(progress)

    def load(self, progress: Progress) -> None:
        args = self._args
        with load_errors(args):
            opened = self._source.open(progress)
            progress("importing torch", 0.2)
            prepare_torch(args)
            progress("reading the archive", 0.5)
            began, file = begin_reading(), opened.folder / archive_of(opened.folder)
            with Archive(file, args.share_bytes) as archive:
                program = load_program(archive, args.spec.device)
            self._signature = program.signature
            progress("warming up", 0.9, read=read_since(began, file.stat().st_size))
            runner = Runner(program, args.spec.device)
            self._max_rows = rows_to_join(program, runner, args.spec.max_batch)
            runner.warm_up(max(1, self._max_rows))
        limits = BatchLimits(self._max_rows or 1, 0, args.spec.batch_wait_s if self._max_rows else 0.0)
        self._batcher = DynamicBatcher(runner, limits, is_fatal=is_fatal)
        progress("loaded", 1.0)

    def serves(self, method: str, path: str) -> bool:
        return model_path(method, path) is not None

    async def answer(self, request: UnaryRequest) -> UnaryAnswer:
        path = model_path(request.method, request.path)
        assert path is not None, "only routes that are served get here"
        assert self._batcher is not None, "answer() before load()"
        if not path.infer:
            facts = partial(map, lambda spec: TensorFacts(spec.name, spec.datatype, spec.shape))
            return metadata_answer(
                path.model, PLATFORM, list(facts(self._signature.inputs)), list(facts(self._signature.outputs))
            )
        loop = asyncio.get_running_loop()
        asked, work = await loop.run_in_executor(self._reading, self._read, request)
        (outputs,) = await self._batcher.run(request.request_id, [work])
        return await loop.run_in_executor(self._reading, self._written, asked, path.model, outputs)

    def cancel(self, request_id: str) -> None:
        if self._batcher:
            self._batcher.cancel(request_id)

    def healthy(self) -> bool:
        return self._batcher is None or not self._batcher.broken

    def close(self) -> None:
        self._reading.shutdown(wait=False, cancel_futures=True)
        if self._batcher:
            self._batcher.close()
        self._source.close()

    def _read(self, request: UnaryRequest) -> tuple[InferRequest, Work]:
        """Raises RequestError (400) that names what is wrong."""
        asked = read_infer(request)
        asked.refuse_parameters()
        given = {tensor.name: tensor for tensor in asked.inputs}
        _check_names(asked, self._signature)
        self._signature.check(
            {name: tensor.shape for name, tensor in given.items()},
            {name: tensor.datatype for name, tensor in given.items()},
        )
        tensors = [to_torch(given[spec.name]) for spec in self._signature.inputs]
        if not self._max_rows:
            return asked, Work(tensors)
        first, rows = self._signature.inputs[0].name, len(tensors[0])
        if rows > self._max_rows:
            raise RequestError(
                400,
                f"Input '{first}' has {rows} rows, and at most {self._max_rows} are computed at once "
                "(spec.engine.maxBatch). Send them in several requests.",
                param=f"inputs.{first}",
                code="invalid_value",
            )
        return asked, Work(tensors, rows=rows, key=tuple(tuple(tensor.shape[1:]) for tensor in tensors))

    def _written(self, asked: InferRequest, model: str, outputs: Sequence[Any]) -> UnaryAnswer:
        specs = self._signature.outputs
        named = [to_oip(spec.name, spec.datatype, tensor) for spec, tensor in zip(specs, outputs, strict=True)]
        return infer_answer(asked, model, named, NO_USAGE)


def archive_of(folder: Path) -> str:
    """Name of the one archive in the folder. Raises LoadError(FileMissing)."""
    found = sorted(path.name for path in folder.glob("*.pt2"))
    if len(found) != 1:
        raise LoadError(
            Reason.FILE_MISSING,
            f"{folder} has {len(found)} files that end in .pt2; task tensor serves the one of a folder of its own.",
        )
    return found[0]


def _check_names(asked: InferRequest, signature: Signature) -> None:
    known = [spec.name for spec in signature.inputs]
    for index, tensor in enumerate(asked.inputs):
        if tensor.name not in known:
            raise _name_error(f"inputs[{index}].name", f"is '{tensor.name}'", known)
    missing = set(known) - {tensor.name for tensor in asked.inputs}
    if missing:
        raise _name_error("inputs", f"lacks '{min(missing)}'", known)
    for index, output in enumerate(asked.outputs):
        if output.name not in (names := [spec.name for spec in signature.outputs]):
            raise _name_error(f"outputs[{index}].name", f"is '{output.name}'", names)


def _name_error(field: str, what: str, known: Sequence[str]) -> RequestError:
    return RequestError(
        400, f"'{field}' {what}; this model has: {', '.join(known)}.", param=field, code="invalid_value"
    )


class Runner:
    """Computes requests together, in one thread: each is the list of its inputs, its result the list of outputs."""

    def __init__(self, program: Program, device: str) -> None:
        self._program = program
        self._device = device

    def __call__(self, requests: Sequence[Sequence[Any]]) -> list[Any]:
        import torch

        with torch.inference_mode():
            joined = [side[0] if len(side) == 1 else torch.cat(side) for side in zip(*requests, strict=True)]
            outputs = [one.cpu() for one in self._program.run([tensor.to(self._device) for tensor in joined])]
            if len(requests) == 1:
                return [outputs]
            rows = [len(inputs[0]) for inputs in requests]
            parts = [output.split(rows) for output in outputs]
        return [list(part) for part in zip(*parts, strict=True)]

    def warm_up(self, rows: int) -> None:
        """One pass of the most rows. Raises LoadError when the program changes its own tensors."""
        before = _fingerprints(self._program.own)
        try:
            self([trial_inputs(self._program, rows, seed=0)])
        except Exception as error:  # what zeros and ones do to it says nothing of real inputs
            log.warning("the program could not be warmed up: %s: %s", type(error).__name__, error)
        if _fingerprints(self._program.own) != before:
            raise LoadError(
                Reason.UNSUPPORTED_ARCHITECTURE,
                "this program changes its own tensors when it runs, so that one request would change the answers of "
                "others. Export the model in eval mode: model.eval().",
            )


def _fingerprints(tensors: Sequence[Any]) -> list[int]:
    import torch

    return [
        zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()) for tensor in tensors
    ]


def rows_to_join(program: Program, run: Callable[[Sequence[Sequence[Any]]], list[Any]], max_batch: int) -> int:
    """Rows of a batch at most; 0 when requests must run one by one."""
    batch = program.signature.batch
    if batch is None:
        return 0
    low, high = program.signature.ranges.get(batch, (1, None))
    most = max_batch if high is None else min(max_batch, high)
    rows = max(1, low)
    if most < 2 * rows:
        return max(most, 1)
    try:
        return most if _rows_are_independent(program, run, rows) else 0
    except Exception as error:
        log.warning("requests are not joined: the trial of it failed: %s: %s", type(error).__name__, error)
        return 0


def _rows_are_independent(program: Program, run: Callable[[Sequence[Sequence[Any]]], list[Any]], rows: int) -> bool:

    pair = [trial_inputs(program, rows, seed=seed) for seed in (1, 2)]
    together, alone = run(pair), [run([inputs])[0] for inputs in pair]
    for outputs, expected in zip(together, alone, strict=True):
        for spec, found, wanted in zip(program.signature.outputs, outputs, expected, strict=True):
            if not _same(found.double(), wanted.double(), 2e-2 if spec.datatype in ("FP16", "BF16") else 1e-4):
                log.warning("requests are not joined: rows of output %s change each other", spec.name)
                return False
    return True


def _same(found: Any, wanted: Any, tolerance: float) -> bool:
    """Equal but for `tolerance` as a part of the largest value: an output may be small as a whole."""
    import torch

    sizes = wanted.abs()[wanted.isfinite()]
    scale = float(sizes.max()) if sizes.numel() else 0.0
    return bool(torch.allclose(found, wanted, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def trial_inputs(program: Program, rows: int, seed: int) -> list[Any]:
    """Floats from a normal distribution, integers and booleans 0 or 1, of the sizes of the export."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    sizes = _trial_sizes(program, rows)

    def made(spec: TensorSpec) -> Any:
        shape = [dim.value(sizes) for dim in spec.dims]
        if spec.datatype.startswith(("FP", "BF")):
            return torch.randn(shape, generator=generator).to(dtype_of(spec.datatype))
        return torch.randint(0, 2, shape, generator=generator).to(dtype_of(spec.datatype))

    return [made(spec) for spec in program.signature.inputs]


def _trial_sizes(program: Program, rows: int) -> Mapping[str, int]:
    signature = program.signature
    sizes: dict[str, int] = {}
    for symbol in {symbol for spec in signature.inputs for dim in spec.dims for symbol in dim.symbols}:
        low, high = signature.ranges.get(symbol, (1, None))
        wanted = program.hints.get(symbol, FREE_SIZE)
        sizes[symbol] = max(low, wanted if high is None else min(high, wanted))
    if signature.batch:
        sizes[signature.batch] = rows
    return sizes
