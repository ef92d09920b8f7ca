"""safetensors files → torch tensors: those of load_file, in one copy, and refused when files change meanwhile."""

import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.builders.operator import safetensors

from cotenant_cache.errors import CorruptWeightsError, FileMissingError, UnsupportedArchitectureError
from cotenant_cache.headers import _BITS
from cotenant_cache.tensors import _TORCH_NAMES, load_tensors, staged
from cotenant_cache.weight_files import WeightFile

pytestmark = pytest.mark.integration

MIB = 2**20
WAYS = [False, True]
"""`own`"""


def save(file: Path, tensors: Mapping[str, Any], *, cold: bool = False) -> Path:
    from safetensors.torch import save_file

    save_file(dict(tensors), file)
    if cold:
        forget(file)
    return file


def forget(file: Path) -> None:
    """Takes it out of the page cache."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def random_tensor(dtype: Any, shape: tuple[int, ...]) -> Any:
    """Random bits of any dtype but bool."""
    import torch

    size = torch.empty(shape, dtype=dtype).nbytes
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def same(found: Any, expected: Any) -> bool:
    """Bit for bit, so that NaN is NaN."""
    import torch

    alike = found.dtype == expected.dtype and found.shape == expected.shape
    return alike and torch.equal(found.contiguous().view(-1).view(torch.uint8), expected.view(-1).view(torch.uint8))


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("own", WAYS)
def test_tensors_of_every_dtype_and_shard_are_those_of_load_file(tmp_path: Path, own: bool, cold: bool) -> None:
    import torch
    from safetensors.torch import load_file

    torch.manual_seed(5)
    files = []
    for shard in range(3):
        names = sorted(_TORCH_NAMES)[shard::3]
        tensors = {f"{name}.{shard}": random_tensor(getattr(torch, _TORCH_NAMES[name]), (3, 5)) for name in names}
        tensors[f"large.{shard}"] = random_tensor(torch.bfloat16, (3 * MIB + shard, 3))
        tensors[f"empty.{shard}"] = torch.empty((0, 4))
        tensors[f"scalar.{shard}"] = torch.tensor(float(shard))
        files.append(save(tmp_path / f"{shard}.safetensors", tensors, cold=cold))
    expected = {name: tensor for file in files for name, tensor in load_file(file).items()}
    if cold:
        for file in files:
            forget(file)

    loaded = load_tensors(files, own=own)

    assert loaded.tensors.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not same(loaded.tensors[name], tensor)] == []
    assert loaded.report.size_bytes == sum(file.stat().st_size for file in files)
    assert loaded.report.way in ({"direct", "buffered"} if own else {"mapped"})


def test_every_dtype_of_whole_bytes_has_one_in_torch() -> None:
    assert _TORCH_NAMES.keys() == {name for name, bits in _BITS.items() if bits >= 8}


def test_tensors_that_begin_anywhere_can_be_computed_with(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save as saved

    whole = safetensors({"odd": ("U8", [3], 3), "weight": ("F32", [2, 2], 16)})
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    file = tmp_path / "m.safetensors"
    file.write_bytes(whole[:-16] + saved({"w": values})[-16:])

    for own in WAYS:
        found = load_tensors([file], own=own).tensors["weight"]
        assert found.data_ptr() % 4 == 0
        assert torch.equal(found @ found, values @ values)


def test_what_a_process_writes_to_its_tensors_stays_in_it(tmp_path: Path) -> None:
    import torch

    file = save(tmp_path / "m.safetensors", {"weight": torch.zeros(MIB)})
    for own in WAYS:
        load_tensors([file], own=own).tensors["weight"].fill_(1.0)
        assert not load_tensors([file]).tensors["weight"].any()


def test_own_tensors_do_not_change_with_their_file(tmp_path: Path) -> None:
    import torch

    file = save(tmp_path / "m.safetensors", {"weight": torch.zeros(3 * MIB)})
    tensors = load_tensors([file], own=True).tensors
    os.truncate(file, 100)

    assert not tensors["weight"].any()


def test_a_tensor_outlives_the_others_and_their_files(tmp_path: Path) -> None:
    import torch

    large = {str(number): torch.full((MIB,), float(number)) for number in range(4)}
    for own in WAYS:
        file = save(tmp_path / f"{own}.safetensors", large)
        kept = load_tensors([file], own=own).tensors["2"][5:]
        file.unlink()
        gc.collect()
        assert torch.equal(kept, large["2"][5:])


def cut_off(file: Path) -> None:
    os.truncate(file, 9 * MIB)


def lengthen(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def overwrite(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(-8, os.SEEK_END)
        stream.write(b"\x7f" * 8)


@pytest.mark.parametrize("own", WAYS)
@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("change", [cut_off, lengthen, overwrite])
def test_a_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, own: bool, cold: bool, change: Callable[[Path], None]
) -> None:
    import torch

    file = save(tmp_path / "m.safetensors", {"weight": torch.ones(6 * MIB)}, cold=cold)  # 3 blocks and a header
    os.utime(file, (1e9, 1e9))
    clock = itertools.count(0.0, 60.0)
    seen: list[int] = []

    def told(done: int, total: int, bytes_per_s: float) -> None:
        seen.append(done)
        if len(seen) == 1:
            change(file)

    with pytest.raises(CorruptWeightsError, match=f"{file}.*changed while it was read"):
        load_tensors([file], own=own, progress=told, threads=1, clock=lambda: next(clock))


def test_a_damaged_file_among_good_ones_is_named(tmp_path: Path) -> None:
    import torch

    good = save(tmp_path / "a.safetensors", {"a": torch.ones(4)})
    bad = save(tmp_path / "b.safetensors", {"b": torch.ones(4)})
    os.truncate(bad, bad.stat().st_size - 1)
    with pytest.raises(CorruptWeightsError, match=r"b\.safetensors: .*cut off"):
        load_tensors([good, bad])
    with pytest.raises(FileMissingError, match=r"none\.safetensors cannot be read: No such file"):
        load_tensors([good, tmp_path / "none.safetensors"])


def test_a_dtype_that_torch_lacks_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(safetensors({"weight": ("F4", [4, 8], 16)}))
    told: list[int] = []
    with pytest.raises(UnsupportedArchitectureError, match=r"m\.safetensors: tensor 'weight' has dtype F4"):
        load_tensors([file], progress=lambda done, total, rate: told.append(done))
    assert not told


@pytest.mark.parametrize("own", WAYS)
def test_progress_ends_with_all_bytes(tmp_path: Path, own: bool) -> None:
    import torch

    files = [save(tmp_path / f"{at}.safetensors", {str(at): torch.ones(3 * MIB)}) for at in range(2)]
    told: list[tuple[int, int]] = []
    load_tensors(files, own=own, progress=lambda done, total, rate: told.append((done, total)))
    total = sum(file.stat().st_size for file in files)

    assert told[-1] == (total, total)
    assert told == sorted(told)


@pytest.mark.parametrize("cold", [False, True])
def test_pinned_blocks_give_every_tensor_its_bytes(tmp_path: Path, cold: bool) -> None:
    """The way of other devices, whose last step is here a copy within memory."""
    import torch

    torch.manual_seed(6)
    shapes = [(5,), (3 * MIB + 7,), (0, 2), (), (2 * MIB, 3), (11,)]
    tensors = {str(at): random_tensor(torch.float16, shape) for at, shape in enumerate(shapes)}
    file = save(tmp_path / "m.safetensors", tensors, cold=cold)
    weight = WeightFile(file, direct=True)
    done: list[int] = []
    try:
        found = staged([weight], torch.device("cpu"), 3, done.append, torch)
    finally:
        weight.close()

    assert [name for name, tensor in tensors.items() if not same(found[name], tensor)] == []
    assert sum(done) == file.stat().st_size


PEAK = """
import sys
from pathlib import Path
import torch
from cotenant_cache.tensors import load_tensors

def kib(field):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(field + ":"))

load_tensors([Path(sys.argv[1])], own=True)  # what torch takes for its first tensor is no weight
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kib("VmRSS")
files = [Path(name) for name in sys.argv[2:]]
state = load_tensors(files, own=True).tensors
if CAST:
    for name in list(state):
        state[name] = state.pop(name).to(torch.bfloat16)
print((kib("VmHWM") - before) * 1024, (kib("VmRSS") - before) * 1024)
"""


def peak_of_load(tmp_path: Path, *, cast: bool) -> tuple[int, int, int]:
    """(bytes of the files, peak of the load, what is held after it): of a child process."""
    import torch

    first = save(tmp_path / "first.safetensors", {"one": torch.ones(3 * MIB)})
    large = {str(number): torch.rand(3 * MIB) for number in range(8)}
    files = [
        save(tmp_path / f"{at}.safetensors", {f"{at}.{name}": tensor for name, tensor in large.items()}, cold=True)
        for at in range(2)
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ran = subprocess.run(
        [sys.executable, "-c", PEAK.replace("CAST", str(cast)), str(first), *map(str, files)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    peak, held = map(int, ran.stdout.split())
    return sum(file.stat().st_size for file in files), peak, held


def test_a_load_holds_its_weights_once(tmp_path: Path) -> None:
    size, peak, _ = peak_of_load(tmp_path, cast=False)
    assert size <= peak < size + 24 * MIB


def test_tensors_that_are_cast_are_given_back_one_by_one(tmp_path: Path) -> None:
    size, peak, held = peak_of_load(tmp_path, cast=True)
    assert peak < size + 24 * MIB
    assert held < size / 2 + 24 * MIB
