"""Plans as files."""

import json
from pathlib import Path
from typing import Any

import pytest

from cotenant_loadtests.plan_file import PlanError, plan_lines, plan_sha256, read_plan, write_plan
from cotenant_loadtests.planned import Message, Planned, Segment
from cotenant_loadtests.spec import Scenario

SCENARIO = Scenario.model_validate(
    {
        "name": "small",
        "streams": [
            {"name": "s", "tenant": "t", "model": "m", "arrivals": {"process": "constant", "rate_per_s": 1}},
        ],
    }
)


def request(place: int, **fields: Any) -> Planned:
    given: dict[str, Any] = {
        "id": place,
        "at_s": place / 8,
        "stream": "s",
        "tenant": "t",
        "model": "m",
        "api": "chat",
        "messages": (Message("user", (Segment(1, 2),)),),
    }
    return Planned(**given | fields)


PLAN = [
    request(0, body={"seed": 1}),
    request(1, messages=(Message("user", text="Grüße \u2028"),), max_tokens=3, streamed=True),
    request(2, at_s=None, after=1, think_s=0.25, deadline_s=1.5),
]


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "plan.jsonl"
    write_plan(path, SCENARIO, PLAN)
    header, plan = read_plan(path)
    assert plan == PLAN
    assert (header.scenario, header.seed, header.requests, header.duration_s) == ("small", 1, 3, 60.0)


def test_a_plan_is_for_its_owner_only_since_prompts_stand_in_it(tmp_path: Path) -> None:
    new, old = tmp_path / "new.jsonl", tmp_path / "old.jsonl"
    old.touch(mode=0o644)
    for path in (new, old):
        write_plan(path, SCENARIO, PLAN)
        assert path.stat().st_mode & 0o777 == 0o600
    write_plan(Path("/dev/null"), SCENARIO, PLAN)


def test_a_plan_has_one_line_of_json_for_each_request(tmp_path: Path) -> None:
    lines = list(plan_lines(SCENARIO, PLAN))
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") for line in lines)
    assert lines[1] == (
        b'{"id":0,"at_s":0.0,"stream":"s","tenant":"t","model":"m","api":"chat",'
        b'"messages":[{"role":"user","segments":[{"seed":1,"tokens":2}]}],"body":{"seed":1}}\n'
    )


def test_plans_that_differ_have_another_checksum() -> None:
    assert plan_sha256(PLAN) == plan_sha256(list(PLAN))
    assert plan_sha256(PLAN) != plan_sha256([*PLAN[:2], request(2, at_s=None, after=1, think_s=0.5)])


@pytest.mark.parametrize(
    ("line", "old", "new", "message"),
    [
        (0, b"plan/v1", b"plan/v9", ":1: schema is 'cotenant.dev/loadtest-plan/v9'; this version reads"),
        (0, b'"requests":3', b'"requests":4', ": has 3 requests, its first line says 4; is it whole?"),
        (1, b'"id":0', b'"id":5', ":2: id is 5, but its place is 0"),
        (1, b'"at_s":0.0,', b"", ":2: needs exactly one of at_s and after"),
        (2, b'"at_s"', b'"after":0,"at_s"', ":3: needs exactly one of at_s and after"),
        (3, b'"after":1', b'"after":2', ":4: after is 2; it must be a request above"),
        (
            0,
            b'"duration_s":60.0',
            b'"duration_s":0.125',
            ":3: at_s is 0.125, but its first line says that the plan la",
        ),
        (3, b"{", b"[", ":4: is no line of a plan: "),
        (0, b'"seed":', b'"seed":"x","s":', ":1: is no line of a plan: seed must be int, and is str"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_with_its_line(
    tmp_path: Path, line: int, old: bytes, new: bytes, message: str
) -> None:
    lines = list(plan_lines(SCENARIO, PLAN))
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new, 1)
    path = tmp_path / "plan.jsonl"
    path.write_bytes(b"".join(lines))
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}{message}")


TENSOR = {"name": "x", "datatype": "FP32", "shape": [2], "seed": 1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at_s": -5}, "`float` >= 0.0 - at `$.at_s`"),
        ({"at_s": 1e12}, "`float` <= 1000000000.0 - at `$.at_s`"),
        ({"deadline_s": -1}, "`float` > 0.0 - at `$.deadline_s`"),
        ({"id": 2**70}, "`$.id`"),
        ({"max_tokens": 0}, "`int` >= 1 - at `$.max_tokens`"),
        ({"messages": [{"role": "user", "segments": [{"seed": -1, "tokens": 1}]}]}, "`int` >= 0"),
        ({"messages": [{"role": "user", "segments": [{"seed": 2**70, "tokens": 1}]}]}, ".seed`"),
        ({"messages": [{"role": "user", "segments": [{"seed": 1, "tokens": -3}]}]}, "`int` >= 0"),
        ({"messages": [{"role": "user", "segments": [{"seed": 1, "tokens": 10**12}]}]}, "`int` <= 10000000"),
        ({"messages": []}, "messages: 0; chat needs one or more"),
        ({"api": "completions", "messages": []}, "messages: 0; completions needs one"),
        ({"api": "oip"}, "tensors are missing; oip needs one or more"),
        ({"api": "oip", "tensors": [TENSOR | {"datatype": "FP16"}]}, "Invalid enum value 'FP16'"),
        ({"api": "oip", "tensors": [TENSOR | {"shape": [-1]}]}, "`int` >= 1"),
        ({"api": "oip", "tensors": [TENSOR | {"shape": [1000, 1001]}]}, "one has more than 1000000 values"),
        ({"tenant": "*"}, "tenant: '*' names all of them in results; give another name"),
        ({"tenant": "a/b"}, "tenant: 'a/b' must not have a '/'"),
        ({"model": "*"}, "model: '*' names all of them in results; give another name"),
        ({"body": {"model": "other", "stream": False}}, "body.model is written by the harness itself"),
        ({"retries": 3}, "contains unknown field `retries`"),
        ({"body": {"deep": "DEEP"}}, "maximum recursion depth exceeded"),
    ],
)
def test_a_request_that_cannot_be_sent_as_it_says_is_refused_with_its_line(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    header, line, *_ = plan_lines(SCENARIO, PLAN)
    text = json.dumps(json.loads(line) | fields).replace('"DEEP"', "[" * 100_000 + "]" * 100_000)
    path = tmp_path / "plan.jsonl"
    path.write_bytes(header.replace(b'"requests":3', b'"requests":1') + text.encode() + b"\n")
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
