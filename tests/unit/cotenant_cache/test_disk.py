"""Files of the volume that are written outside a transaction, while another instance sweeps."""

from pathlib import Path

import pytest

from cotenant_cache.disk import Volume


@pytest.mark.parametrize(("sweeps", "kept"), [(2, True), (3, False)])
def test_what_another_instance_swept_away_is_written_once_more(tmp_path: Path, sweeps: int, kept: bool) -> None:
    left = sweeps

    def sweep(step: str) -> None:
        nonlocal left
        if step == "budget.make:after" and left:
            left -= 1
            Volume(tmp_path).sweep()

    volume = Volume(tmp_path, sweep)
    if kept:
        volume.set_budget(7)
        assert Volume(tmp_path).budget() == 7
    else:  # somebody does nothing but sweep
        with pytest.raises(FileNotFoundError):
            volume.set_budget(7)
