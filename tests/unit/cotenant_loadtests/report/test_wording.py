"""How numbers are written."""

import math

import pytest

from cotenant_loadtests.report import wording


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (math.nan, "–"), (math.inf, "–"), (0, "0"), (-0.0, "0"), (0.01234, "0.0123"), (1.0, "1"),
        (12.34, "12.3"), (312.4, "312"), (1234.5, "1,234"), (-4.5, "−4.5"), (1e-12, "1.0e−12"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_that_count(value: float | None, text: str):
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "100 %"), (0.0, "0 %"), (0.9996, "99.96 %"), (0.99999999, "> 99.999 %"), (0.5, "50.0 %"), (1.3, "130.0 %"),
     (1e-9, "< 0.001 %"), (0.0004, "0.04 %"), (None, "–")],
)  # fmt: skip
def test_no_share_is_rounded_to_all_or_nothing(ratio: float | None, text: str):
    assert wording.percent(ratio) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (2.5, "2.5 s"), (75.0, "1 min 15 s"), (3600.0, "1 h"), (7384.4, "2 h 3 min 4 s")],
)
def test_durations_are_in_words(seconds: float, text: str):
    assert wording.duration(seconds) == text


def test_the_name_of_an_slo_tells_its_unit():
    assert wording.slo_value("ttft_p99_ms", 812.0) == "812 ms"
    assert wording.slo_value("success_rate", 0.984) == "98.4 %"
    assert wording.slo_value("goodput_per_s", 12.0) == "12 /s"
    assert wording.slo_value("jain", 0.91) == "0.91"
    assert wording.slo_value("jain", None) == "nothing measured"


def test_sizes_and_axes_use_few_digits():
    assert wording.size(74_000_000) == "74 MB"
    assert wording.size(12) == "12 B"
    assert wording.size(3e15) == "3,000 TB"
    assert wording.compact(410_000_000) == "410M"
    assert wording.compact(250_000) == "250k"
    assert wording.compact(9_999) == "9,999"
