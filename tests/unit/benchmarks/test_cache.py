"""The figures of `make bench-cache`: which side is divided by which."""

import pytest
from benchmarks.cache import Run, environment, ratios, table

FOUND = {
    "cache": [Run(2.0, 1.0), Run(2.0, 1.2), Run(9.0, 1.4)],
    "snapshot_download": [Run(4.0, 3.0), Run(5.0, 2.4), Run(3.0, 2.0)],
}


def test_a_rate_above_1_is_faster_and_a_cpu_below_1_cheaper() -> None:
    assert ratios(FOUND) == {
        "download_rate_of_snapshot_download": pytest.approx(2.0),
        "download_cpu_of_snapshot_download": pytest.approx(0.5),
    }


def test_the_table_is_per_gigabyte() -> None:
    assert "| cache | 0.60 | 1.00 |" in table(FOUND, 2.0)


def test_what_the_shell_says_about_hubs_does_not_reach_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "of-somebody")
    of_a_hub = {name: value for name, value in environment("http://127.0.0.1:1").items() if name.startswith("HF_")}
    assert of_a_hub.pop("HF_ENDPOINT") == "http://127.0.0.1:1"
    assert set(of_a_hub.values()) == {"1"}
    assert "HF_HUB_OFFLINE" not in of_a_hub
