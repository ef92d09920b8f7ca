import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotenant_operator.quantity import as_quantity, parse_bytes, parse_seconds, show_bytes, show_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12Gi", 12 * 2**30),
        ("9856Mi", 9856 * 2**20),
        ("1.5G", 1_500_000_000),
        ("0.5Ki", 512),
        ("100k", 100_000),
        ("1073741824", 2**30),
        (42, 42),
        ("0", 0),
    ],
)
def test_quantities_become_bytes(text: str | int, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["12GB", "Gi", "-1Gi", "1e9", "", "1.Gi", "1 Gi", True, 1.5, None, [], "12gi", "9999999Ti"]
)
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10m", 600.0), ("1h30m", 5400.0), ("45s", 45.0), ("0s", 0.0), (0, 0.0), ("1.5s", 1.5), ("250ms", 0.25)],
)
def test_durations_become_seconds(text: str | int, expected: float) -> None:
    assert parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["10", 10, "ten", "10m5", "-5s", "", "5m1h", "1m1m", True, None, "1d"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        parse_seconds(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_a_printed_quantity_never_promises_less(count: int) -> None:
    assert 0 <= parse_bytes(as_quantity(count)) - count < 2**20


@given(st.integers(min_value=1, max_value=10**6))
def test_a_printed_duration_is_read_back(seconds: int) -> None:
    assert parse_seconds(show_seconds(seconds)) == seconds


def test_bytes_are_shown_in_binary_units() -> None:
    assert [show_bytes(size) for size in (0, 512 * 2**20, 3435973836, 2**41)] == [
        "0 bytes",
        "512 MiB",
        "3.2 GiB",
        "2 TiB",
    ]
