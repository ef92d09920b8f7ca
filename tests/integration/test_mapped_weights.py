"""What a load keeps in memory of files that are mapped."""

from pathlib import Path

import pytest

from cotenant_serving.engine.mapped_weights import own_weights

pytestmark = pytest.mark.integration

MIB = 2**20


def mapped_bytes() -> int:
    """Memory of this process that is mapped from files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssFile"))) * 1024


def test_a_load_holds_its_weights_once(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = tmp_path / "weights.safetensors"
    save_file({str(number): torch.full((4 * MIB,), float(number)) for number in range(4)}, file)  # 16 MiB each
    mapped = load_file(file)
    model = torch.nn.ParameterDict(
        {name: torch.nn.Parameter(tensor, requires_grad=False) for name, tensor in mapped.items()}
    )
    before = mapped_bytes()
    own_weights(model)
    grown = mapped_bytes() - before  # the mapping still lives: `mapped` holds it

    assert all(model[name].data_ptr() != tensor.data_ptr() for name, tensor in mapped.items())
    assert all(torch.equal(model[name], tensor) for name, tensor in mapped.items())
    assert grown < 16 * MIB


def test_memory_of_its_own_is_copied_as_it_is() -> None:
    import torch

    model = torch.nn.Linear(2048, 2048)
    expected, other = model.weight.detach().clone(), model.weight.data
    own_weights(model)

    assert torch.equal(model.weight, expected)
    assert torch.equal(other, expected)
