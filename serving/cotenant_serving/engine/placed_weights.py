"""Weights files → a transformers model whose tensors lie where they stay. Transformers reads no weights itself.

It still does all else that its `from_pretrained` does: renames and merges tensors of older layouts, casts them to the
model's dtype, ties and initializes what no file has, and tells what is missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotenant_serving.engine.base import Progress

if TYPE_CHECKING:
    from cotenant_cache.client import OpenModel

BEGUN, ENDED = 0.4, 0.8
"""Of a load: the part in which weights are read."""


class _Placed:
    """What transformers takes for a tensor in a file that it has yet to read: `[...]`, then `.to(device, dtype)`.

    It is on its device already, so that only the dtype is heeded; and it is let go once it was asked for, so that a
    cast or a merge never holds all tensors twice.
    """

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __getitem__(self, index: Any) -> "_Placed":
        return self

    def to(self, device: Any = None, dtype: Any = None) -> Any:
        tensor, self._tensor = self._tensor, None
        return tensor.to(dtype=dtype)


def place_weights(
    model_class: Any, config: Any, opened: "OpenModel", device: str, progress: Progress, **options: Any
) -> tuple[Any, Mapping[str, Any]]:
    """(model on `device`, transformers' loading report). `options` go to `from_pretrained`. Raises CacheError."""
    folder = opened.folder
    state = _read(opened, device, progress)
    progress("building the model", ENDED)
    model, report = model_class.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True, **options
    )
    model.config.name_or_path = str(folder)
    _set_generation(model, folder)
    return model.to(device), report


def _read(opened: "OpenModel", device: str, progress: Progress) -> dict[str, _Placed]:
    """On the CPU, files of the cache are mapped: engines share their pages, and no memory has to be filled.

    Others are read into memory of our own: whoever writes to a folder must not change or end what serves.
    """
    from cotenant_cache.tensors import load_tensors

    def told(done: int, total: int, bytes_per_s: float) -> None:
        stage = f"reading weights: {done} of {total} bytes at {bytes_per_s / 1e9:.2f} GB/s"
        progress(stage, BEGUN + (ENDED - BEGUN) * done / max(1, total))

    # Files in folders below are layers of sentence-transformers, which come after the model.
    files = [opened.folder / file.name for file in opened.facts.files if "/" not in file.name]
    tensors = load_tensors(files, device, own=not opened.immutable, progress=told).tensors
    return {name: _Placed(tensors.pop(name)) for name in list(tensors)}


def _set_generation(model: Any, folder: Path) -> None:
    """From generation_config.json, or from what older models write into config.json, as transformers does."""
    if not model.can_generate():
        return
    from transformers import GenerationConfig

    try:
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        model.generation_config = GenerationConfig.from_pretrained(
            folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
        )
