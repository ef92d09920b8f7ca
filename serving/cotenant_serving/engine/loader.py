"""Source → local folder → checked → model and tokenizer, for all tasks that transformers serves."""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotenant_serving.contract import EngineArgs, Reason, Task
from cotenant_serving.engine.base import LoadError, Progress
from cotenant_serving.engine.load_errors import load_errors
from cotenant_serving.engine.model_source import ModelSource
from cotenant_serving.engine.placed_weights import BEGUN, place_weights
from cotenant_serving.engine.weights_meter import begin_reading, read_since

if TYPE_CHECKING:
    from cotenant_cache.client import OpenModel


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device, in eval mode, with its tokenizer. `folder` is where its files are."""

    model: Any
    tokenizer: Any
    dtype_bytes: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Kind:
    """How a task's models are loaded. `model_class(transformers, config)` is None where there is none."""

    model_class: Callable[[Any, Any], Any]
    loads_as: str
    serves: str


def load(args: EngineArgs, source: ModelSource, progress: Progress) -> Loaded:
    """Blocks. The source stays open. Raises LoadError, whatever happens."""
    opened = source.open(progress)
    with load_errors(args):
        progress("importing torch and transformers", 0.15)
        return _load_checked(args, opened, progress)


def prepare_torch(args: EngineArgs) -> Any:
    """Imports torch and keeps it to this engine's device and share. Raises LoadError(NoCudaDevice)."""
    if args.spec.device == "cpu":
        # Read when torch loads OpenMP. Its threads else wait for each other by spinning, which takes the cores from
        # neighbours and from the very thread that is waited for: four times the CPU time a token on busy cores.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import torch

    _claim_cuda(args, torch)
    if args.spec.device == "cpu":
        # Ray gives a worker with less than one CPU a single thread; engines share the cores as they come.
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    return torch


def _load_checked(args: EngineArgs, opened: "OpenModel", progress: Progress) -> Loaded:
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing here may reach for the hub
    torch = prepare_torch(args)
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what weights lack is refused below, and too much of them is normal
    kind = _KINDS[args.spec.task]
    folder = opened.folder
    config, model_class = _model_config(transformers, kind, folder, opened.facts.architecture)
    progress("reading tokenizer", 0.3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    size_bytes = sum(file.size_bytes for file in opened.facts.files)
    progress(f"reading {size_bytes} bytes of weights", BEGUN)
    began = begin_reading()
    dtype = _dtype(config, args.spec.device, torch)
    model, report = place_weights(
        model_class,
        config,
        opened,
        args.spec.device,
        progress,
        dtype=dtype,
        attn_implementation="sdpa",
        **_without_pooler(model_class),
    )
    _refuse_missing_weights(folder, report)
    model = model.eval()
    progress("preparing", 0.85, read=read_since(began, size_bytes))
    return Loaded(model, tokenizer, dtype.itemsize, folder)


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


def _model_config(transformers: Any, kind: Kind, folder: Path, architecture: str) -> tuple[Any, Any]:
    """(transformers' configuration, class of the model). Raises LoadError(UnsupportedArchitecture)."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model_class = kind.model_class(transformers, config)
    except (ValueError, KeyError) as error:
        raise _unsupported(kind, folder, architecture) from error
    if model_class is None or not _made_for(transformers, architecture, config):
        raise _unsupported(kind, folder, architecture)
    if getattr(type(config), "extra_files", ()):  # weights files beside the usual ones, which nobody has checked
        raise _unsupported(kind, folder, architecture)
    if model_class.config_class is config.sub_configs.get("text_config"):
        config = config.get_text_config()
    # transformers refuses what it cannot load of this field, and reads what it can; only the checked files are read.
    config.transformers_weights = None
    return config, model_class


def _made_for(transformers: Any, architecture: str, config: Any) -> bool:
    """Whether config.json's architecture is one of transformers' own, and one of this configuration."""
    named = getattr(transformers, architecture, None)
    return getattr(named, "config_class", None) is type(config)


def _named_by_the_files(mapping: str) -> Callable[[Any, Any], Any]:
    """The class of the mapping that config.json itself names as its architecture."""

    def find(transformers: Any, config: Any) -> Any:
        known = getattr(transformers, mapping)[type(config)]
        classes = known if isinstance(known, list | tuple) else (known,)
        return next((cls for cls in classes if cls.__name__ in (config.architectures or ())[:1]), None)

    return find


def _text_stack(transformers: Any, config: Any) -> Any:
    """The model below any head; only of encoders and decoders, not of what has both."""
    known = transformers.MODEL_MAPPING[type(config)]
    return None if getattr(config, "is_encoder_decoder", False) or isinstance(known, list | tuple) else known


_CLASSIFIER = Kind(
    _named_by_the_files("MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"),
    "a sequence classifier",
    "sequence classifiers such as BertForSequenceClassification or Qwen3ForSequenceClassification",
)
_KINDS: Mapping[Task, Kind] = {
    "generate": Kind(
        _named_by_the_files("MODEL_FOR_CAUSAL_LM_MAPPING"),
        "a causal language model",
        "decoder models such as LlamaForCausalLM or Qwen3ForCausalLM",
    ),
    "embed": Kind(
        _text_stack,
        "one stack over text",
        "encoders and decoders such as BertModel, XLMRobertaModel or Qwen3ForCausalLM",
    ),
    "rerank": _CLASSIFIER,
    "classify": _CLASSIFIER,
}


def _unsupported(kind: Kind, folder: Path, architecture: str) -> LoadError:
    return LoadError(
        Reason.UNSUPPORTED_ARCHITECTURE,
        f"{folder / 'config.json'} names {architecture}, which transformers cannot load as {kind.loads_as}. "
        f"This task serves {kind.serves}. Correct spec.task, or use another model.",
    )


def _without_pooler(model_class: Any) -> dict[str, bool]:
    """BERT's own pooling layer is of no use here, and often not in the files."""
    takes = inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


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
