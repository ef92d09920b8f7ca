"""`python -m benchmarks.cache_loading`: what it costs to get a model's weights from disk into tensors.

All ways load the same shards, in turn, each time several times in a process of its own (`peers/load_once.py`, which
says what counts as loaded), from a cold page cache and from a warm one. `mapped` and `own` are the two ways of the
cache; engines on the CPU map what the cache has, and read folders of others into memory of their own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import finish, machine, markdown, median

ROOT = Path(__file__).parents[1]
LOAD_ONCE = ROOT / "benchmarks" / "peers" / "load_once.py"
RUNAI = ROOT / ".peers" / "runai-model-streamer" / "bin" / "python"
SHARDS = 3
TENSOR_BYTES = 32 * 2**20
TIMES = 6
"""Loads of one process, of which the cheapest and the fastest count."""
CACHES: Mapping[str, tuple[str, ...]] = {
    "cold": ("load_file", "runai", "raw", "mapped", "own"),
    "warm": ("load_file", "runai", "mapped", "own"),
}
"""Ways by state of the page cache; a direct read does not look at it."""


@dataclass(frozen=True)
class Load:
    """One load: seconds of the clock and of all CPUs."""

    wall_s: float
    cpu_s: float


Measured = Mapping[tuple[str, str], Sequence[Load]]
"""By (state of the page cache, way); one of each round."""


def make_shards(folder: Path, size_bytes: int) -> list[Path]:
    """Random bytes: what is all zero may be stored as nothing. Written to the disk when this returns."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(8)
    files = []
    for shard in range(SHARDS):
        left, tensors = size_bytes // SHARDS, {}
        while left > 0:
            raw = torch.randint(0, 2**15, (min(left, TENSOR_BYTES) // 2,), dtype=torch.int16)
            tensors[f"layers.{shard}.{len(tensors)}.weight"] = raw.view(torch.bfloat16)
            left -= TENSOR_BYTES
        files.append(folder / f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors")
        save_file(tensors, files[-1])
        descriptor = os.open(files[-1], os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return files


def measure(files: Sequence[Path], rounds: int) -> Measured:
    """Raises RuntimeError when two ways did not load the same bytes."""
    found: dict[tuple[str, str], list[Load]] = {}
    sums: set[tuple[int, int]] = set()
    for at in range(rounds):
        for cache, ways in CACHES.items():
            present = [way for way in ways if way != "runai" or RUNAI.exists()]
            for way in [*present[at % len(present) :], *present[: at % len(present)]]:
                load, checked = load_once(way, cache, files)
                found.setdefault((cache, way), []).append(load)
                if way != "raw":
                    sums.add(checked)
    if len(sums) != 1:
        raise RuntimeError(f"the ways did not load the same: (checksum, tensors) are {sorted(sums)}")
    return found


def load_once(way: str, cache: str, files: Sequence[Path]) -> tuple[Load, tuple[int, int]]:
    """The files must be on disk."""
    python = str(RUNAI) if way == "runai" else sys.executable
    command = [python, str(LOAD_ONCE), way, cache, str(TIMES), *map(str, files)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} ended with {done.returncode} from a {cache} page cache; what it wrote is above")
    said = json.loads(done.stdout.splitlines()[-1])
    return Load(said["wall_s"], said["cpu_s"]), (said["checksum"], said["tensors"])


def ratios(measured: Measured) -> dict[str, float]:
    """Pure. Medians against medians; `cpu` below 1 is cheaper, `rate` above 1 is faster."""

    def wall(cache: str, way: str) -> float:
        return median(load.wall_s for load in measured[cache, way])

    def cpu(cache: str, way: str) -> float:
        return max(1e-6, median(load.cpu_s for load in measured[cache, way]))

    found: dict[str, float] = {}
    for way in ("mapped", "own"):
        for cache in CACHES:
            found[f"{way}_{cache}_cpu_of_load_file"] = cpu(cache, way) / cpu(cache, "load_file")
            found[f"{way}_{cache}_rate_of_load_file"] = wall(cache, "load_file") / wall(cache, way)
            if (cache, "runai") in measured:
                found[f"{way}_{cache}_cpu_of_runai"] = cpu(cache, way) / cpu(cache, "runai")
                found[f"{way}_{cache}_rate_of_runai"] = wall(cache, "runai") / wall(cache, way)
        found[f"{way}_cold_rate_of_raw"] = wall("cold", "raw") / wall("cold", way)
    return found


def table(measured: Measured, size_bytes: int) -> str:
    """Medians, and the least and most of all rounds."""
    gb = size_bytes / 1e9
    rows = []
    for (cache, way), loads in sorted(measured.items()):
        cpu, rate = [load.cpu_s / gb for load in loads], [gb / load.wall_s for load in loads]
        rows.append((cache, way, *(f"{median(of):.3f} ({min(of):.3f} to {max(of):.3f})" for of in (cpu, rate))))
    return markdown(("page cache", "way", "CPU s/GB", "GB/s"), rows)


def options(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--gb", type=float, default=3.0, help="of the model, in 10^9 bytes (3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to measure; else that of TMPDIR")
    return parser


def main() -> None:
    args = options(__doc__).parse_args()
    print(f"{machine()}\n", flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        files = make_shards(Path(folder), int(args.gb * 1e9))
        measured = measure(files, args.rounds)
        print(table(measured, sum(file.stat().st_size for file in files)) + "\n")
    finish(ratios(measured))


if __name__ == "__main__":
    main()
