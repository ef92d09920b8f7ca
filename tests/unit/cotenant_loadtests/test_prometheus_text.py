"""Prometheus' text format, read strictly."""

import math
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from cotenant_loadtests.prometheus_text import MetricSample, PrometheusTextError, parse

PAGE = """# HELP cotenant_engines Engines in the routing table.
# TYPE cotenant_engines gauge
cotenant_engines{model="search/left"} 2.0
cotenant_engines{model="search/right"} 0.0

# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{ model_name = "a\\"b\\\\c\\nd" , engine="0", } 1e3 1700000000000
# a comment of another kind
plain +Inf
"""


def test_names_labels_values_and_time_stamps_are_read():
    page = parse(PAGE)
    assert page.samples == (
        MetricSample("cotenant_engines", (("model", "search/left"),), 2.0),
        MetricSample("cotenant_engines", (("model", "search/right"),), 0.0),
        MetricSample("vllm:prompt_tokens_total", (("model_name", 'a"b\\c\nd'), ("engine", "0")), 1000.0),
        MetricSample("plain", (), math.inf),
    )
    assert page.types == {"cotenant_engines": "gauge", "vllm:prompt_tokens_total": "counter"}


def test_a_series_is_called_as_prometheus_writes_it():
    assert [sample.series for sample in parse(PAGE).samples][1:] == [
        'cotenant_engines{model="search/right"}',
        'vllm:prompt_tokens_total{model_name="a\\"b\\\\c\\nd",engine="0"}',
        "plain",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "name",
        "name ",
        "name1",
        "name{} ",
        "name one",
        "name 1_000",
        "name 1 2 3",
        "1name 1",
        "name{label=value} 1",
        'name{label="value" 1',
        'name{label="value"extra="x"} 1',
        'name{"label"="value"} 1',
        "<html><body>200 OK</body></html>",
        '{"error": "not found"}',
        'name 1 # {trace_id="x"} 0.5',
    ],
)
def test_a_line_that_is_no_sample_refuses_the_page_and_is_named_but_not_shown(line):
    with pytest.raises(PrometheusTextError) as refused:
        parse(f"good 1\n{line}\n")
    assert str(refused.value) == "line 2 is no sample of a metric"


def test_only_what_is_wanted_is_kept_and_the_rest_is_still_checked():
    assert [sample.name for sample in parse(PAGE, lambda name: name == "plain").samples] == ["plain"]
    with pytest.raises(PrometheusTextError):
        parse("unwanted what", lambda name: False)


def test_counters_and_what_histograms_count_go_only_up():
    registry = CollectorRegistry()
    Counter("asked", "x", registry=registry).inc()
    Gauge("size_count", "a gauge with a misleading name", registry=registry).set(1)
    Histogram("took_seconds", "x", registry=registry).observe(1)
    page = parse(generate_latest(registry).decode())
    assert {sample.name for sample in page.samples if page.counts(sample.name)} == {
        "asked_total",
        "took_seconds_bucket",
        "took_seconds_count",
        "took_seconds_sum",
    }


@given(some.lists(some.tuples(some.text(), some.floats(allow_nan=False)), unique_by=lambda pair: pair[0]))
def test_whatever_the_reference_writes_is_read_back(values):
    registry = CollectorRegistry()
    gauge = Gauge("anything", "x", ("label",), registry=registry)
    for label, value in values:
        gauge.labels(label).set(value)
    samples = parse(generate_latest(registry).decode()).samples
    assert [(sample.label("label"), sample.value) for sample in samples] == values


@pytest.mark.timeout(10)
def test_a_hostile_line_costs_time_in_proportion_to_its_length():
    for line in ("name{" + 'a="b"' * 200_000, "name{" + " " * 500_000, 'name{a="' + "\\" * 500_001, "a" * 1_000_000):
        with pytest.raises(PrometheusTextError):
            parse(line)


HOSTILE = {
    "spaces before a missing brace": "a{" + " " * 4_000 + "x",
    "spaces around a missing comma": 'a{b="1"' + " " * 4_000 + "x",
    "many labels and no end": "a{" + 'b="1" , ' * 4_000 + "x",
    "a text without an end": 'a{b="' + r"\"" * 4_000,
    "spaces after the value": "a 1" + " " * 4_000 + "x",
    "a long name alone": "a" * 60_000,
    "a type of nothing": "# TYPE " + "a " * 8_000,
}


@pytest.mark.parametrize("line", HOSTILE.values(), ids=HOSTILE)
def test_a_line_that_is_made_to_be_slow_is_refused_or_left_at_once(line: str) -> None:
    before_s = time.process_time()
    with suppress(PrometheusTextError):
        parse(f"{line}\n")
    assert time.process_time() - before_s < 2  # it takes a millisecond; with backtracking it was half a minute


def test_a_line_that_goes_on_and_on_is_refused() -> None:
    with pytest.raises(PrometheusTextError, match="line 2 is longer than 65536 characters"):
        parse("a 1\n# " + "x" * 65_536 + "\n")
