"""Relations between fields of a scenario, which its schema cannot see."""

from typing import Any

import pytest
from tests.builders.scenarios import scenario, stream

from cotenant_loadtests.bodies import reserved_fields
from cotenant_loadtests.rules import findings

TRACE = {"process": "trace", "file": "t.csv", "format": "csv"}
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1]}
TENSORS: dict[str, Any] = {"api": "oip", "prompt": None, "output": None, "inputs": [TENSOR]}
EMBEDDINGS: dict[str, Any] = {"api": "embeddings", "output": None}


def found(*streams: dict[str, Any], **fields: Any) -> list[str]:
    return [f"{field}: {message}" for field, message in findings(scenario(*streams, **fields))]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"api": "completions", "streamed": False},
        {"output": None},
        {"output": None, "api": "completions", "prompt": {"file": "p.jsonl"}},
        EMBEDDINGS,
        EMBEDDINGS | {"prompt": {"tokens": 5, "inputs": 8, "shared_prefix": {"tokens": 3}}},
        TENSORS,
        TENSORS | {"body": {"id": "x", "model": "not reserved here"}},
        {"arrivals": TRACE, "prompt": {"tokens": "trace"}, "output": {"tokens": "trace"}},
        {"arrivals": TRACE, "conversation": {"turns": 100, "think_s": 0}},
        {"prompt": {"file": "p.txt", "shared_prefix": {"tokens": 3}}},
        {"tenant": "team-{1..3}", "model": ["org/Model 7B", "m"]},
        {"to_s": 99.0},
        {"arrivals": {"process": "steps", "rates_per_s": [1, 2], "step_s": 5}},
        {"cancel_after_tokens": 3, "check": "echo", "body": {"temperature": 0.5, "stop": ["x"]}},
    ],
    ids=str,
)
def test_a_stream_that_makes_sense_is_left_alone(fields: dict[str, Any]) -> None:
    assert found(stream("a", **fields)) == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        # when
        ({"from_s": 5, "to_s": 5}, "from_s: 5 is not before the stream's end at 5 s"),
        ({"from_s": 10}, "from_s: 10 is not before the stream's end at 10 s, so it would send nothing"),
        (
            {"arrivals": {"process": "steps", "rates_per_s": [1, 2, 3], "step_s": 5}, "from_s": 2},
            "arrivals.step_s: 3 steps of 5 s are 15 s, but the stream has 8 s",
        ),
        (
            {"arrivals": TRACE | {"format": "azure", "columns": {"time_s": "T"}}},
            "arrivals.columns: is for format csv",
        ),
        (
            {"arrivals": {"process": "on_off", "rate_per_s": 1, "on_s": 1, "off_s": 0.001}},
            "arrivals: on_s and off_s must be at least 0.01 s",
        ),
        # who
        ({"tenant": "a/b"}, "tenant: 'a/b' must not have a '/', because results are named tenant/model"),
        ({"tenant": ["*"]}, "tenant: '*' names all of them in results; give another name"),
        ({"model": ["m", "*"]}, "model: '*' names all of them in results; give another name"),
        ({"tenant": ["a", "a"]}, "tenant: 'a' stands there 2 times"),
        ({"model": ""}, "model: '' must be 1 to 256 printable characters"),
        ({"model": "m\n"}, "model: 'm\\n' must be 1 to 256 printable characters"),
        ({"model": "m-{1..}"}, "model: 'm-{1..}' has a brace that is no range"),
        # what each API takes
        ({"prompt": None}, "prompt: is missing; chat needs it: {tokens: 100}"),
        (
            {"output": None, "conversation": {"turns": 2, "think_s": 1}},
            "output: is missing; a conversation needs it, because answers stand in later turns",
        ),
        (EMBEDDINGS | {"prompt": None}, "prompt: is missing; embeddings need it"),
        (EMBEDDINGS | {"output": {"tokens": 1}}, "output: is not for embeddings; remove it"),
        ({"api": "completions", "conversation": {"turns": 2, "think_s": 1}}, "conversation: is for chat only"),
        ({"inputs": [TENSOR]}, "inputs: are tensors of oip; this stream is chat"),
        ({"prompt": {"tokens": 1, "inputs": 2}}, "prompt.inputs: is for embeddings only; this stream is chat"),
        (TENSORS | {"inputs": []}, "inputs: are missing; oip needs tensors"),
        (TENSORS | {"prompt": {"tokens": 1}}, "prompt: is not for oip, which takes inputs; remove it"),
        (TENSORS | {"inputs": [TENSOR, TENSOR]}, "inputs.1.name: 'x' stands there twice"),
        (
            TENSORS | {"inputs": [TENSOR | {"shape": [1001, 1000]}]},
            "inputs.0.shape: has 1001000 values; at most",
        ),
        # prompts
        ({"prompt": {}}, "prompt: needs exactly one of tokens and file"),
        ({"prompt": {"tokens": 1, "file": "p.txt"}}, "prompt: needs exactly one of tokens and file"),
        (
            {"api": "completions", "prompt": {"file": "p.txt", "shared_prefix": {"tokens": 3}}},
            "prompt.shared_prefix: goes with a file in chat only",
        ),
        # amounts
        (
            {"prompt": {"tokens": "trace"}},
            "prompt.tokens: trace is for prompt and output where arrivals are",
        ),
        (
            {"arrivals": TRACE, "output": {"tokens": "trace"}, "conversation": {"turns": 2, "think_s": 1}},
            "output.tokens: trace is for prompt and output where arrivals are",
        ),
        (
            {"arrivals": TRACE, "prompt": {"tokens": 1, "shared_prefix": {"tokens": "trace"}}},
            "prompt.shared_prefix.tokens: t",
        ),
        ({"arrivals": TRACE, "conversation": {"turns": "trace", "think_s": 1}}, "conversation.turns: trace is for"),
        (
            {"output": {"tokens": {"distribution": "uniform", "min": 5, "max": 4}}},
            "output.tokens.min: 5 is above",
        ),
        (
            {"output": {"tokens": {"distribution": "uniform", "min": 0.2, "max": 0.8}}},
            "output.tokens: there is no",
        ),
        (
            {"output": {"tokens": {"distribution": "lognormal", "median": 5, "sigma": 1, "min": 9, "max": 8}}},
            "output.tokens.min: 9 is above max, 8",
        ),
        (
            {"conversation": {"turns": 101, "think_s": 1}},
            "conversation.turns: may be up to 101; give it a max",
        ),
        (
            {"conversation": {"turns": {"distribution": "exponential", "mean": 3}, "think_s": 1}},
            "conversation.turns: may be up to 1e+06; give it a max of at most 100",
        ),
        ({"prompt": {"tokens": 1_000_001}}, "prompt.tokens: may be up to 1e+06; give it a max of at most 1000000"),
        (EMBEDDINGS | {"prompt": {"tokens": 1, "inputs": 2049}}, "prompt.inputs: 2049 is more than 2048"),
        (
            {"prompt": {"tokens": 1, "shared_prefix": {"tokens": 1, "groups": 100_001}}},
            "prompt.shared_prefix.groups: 100001 is more than 100000",
        ),
        # answers
        ({"cancel_after_tokens": 3, "streamed": False}, "cancel_after_tokens: needs a streamed answer"),
        (EMBEDDINGS | {"cancel_after_tokens": 3}, "cancel_after_tokens: needs a streamed answer"),
        (
            EMBEDDINGS | {"check": "echo"},
            "check: echo is for chat and completions; this",
        ),
        # body
        *(
            ({"body": {field: 1}}, f"body.{field}: is written by the harness itself")
            for field in reserved_fields("chat")
        ),
        (TENSORS | {"body": {"inputs": []}}, "body.inputs: is written by the harness itself"),
        ({"body": {"bias": {"x": [float("nan")]}}}, "body: has a number that JSON does not know: nan or infinity"),
    ],
    ids=str,
)
def test_a_stream_that_makes_no_sense_is_told_why(fields: dict[str, Any], problem: str) -> None:
    problems = found(stream("a", **fields))
    assert any(line.startswith(f"streams.0.{problem}") for line in problems), problems


def test_streams_have_names_of_their_own() -> None:
    assert found(stream("a"), stream("b"), stream("a")) == ["streams.2.name: 'a' is also that of streams.0"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"warmup_s": 6, "cooldown_s": 4}, "warmup_s: with cooldown_s it is 10 s of a run of 10 s (duration_s)"),
        ({"processes": 65}, "processes: 65 is more than 64"),
        ({"tenants": {"serach": {}}}, "tenants.serach: no stream sends for this tenant; did you mean 'search'?"),
        ({"tenants": {"search": {"key": {}}}}, "tenants.search.key: needs exactly one"),
        (
            {"tenants": {"search": {"key": {"env": "A", "file": "b"}}}},
            "tenants.search.key: needs exactly one",
        ),
        ({"slo": {"ttft_p98_ms": 3}}, "slo.ttft_p98_ms: there is no such figure"),
        ({"slo": {"ttft_p99_ms": {"ads": 3}}}, "slo.ttft_p99_ms.ads: no stream sends such requests"),
    ],
)
def test_what_the_run_as_a_whole_says_must_fit_too(fields: dict[str, Any], problem: str) -> None:
    problems = found(**fields)
    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "https://llm.example.com",
        "http://[::1]:80/",
        "http://host:1/gateway",
        "http://h.internal.",
    ],
)
def test_an_address_of_a_server_is_a_target(url: str) -> None:
    assert found(target={"url": url}) == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("127.0.0.1:8080", "is no http or https URL with a host"),
        ("ftp://host", "is no http or https URL with a host"),
        ("http://", "is no http or https URL with a host"),
        ("http://ho st", "is no http or https URL with a host"),
        ("http://host:0", "is no http or https URL with a host"),
        ("http://host\r\nx-evil: 1", "is no http or https URL with a host"),
        ("http://host:99999", "is no http or https URL"),
        ("http://[::1", "is no http or https URL"),
        ("http://name:sk-secret@host", "holds a name or password; keys belong to tenants"),
        ("http://host/?key=sk-secret", "has a query or fragment"),
        ("http://host/v1/", "ends with the version that the APIs' own paths begin with"),
    ],
)
def test_another_target_is_refused_without_showing_it(url: str, reason: str) -> None:
    problems = found(target={"url": url})
    assert len(problems) == 1
    assert problems[0].startswith(f"target.url: {reason}")
    assert "sk-secret" not in problems[0]


def test_metrics_may_have_a_path_but_neither_query_nor_password_since_results_show_them() -> None:
    assert found(observe={"metrics_url": "http://host/stats/prometheus"}) == []
    assert found(observe={"metrics_url": "http://host/metrics?token=sk-secret"}) == [
        "observe.metrics_url: has a query or fragment; only scheme, host, port and path are used"
    ]
    assert found(observe={"metrics_url": "http://a:b@host/metrics"})[0].startswith(
        "observe.metrics_url: holds a name"
    )


def test_a_run_longer_than_its_limit_is_refused_before_it_is_planned() -> None:
    assert found(duration_s=14_401) == ["duration_s: is 14401 s, more than limits.duration_s, 14400 s"]
    assert found(duration_s=14_401, limits={"duration_s": 14_401}) == []
