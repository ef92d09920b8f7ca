import csv
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.builders.load_records import answered, answered_whole, failed, never_sent, run_of

from cotenant_loadtests import exports
from cotenant_loadtests.run_output import RunOutput

OUTPUT = run_of(
    [
        answered(at_s=1.5, ttft_ms=20, gaps_ms=[10, 30], tail_ms=5, late_ms=0.25),
        answered_whole(at_s=2, took_ms=40, tenant='Käse, "blau"\n', api="completions"),
        failed("rate_limited", at_s=3, status=429, detail="rate_limit_exceeded"),
        never_sent("connect", at_s=4),
    ]
)


def csv_rows(path: Path, output: RunOutput = OUTPUT) -> list[dict[str, str]]:
    exports.write_requests(path / "requests.csv", output)
    with (path / "requests.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_has_a_row_for_each_request_with_units_in_its_columns(tmp_path: Path) -> None:
    row = csv_rows(tmp_path)[0]
    shown = (
        "id",
        "streamed",
        "outcome",
        "scheduled_s",
        "sent_ms",
        "ttft_ms",
        "tpot_ms",
        "e2e_ms",
        "completion_tokens",
    )
    assert [row[name] for name in shown] == ["0", "true", "ok", "1.5", "0.25", "20.0", "22.5", "65.0", "3"]


def test_what_a_request_does_not_have_is_empty_in_csv(tmp_path: Path) -> None:
    _, whole, refused, unsent = csv_rows(tmp_path)
    assert (whole["tenant"], whole["tpot_ms"], whole["retry_after_s"]) == ('Käse, "blau"\n', "", "")
    assert (refused["ttft_ms"], refused["end_ms"], refused["completion_tokens"]) == ("", "10.0", "")
    assert (unsent["sent_ms"], unsent["lateness_ms"]) == ("", "")


def test_parquet_has_the_same_columns_and_the_times_of_tokens(tmp_path: Path) -> None:
    exports.write_requests(tmp_path / "requests.parquet", OUTPUT)
    table = pq.read_table(tmp_path / "requests.parquet")
    assert table.column_names == [column.name for column in exports.COLUMNS]
    first, whole, refused, _ = table.to_pylist()
    assert first["token_times_ms"] == [20, 30, 60]
    assert (whole["token_times_ms"], whole["streamed"], whole["tpot_ms"]) == ([], False, None)
    assert (refused["status"], refused["detail"], refused["ttft_ms"]) == (429, "rate_limit_exceeded", None)
    for text, row in zip(csv_rows(tmp_path), table.to_pylist(), strict=True):
        assert text["scheduled_s"] == str(row["scheduled_s"])
        assert text["outcome"] == row["outcome"]


def test_rows_keep_their_order_over_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_ROWS_AT_ONCE", 3)
    many = run_of([answered(at_s=at, gaps_ms=[at] * (at % 3)) for at in range(10)])
    assert [row["id"] for row in csv_rows(tmp_path, many)] == [str(number) for number in range(10)]
    exports.write_requests(tmp_path / "requests.parquet", many)
    times = pq.read_table(tmp_path / "requests.parquet").column("token_times_ms").to_pylist()
    assert [len(some) for some in times] == [1 + at % 3 for at in range(10)]


@pytest.mark.parametrize("name", ["requests.csv", "requests.parquet"])
def test_a_run_without_requests_has_a_head_and_no_rows(tmp_path: Path, name: str) -> None:
    exports.write_requests(tmp_path / name, run_of([], duration_s=1))
    assert (tmp_path / name).stat().st_size > 0
    if name.endswith(".parquet"):
        assert pq.read_table(tmp_path / name).num_rows == 0


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        exports.write_requests(tmp_path / "requests.xlsx", OUTPUT)


def test_every_column_is_described() -> None:
    assert all(column.about.endswith(".") for column in exports.COLUMNS)
    assert len({column.name for column in exports.COLUMNS}) == len(exports.COLUMNS)
