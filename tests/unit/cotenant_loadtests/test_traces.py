"""Traces and files of prompts."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotenant_loadtests.prompts import Prompt, read_prompts
from cotenant_loadtests.reading import ScenarioError
from cotenant_loadtests.seeded import Source
from cotenant_loadtests.spec_values import Trace
from cotenant_loadtests.traces import TraceRow, read_trace, trace_arrivals

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
EXCERPT = "azure-llm-2023-conv-excerpt.csv"
DEEP = b"[" * 100_000 + b"]" * 100_000


def read(tmp_path: Path, text: str, form: str = "azure", **columns: str) -> list[TraceRow]:
    path = tmp_path / "trace"
    path.write_text(text)
    return read_trace(path, form, columns)


def problem(tmp_path: Path, text: str, form: str = "azure", **columns: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        read(tmp_path, text, form, **columns)
    return str(caught.value).removeprefix(str(tmp_path / "trace"))


def test_an_azure_trace_has_times_from_its_first_request(tmp_path: Path) -> None:
    text = "2023-11-16 18:15:46.6805900,374,44\r\n2023-11-16 18:16:46.7000000,10,0\r\n"
    assert read(tmp_path, AZURE + text) == [TraceRow(0.0, 374, 44), TraceRow(pytest.approx(60.01941), 10, 0)]


def test_the_azure_trace_of_2024_has_times_with_a_zone(tmp_path: Path) -> None:
    text = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.017335+00:00,2399,6\n"
    assert [row.at_s for row in read(tmp_path, AZURE + text)] == [0.0, pytest.approx(0.007405)]


def test_rows_are_put_in_order_of_time(tmp_path: Path) -> None:
    rows = read(tmp_path, "time_s,prompt_tokens,output_tokens\n7,1,1\n5.5,2,2\n\n", "csv")
    assert rows == [TraceRow(0.0, 2, 2), TraceRow(1.5, 1, 1)]


def test_a_csv_may_call_its_columns_otherwise_and_have_more(tmp_path: Path) -> None:
    text = '\ufeffuser,when,in,output_tokens\n"a,b",1,3,4\n'
    assert read(tmp_path, text, "csv", time_s="when", prompt_tokens="in") == [TraceRow(0.0, 3, 4)]


def test_a_mooncake_trace_has_the_blocks_that_its_prompts_fill(tmp_path: Path) -> None:
    text = (
        '{"timestamp": 1500, "input_length": 1024, "output_length": 9, "hash_ids": [1, 2, 3]}\n'
        '{"timestamp": 2000, "input_length": 1025, "output_length": 9, "hash_ids": [1, 2, 3], "more": 1}\n'
    )
    assert read(tmp_path, text, "mooncake") == [TraceRow(0.0, 1024, 9, (1, 2)), TraceRow(0.5, 1025, 9, (1, 2, 3))]


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        ("azure", AZURE, ": has no requests"),
        ("azure", "", ":1: is empty; it begins with a line of the columns' names"),
        (
            "azure",
            "Timestamp,ContextTokens,GeneratedTokens\n",
            ":1: has no column 'TIMESTAMP'; allowed: Timestamp",
        ),
        ("csv", "time,prompt_tokens,output_tokens\n", ":1: has no column 'time_s'; did you mean 'time'?"),
        (
            "azure",
            AZURE + "yesterday,1,1\n",
            ":2: TIMESTAMP: 'yesterday' is no time like 2023-11-16 18:15",
        ),
        ("azure", AZURE + "2023-11-16 18:15:46,1\n", ":2: GeneratedTokens: '' is no whole number from 0 to 10000000"),
        ("azure", AZURE + "2023-11-16 18:15:46,-1,2\n", ":2: ContextTokens: '-1' is no whole number"),
        ("azure", AZURE + "2023-11-16 18:15:46,1,99999999\n", ":2: GeneratedTokens: '99999999' is no whole number"),
        ("azure", AZURE + "2023-11-16 18:15:46,²,1\n", ":2: ContextTokens: '²' is no whole number"),
        ("csv", "time_s,prompt_tokens,output_tokens\n1,1,1\nnan,1,1\n", ":3: time_s: 'nan' is no number of seconds"),
        (
            "csv",
            "time_s,prompt_tokens,output_tokens\n1e305,1,1\n",
            ":2: time_s: '1e305' is no number of seconds up to",
        ),
        (
            "mooncake",
            '{"timestamp": 1e306, "input_length": 1, "output_length": 1}',
            ":1: timestamp: 1e+306 is no numb",
        ),
        ("mooncake", '{"timestamp": 1, "x": ' + DEEP.decode() + "}", ":1: is no line of a Mooncake trace: "),
        ("csv", 'time_s,prompt_tokens,output_tokens\n1,"1,1\n', ":2: is not CSV: unexpected end of data"),
        ("mooncake", "{}\n", ":1: is no line of a Mooncake trace: Object missing required field `timestamp`"),
        ("mooncake", "\n\nno json\n", ":3: is no line of a Mooncake trace: JSON is malformed"),
        ("mooncake", '{"timestamp": 1, "input_length": -5, "output_length": 1}', ":1: input_length: -5 is no whole"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_line_and_value(
    tmp_path: Path, form: str, text: str, reason: str
) -> None:
    assert problem(tmp_path, text, form).startswith(reason)


def test_a_file_that_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match=r"t\.csv: is not text in UTF-8"):
        read_trace(tmp_path / "t.csv", "azure", {})
    with pytest.raises(ScenarioError, match="there is no such file, and none of that name comes with cotenant"):
        arrivals(tmp_path, file="absent.csv")


# Replays


def arrivals(folder: Path, from_s: float = 0.0, to_s: float = 60.0, seed: int = 1, **fields: Any) -> list[TraceRow]:
    given: dict[str, Any] = {"process": "trace", "file": EXCERPT, "format": "azure"}
    return trace_arrivals(Trace.model_validate(given | fields), folder, Source(seed), from_s, to_s)


def test_the_excerpt_that_comes_with_cotenant_is_found_from_anywhere(tmp_path: Path) -> None:
    rows = arrivals(tmp_path, to_s=1000)
    assert len(rows) == 1000
    assert rows[0] == TraceRow(0.0, 1139, 435)
    assert rows[-1].at_s == pytest.approx(190.948365)


def test_a_trace_beside_the_scenario_comes_first(tmp_path: Path) -> None:
    (tmp_path / EXCERPT).write_text(AZURE + "2023-11-16 18:15:46,7,8\n")
    assert arrivals(tmp_path) == [TraceRow(0.0, 7, 8)]


def test_speed_and_skip_move_the_times_and_the_streams_time_cuts_them(tmp_path: Path) -> None:
    plain = {row.at_s: row for row in arrivals(tmp_path, to_s=1000)}
    fast = arrivals(tmp_path, from_s=10, to_s=20, speed=4, skip_s=30)
    assert all(10 <= row.at_s < 20 for row in fast)
    expected = [row for at_s, row in plain.items() if 30 <= at_s < 70]
    assert [row[1:] for row in fast] == [row[1:] for row in expected]
    assert [row.at_s for row in fast] == [pytest.approx(10 + (row.at_s - 30) / 4) for row in expected]


@given(st.integers(0, 2**63 - 1), st.floats(0.05, 1), st.floats(0, 100))
@settings(max_examples=20)
def test_a_share_keeps_the_same_requests_whatever_is_skipped(seed: int, share: float, skip_s: float) -> None:
    nowhere = Path("/nonexistent")
    kept = arrivals(nowhere, to_s=1000, seed=seed, share=share)
    assert len(kept) == pytest.approx(1000 * share, abs=6 * (1000 * share * (1 - share)) ** 0.5 + 1)
    later = arrivals(nowhere, to_s=1000, seed=seed, share=share, skip_s=skip_s)
    assert [row[1:] for row in later] == [row[1:] for row in kept if row.at_s >= skip_s]


def test_a_part_of_a_trace_without_requests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="has no request from 5000 to 5060 s that is kept; see skip_s and share"):
        arrivals(tmp_path, skip_s=5000)


# Prompts


def test_a_file_of_text_has_a_prompt_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("one two\r\n\n {x: 1} \u2028 ü\n".encode())
    assert read_prompts(tmp_path / "p.txt") == [Prompt("one two"), Prompt(" {x: 1} \u2028 ü")]


def test_lines_of_json_may_say_how_long_answers_are(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a\\nb", "source": "x"}\n{"output_tokens": 3, "prompt": "c"}\n')
    assert read_prompts(tmp_path / "p.jsonl") == [Prompt("a\nb"), Prompt("c", 3)]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("p.txt", b"\n  \n", ": has no prompts; write one on each line"),
        ("p.txt", b"\xff", ": is not text in UTF-8"),
        ("p.jsonl", b'{"prompt": "a"}\nb\n', ":2: is no JSON object with prompt and perhaps output_tokens: "),
        (
            "p.jsonl",
            b'{"prompt": 3}\n',
            ":1: is no JSON object with prompt and perhaps output_tokens: Expected",
        ),
        ("p.jsonl", b'{"prompt": "\\ud800"}\n', ":1: is no JSON object with prompt and perhaps output_tokens: "),
        (
            "p.jsonl",
            b'{"prompt": "a", "output_tokens": 0}\n',
            ":1: prompt must not be empty, and output_tokens",
        ),
        (
            "p.jsonl",
            b'{"prompt": "a", "output_tokens": 1000000000000000000}\n',
            ":1: prompt must not be empty, and output_tokens must be from 1 to 10000000",
        ),
        ("p.jsonl", b'{"prompt": "a", "x": ' + DEEP + b"}\n", ":1: is no JSON object with prompt and perhaps"),
    ],
)
def test_what_is_no_file_of_prompts_is_refused_with_its_line(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ScenarioError) as caught:
        read_prompts(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}{reason}")
