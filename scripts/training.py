"""What the two training programs of the demo's models have in common: options, repeatability, the last line."""

import argparse
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar


def options(about: str, steps_per_minute: int) -> argparse.Namespace:
    """`out`, `minutes`, `seed`. `about`: the program's docstring."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help=f"length of the training, at {steps_per_minute} steps a minute"
    )
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def begin(seed: int, threads: int) -> None:
    """The same seed and number of threads give the same weights on the same kind of machine."""
    disable_progress_bar()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)


def print_size(model: PreTrainedModel, folder: Path) -> None:
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"saved {sum(p.numel() for p in model.parameters()):,} parameters to {folder}, {size / 1e6:.2f} MB in all")
