"""Whatever stands in a scenario: it is read, or refused with sentences; never anything else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders.scenarios import stream

from cotenant_loadtests.reading import ScenarioError, read_scenario
from cotenant_loadtests.workload import make_plan

LOGNORMAL = {"distribution": "lognormal", "median": 30, "sigma": 1, "min": 2, "max": 90}
FULL: dict[str, Any] = {
    "name": "full",
    "about": "everything",
    "seed": 3,
    "duration_s": 2,
    "warmup_s": 0.5,
    "cooldown_s": 0.5,
    "drain_s": 5,
    "processes": 1,
    "target": {"url": "http://127.0.0.1:8080/x", "ca_file": "ca.pem", "verify_tls": False},
    "tenants": {"search": {"key": {"env": "KEY"}}},
    "streams": [
        stream("a", arrivals={"process": "gamma", "rate_per_s": 3, "burstiness": 0.5}, streamed=False, body={"n": 1}),
        stream("b", arrivals={"process": "steps", "rates_per_s": [1, 2], "step_s": 1, "stop_below": 0.5}),
        stream(
            "c",
            tenant={"names": ["x-{1..3}"], "zipf": 1},
            conversation={"turns": {"distribution": "uniform", "min": 1, "max": 3}, "think_s": 0.5},
            prompt={"tokens": 5, "shared_prefix": {"tokens": 9, "groups": 2}},
            from_s=0.5,
            to_s=1.5,
        ),
        stream(
            "d",
            api="oip",
            prompt=None,
            output=None,
            inputs=[{"name": "x", "datatype": "FP32", "shape": [2, 2]}],
            deadline_s=3,
        ),
        stream("f", arrivals={"process": "on_off", "rate_per_s": 3, "on_s": 1, "off_s": 0.5, "off_rate_per_s": 1}),
        stream("g", arrivals={"process": "ramp", "from_per_s": 0, "to_per_s": 4}, prompt={"tokens": LOGNORMAL}),
        stream("e", api="embeddings", output=None, prompt={"tokens": 3, "inputs": 2}),
    ],
    "goodput": {"ttft_ms": 300, "e2e_ms": 900},
    "slo": {"success_rate": 0.9, "ttft_p99_ms": {"search": 500, "search/m": 700}},
    "limits": {"requests": 100, "rate_per_s": 100, "bytes": 100_000},
    "observe": {"metrics_url": "http://127.0.0.1:9090/metrics", "metrics": ["cotenant_"], "table": True},
}
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(
        [0, 1, -1, 0.5, 1e-300, 1e308, "", "trace", "a", "x-{1..9}", "x-{9..1}", "{", "*", "echo", "oip", "chat"]
    ),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*place, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*place, index))


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[place[0]] = changed(value[place[0]], place[1:], new)
    return copy


def problems(path: Path, *overrides: str) -> list[str]:
    """None where a plan is made. Nothing but ScenarioError may be raised."""
    try:
        make_plan(read_scenario(path, overrides), path.parent)
    except ScenarioError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "s.yaml"


def test_the_whole_scenario_makes_sense(path: Path) -> None:
    path.write_text(json.dumps(FULL))
    assert make_plan(read_scenario(path), path.parent)


@given(st.sampled_from(list(places(FULL))), VALUES)
@settings(max_examples=60)
def test_any_value_in_any_field_is_taken_or_refused(path: Path, place: tuple[Any, ...], new: Any) -> None:
    path.write_text(
        json.dumps(changed(FULL, place, new))
    )  # JSON is YAML, but for nan and infinity, which are text then
    for line in problems(path):
        assert line.startswith((f"{path}:", "full: ", str(path.parent)))


@given(st.text(max_size=60) | st.text(alphabet="{}[]:-,&*!|>'\"#%@` \n\ta1.~<", max_size=60))
@settings(max_examples=60)
def test_any_text_is_refused(path: Path, text: str) -> None:
    path.write_bytes(text.encode(errors="replace"))
    with pytest.raises(ScenarioError):
        read_scenario(path)


TAGS = ("bool", "int", "float", "null", "str", "seq", "map", "set", "omap", "pairs", "binary", "timestamp", "merge")


@given(
    st.sampled_from(TAGS),
    st.sampled_from(
        [
            "",
            "''",
            "foo",
            "0x",
            "0b",
            "1:99",
            "-",
            ".",
            "1e999",
            "0x" + "f" * 6000,
            "[]",
            "{}",
            "{a: 1}",
            "2026-99-99",
            "~",
        ]
    ),
    st.sampled_from(["about", "duration_s", "streams", "slo", "seed", "<<"]),
)
@settings(max_examples=100)
def test_any_tag_is_taken_or_refused(path: Path, tag: str, value: str, field: str) -> None:
    fields = {name: given for name, given in FULL.items() if name != field}
    path.write_text(f"{field}: !!{tag} {value}\n" + yaml.safe_dump(fields))
    problems(path)


@given(st.text(max_size=30) | st.text(alphabet="streams.0.a=chat{}[]'\"~\n", max_size=30))
@settings(max_examples=30)
def test_any_override_is_taken_or_refused(path: Path, override: str) -> None:
    path.write_text(json.dumps(FULL))
    assert all(line.startswith("--set") for line in problems(path, override))
