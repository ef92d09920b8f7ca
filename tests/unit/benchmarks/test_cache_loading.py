"""What `benchmarks.cache_loading` makes of its measurements."""

import pytest
from benchmarks.cache_loading import Load, ratios, table

MEASURED = {
    ("cold", "load_file"): [Load(4.0, 1.0), Load(2.0, 1.0), Load(1.0, 9.0)],
    ("cold", "mapped"): [Load(1.0, 0.2)],
    ("cold", "own"): [Load(1.25, 0.5)],
    ("cold", "raw"): [Load(1.0, 0.1)],
    ("warm", "load_file"): [Load(0.1, 0.1)],
    ("warm", "mapped"): [Load(0.1, 0.1)],
    ("warm", "own"): [Load(1.0, 1.0)],
}


def test_ratios_are_of_medians() -> None:
    found = ratios(MEASURED)
    assert found["mapped_cold_cpu_of_load_file"] == pytest.approx(0.2)
    assert found["mapped_cold_rate_of_load_file"] == pytest.approx(2.0)
    assert found["mapped_warm_rate_of_load_file"] == pytest.approx(1.0)
    assert found["own_cold_rate_of_raw"] == pytest.approx(0.8)


def test_a_peer_that_is_not_installed_has_no_ratio() -> None:
    assert not [name for name in ratios(MEASURED) if "runai" in name]


def test_the_table_says_cpu_and_rate_of_each_gb() -> None:
    assert "| cold | mapped | 0.100 (0.100 to 0.100) | 2.000 (2.000 to 2.000) |" in table(MEASURED, 2 * 10**9)
