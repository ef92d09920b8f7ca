"""What is kept of a server's metrics."""

from cotenant_loadtests import observed
from cotenant_loadtests.prometheus_text import parse
from cotenant_loadtests.results import Sample

PAGE = parse(
    """# TYPE cotenant_engines gauge
cotenant_engines{model="search/left"} 2
cotenant_engines{model="other"} NaN
# TYPE cotenant_request_duration_seconds histogram
cotenant_request_duration_seconds_bucket{model="search/left",le="1"} 3
cotenant_request_duration_seconds_count{model="search/left"} 4
cotenant_request_duration_seconds_created{model="search/left"} 1700000000
python_info{version="3"} 1
"""
)


def test_without_names_what_is_known_is_kept():
    assert observed.values_of(PAGE, observed.KNOWN) == {'cotenant_engines{model="search/left"}': 2}


def test_names_and_beginnings_of_names_choose_but_buckets_only_by_their_full_name():
    assert observed.values_of(PAGE, ("python_info", "cotenant_request")) == {
        'cotenant_request_duration_seconds_count{model="search/left"}': 4,
        'python_info{version="3"}': 1,
    }
    assert observed.values_of(PAGE, ("cotenant_request_duration_seconds_bucket",)) == {
        'cotenant_request_duration_seconds_bucket{model="search/left",le="1"}': 3
    }


def test_the_table_has_the_engines_of_each_model():
    assert observed.engines_of(PAGE) == {"search/left": 2}


def test_a_gateway_without_models_has_an_empty_table_and_another_server_has_none():
    assert observed.engines_of(parse("# TYPE cotenant_engines gauge\n")) == {}
    assert observed.engines_of(parse("vllm:num_requests_running 1\n")) is None


def test_counters_get_a_rate_over_the_time_since_the_sample_before():
    samples = [
        Sample(at_s=0.0, values={"asked": 10, "level": 10}),
        Sample(at_s=2.0, values={"asked": 14, "level": 4, "late": 7}),
        Sample(at_s=3.0, values={"asked": 14, "level": 5, "late": 8}),
    ]
    assert [sample.values for sample in observed.with_rates(samples, {"asked", "late"})] == [
        {"asked": 10, "level": 10},
        {"asked": 14, "level": 4, "late": 7, "rate(asked)": 2.0},
        {"asked": 14, "level": 5, "late": 8, "rate(asked)": 0.0, "rate(late)": 1.0},
    ]


def test_a_counter_that_began_anew_has_no_rate():
    samples = [Sample(at_s=0.0, values={"asked": 10}), Sample(at_s=1.0, values={"asked": 3})]
    assert observed.with_rates(samples, {"asked"})[1].values == {"asked": 3}
