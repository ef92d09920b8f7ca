"""Models for tests of the cache, made of bytes that a seed draws, and what a volume of theirs must look like."""

import hashlib
import json
import os
import random
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from cotenant_cache.contract import Usage
from tests.builders.operator import CONFIG

USAGE = Usage(
    path="/m",
    budget_bytes=1,
    used_bytes=0,
    reserved_bytes=0,
    partial_bytes=0,
    quarantined_bytes=0,
    disk_free_bytes=1,
    disk_total_bytes=1,
    models=1,
    blobs=1,
    instances=1,
)
"""Of a volume of which only its models matter."""


def weights(size_bytes: int, seed: int) -> bytes:
    """A safetensors file with one tensor of so many random bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + random.Random(seed).randbytes(size_bytes)


def model_files(size_bytes: int = 100_000, seed: int = 0, shards: int = 1) -> dict[str, bytes]:
    """A model in Hugging Face format, about so large."""
    files = {"config.json": json.dumps({**CONFIG, "seed": seed}).encode(), "tokenizer.json": b"{}"}
    if shards == 1:
        return {**files, "model.safetensors": weights(size_bytes, seed)}
    names = [f"model-{shard + 1:05}-of-{shards:05}.safetensors" for shard in range(shards)]
    index = {"metadata": {}, "weight_map": {f"w{shard}": name for shard, name in enumerate(names)}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    return files | {name: weights(size_bytes // shards, seed * 1000 + n) for n, name in enumerate(names)}


def put_by_hub_client(url: str, repo: str, root: Path) -> Path:
    """`snapshot_download` from a hub, as the tool does it: every file of the repository, whatever it is."""
    from huggingface_hub import close_session, snapshot_download

    try:
        return Path(snapshot_download(repo, cache_dir=root, endpoint=url, token=False))
    finally:
        close_session()


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """What an instance says of a folder with these files."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def wrong_files(root: Path) -> list[str]:
    """Files that a tool could open by a name in the layout, and that are not what the name of their blob says."""
    return [str(path) for path in _visible(root) if not _is_right(path)]


def named_files(root: Path) -> dict[Path, dict[str, str]]:
    """Folder of each snapshot → its names, and where they lead."""
    found: dict[Path, dict[str, str]] = {}
    for folder in root.glob("models--*/snapshots/*"):
        names = (path for path in folder.rglob("*") if path.is_symlink())
        found[folder] = {str(path.relative_to(folder)): os.readlink(path) for path in names}
    return found


def _visible(root: Path) -> Iterator[Path]:
    for path in root.glob("models--*/snapshots/*/**/*"):
        if not path.is_dir():
            yield path


def _is_right(path: Path) -> bool:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    digest = os.path.basename(os.readlink(path))
    made = hashlib.sha256(content) if len(digest) == 64 else hashlib.sha1(b"blob %d\0" % len(content) + content)
    return made.hexdigest() == digest


def volume_bytes(root: Path) -> int:
    """Of all model files on the volume, wherever they lie: visible, partial or in quarantine.

    At least, where others write meanwhile: a look takes time, in which a file may be renamed or make way for another.
    What two looks in a row have was there in between.
    """
    before, after = _sizes(root), _sizes(root)
    return sum(min(size, after[file]) for file, size in before.items() if file in after)


def _sizes(root: Path) -> dict[int, int]:
    """By inode: a file that is renamed stays one."""
    sizes: dict[int, int] = {}
    for folder, _, names in os.walk(root):
        if folder.endswith(("/.cotenant", "/holders", "/flights", "/refs")):
            continue
        for name in names:
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            if not stat.S_ISLNK(status.st_mode):
                sizes[status.st_ino] = status.st_size
    return sizes
