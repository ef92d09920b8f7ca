from pathlib import Path

import pytest

from cotenant_loadtests.record import Record, encode_times
from cotenant_loadtests.records_file import RecordsWriter, iterate_records, read_records

RECORDS = [
    Record(id=number, process=1, outcome="ok", scheduled_us=number * 1000, token_times=encode_times(range(number)))
    for number in range(50)
]


def write(path: Path, records: list[Record]) -> None:
    writer = RecordsWriter(path)
    for record in records:
        writer.write(record)
    writer.close()


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path / "records", RECORDS)
    assert list(iterate_records(tmp_path / "records")) == RECORDS
    assert read_records(tmp_path / "records")[0] == RECORDS


def test_a_run_that_goes_on_is_read_piece_by_piece(tmp_path: Path) -> None:
    writer = RecordsWriter(tmp_path / "records")
    assert read_records(tmp_path / "records") == ([], 0)
    writer.write(RECORDS[0])
    writer.flush()
    first, offset = read_records(tmp_path / "records")
    writer.write(RECORDS[1])
    writer.close()
    second, _ = read_records(tmp_path / "records", offset)
    assert (first, second, writer.count) == ([RECORDS[0]], [RECORDS[1]], 2)


@pytest.mark.parametrize("missing", [1, 3, 7])
def test_a_record_cut_by_a_kill_is_left_out(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "records"
    write(path, RECORDS)
    path.write_bytes(path.read_bytes()[:-missing])
    assert list(iterate_records(path)) == RECORDS[:-1]
