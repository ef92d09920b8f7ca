"""Source → local folder → checked → model and tokenizer. Every failure becomes a LoadError with its Reason."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotenant_serving.contract import EngineArgs, Reason
from cotenant_serving.engine.base import LoadError, Progress
from cotenant_serving.engine.model_files import check_tokenizer

if TYPE_CHECKING:
    from cotenant_cache.client import OpenModel


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device, in eval mode, with its tokenizer."""

    model: Any
    tokenizer: Any
    eos_ids: frozenset[int]
    dtype_bytes: int


def load(args: EngineArgs, progress: Progress) -> Loaded:
    """Blocks. Raises LoadError, whatever happens."""
    with load_errors(args):
        opened = open_source(args, progress)
        progress("importing torch and transformers", 0.15)
        return _load_checked(args, opened, progress)


def open_source(args: EngineArgs, progress: Progress) -> "OpenModel":
    """The checked model of `args.spec.source`, fetched when it is not on this machine yet.

    Raises CacheError, or LoadError(FileMissing) for want of a tokenizer.
    """
    from cotenant_cache.client import open_checked

    def fetched(done: int, total: int) -> None:
        progress(f"fetching {done} of {total} bytes", 0.1 * done / max(1, total))

    progress("checking files", 0.0)
    opened = open_checked(args.spec.source, args.cache_dir, fetched)
    check_tokenizer(opened.folder)
    return opened


def _load_checked(args: EngineArgs, opened: "OpenModel", progress: Progress) -> Loaded:
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing here may reach for the hub
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    _claim_cuda(args, torch)
    if args.spec.device == "cpu":
        # Ray gives a worker with less than one CPU a single thread; engines share the cores as they come.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    folder = opened.folder
    model_config = _model_config(folder, opened.facts.architecture)
    progress("reading tokenizer", 0.3)
    local = {"local_files_only": True, "trust_remote_code": False}
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    progress(f"reading {sum(file.size_bytes for file in opened.facts.files)} bytes of weights", 0.4)
    dtype = _dtype(model_config, args.spec.device, torch)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder,
        config=model_config,
        dtype=dtype,
        attn_implementation="sdpa",
        use_safetensors=True,
        output_loading_info=True,
        **local,
    )
    _refuse_missing_weights(folder, report)
    progress(f"moving weights to {args.spec.device}", 0.8)
    model = model.to(args.spec.device).eval()
    if args.spec.device == "cpu":
        _own_weights(model)
    return Loaded(model, tokenizer, _eos_ids(model), dtype.itemsize)


def _claim_cuda(args: EngineArgs, torch: Any) -> None:
    if args.spec.device != "cuda":
        return
    if not torch.cuda.is_available():
        built = torch.version.cuda or "none: this torch was built for the CPU"
        raise LoadError(
            Reason.NO_CUDA_DEVICE,
            f"torch {torch.__version__} finds no CUDA device (CUDA of the build: {built}; CUDA_VISIBLE_DEVICES="
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', '')!r}). Use workers with a GPU, or `device: cpu`.",
        )
    # Of the whole card, of which the pool may offer a part only.
    total_bytes = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, args.share_bytes / total_bytes))


def _model_config(folder: Path, architecture: str) -> Any:
    """transformers' configuration. Raises LoadError(UnsupportedArchitecture)."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    try:
        model_config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        known = MODEL_FOR_CAUSAL_LM_MAPPING[type(model_config)]
    except (ValueError, KeyError) as error:
        raise _unsupported(folder, architecture) from error
    classes = known if isinstance(known, list | tuple) else (known,)
    if architecture not in {cls.__name__ for cls in classes}:
        raise _unsupported(folder, architecture)
    # transformers would load the file that this field names, whatever it is; only the checked ones may be read.
    model_config.transformers_weights = None
    return model_config


def _unsupported(folder: Path, architecture: str) -> LoadError:
    return LoadError(
        Reason.UNSUPPORTED_ARCHITECTURE,
        f"{folder / 'config.json'} names {architecture}, which transformers cannot load as a causal language model. "
        "Task generate serves decoder models such as LlamaForCausalLM or Qwen3ForCausalLM.",
    )


def _dtype(model_config: Any, device: str, torch: Any) -> Any:
    fallback = torch.float32 if device == "cpu" else torch.bfloat16
    return getattr(model_config, "dtype", None) or fallback


def _refuse_missing_weights(folder: Path, report: Mapping[str, Any]) -> None:
    # transformers fills tensors that the files lack with random numbers and only warns.
    missing = sorted(report.get("missing_keys") or ())
    if missing:
        raise LoadError(
            Reason.CORRUPT_WEIGHTS,
            f"the weights in {folder} lack {len(missing)} tensors that config.json asks for, the first is "
            f"{missing[0]}. Fetch the model again, or correct config.json.",
        )


def _own_weights(model: Any) -> None:
    """Copies what is mapped from the files: somebody who writes to them must not change or end what serves."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _eos_ids(model: Any) -> frozenset[int]:
    for config in (model.generation_config, model.config.get_text_config()):
        value = getattr(config, "eos_token_id", None)
        if value is not None:
            return frozenset([value] if isinstance(value, int) else value)
    return frozenset()


@contextmanager
def load_errors(args: EngineArgs) -> Iterator[None]:
    """Turns any exception into a LoadError."""
    try:
        yield
    except LoadError:
        raise
    except Exception as error:
        raise explain(error, args) from error


def explain(error: Exception, args: EngineArgs) -> LoadError:
    """The LoadError for any other exception. Pure, but for looking at torch's exception class."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and reason in set(Reason):  # the weight cache's errors carry one
        return LoadError(Reason(reason), getattr(error, "message", str(error)))
    if is_out_of_memory(error):
        return LoadError(
            Reason.MEMORY_EXCEEDED,
            f"{args.spec.model} does not fit its share of {args.share_bytes} bytes (KV cache: {args.kv_cache_bytes}) "
            f"while it loads: {_last_line(error)}. Give it more memory (spec.gpu.memory).",
        )
    return LoadError(
        Reason.LOAD_FAILED,
        f"{args.spec.model} from {args.spec.source or 'no source'}: {type(error).__name__}: {_last_line(error)}. "
        "The engine's log has the whole traceback.",
    )


def is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    oom = getattr(torch, "OutOfMemoryError", None)
    if isinstance(error, MemoryError) or (oom is not None and isinstance(error, oom)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].rstrip(".") if lines else "no message"
