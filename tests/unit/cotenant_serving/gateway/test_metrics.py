"""What a scrape shows."""

from cotenant_serving.gateway.metrics import Metrics, Now


def test_what_is_read_at_the_scrape_stands_beside_what_was_counted():
    metrics = Metrics(resident_bytes=lambda: 9_000_000)
    metrics.allow(["search"], ["search/echo"])
    metrics.ended("search", "search/echo", "ok", 200, duration_s=0.5, prompt=3, completion=2)
    now = Now({"search/echo": (3, 2, 1)}, workers=4, restarts=5, usage_waiting=6, usage_dropped=7, usage_recovered=8)

    text = metrics.render(now).decode()

    for line in (
        'cotenant_requests_total{code="200",model="search/echo",outcome="ok",tenant="search"} 1.0',
        'cotenant_queue_depth{model="search/echo"} 3.0',
        'cotenant_requests_in_flight{model="search/echo"} 2.0',
        'cotenant_engines{model="search/echo"} 1.0',
        "cotenant_gateway_workers 4.0",
        "cotenant_gateway_resident_memory_bytes 9e+06",
        "cotenant_gateway_worker_restarts_total 5.0",
        "cotenant_usage_records_waiting 6.0",
        "cotenant_usage_records_dropped_total 7.0",
        "cotenant_usage_records_recovered_total 8.0",
    ):
        assert f"\n{line}\n" in text


def test_labels_name_only_what_is_configured_now():
    metrics = Metrics()
    metrics.allow(["search"], ["search/echo"])
    metrics.rejected("search", "queue_full")
    metrics.rejected("nobody", "queue_full")
    metrics.ended("search", "search/echo", "ok", 200, duration_s=1, prompt=2, completion=3)
    metrics.allow([], [])
    metrics.rejected("search", "queue_full")
    metrics.ended("search", "search/echo", "ok", 200, duration_s=1, prompt=4, completion=5)

    text = metrics.render(Now()).decode()

    assert 'cotenant_rejections_total{reason="queue_full",tenant="search"} 1.0' in text
    assert 'cotenant_rejections_total{reason="queue_full",tenant="other"} 2.0' in text
    assert 'cotenant_tokens_total{kind="prompt",model="search/echo",tenant="search"} 2.0' in text
    assert 'cotenant_tokens_total{kind="completion",model="other",tenant="other"} 5.0' in text


def test_a_time_stands_in_the_first_bucket_that_is_not_below_it():
    metrics = Metrics()
    metrics.allow([], ["search/echo"])
    for seconds in (0.0, 0.005, 0.006, 640, 641):
        metrics.first_byte("search/echo", seconds)

    text = metrics.render(Now()).decode()

    for line in (
        'bucket{le="0.005",model="search/echo"} 2.0',
        'bucket{le="0.01",model="search/echo"} 3.0',
        'bucket{le="320.0",model="search/echo"} 3.0',
        'bucket{le="640.0",model="search/echo"} 4.0',
        'bucket{le="+Inf",model="search/echo"} 5.0',
        'sum{model="search/echo"} 1281.011',
    ):
        assert f"cotenant_time_to_first_byte_seconds_{line}\n" in text


def test_the_first_byte_of_a_whole_answer_counts_at_its_end_and_that_of_a_stream_when_it_comes():
    metrics = Metrics()
    metrics.allow(["search"], ["search/echo"])
    metrics.first_byte("search/echo", 0.2)
    metrics.ended("search", "search/echo", "ok", 200, duration_s=3, prompt=0, completion=0)
    metrics.ended("search", "search/echo", "ok", 200, duration_s=2, prompt=0, completion=0, first_byte_s=0.3)

    text = metrics.render(Now()).decode()

    assert 'cotenant_time_to_first_byte_seconds_count{model="search/echo"} 2.0' in text
    assert 'cotenant_time_to_first_byte_seconds_sum{model="search/echo"} 0.5' in text
    assert 'cotenant_request_duration_seconds_sum{model="search/echo"} 5.0' in text
