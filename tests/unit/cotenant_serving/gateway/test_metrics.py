"""What a scrape shows."""

from cotenant_serving.gateway.metrics import Metrics, Now


def test_what_is_read_at_the_scrape_stands_beside_what_was_counted():
    metrics = Metrics(resident_bytes=lambda: 9_000_000)
    metrics.allow(["search"], ["search/echo"])
    metrics.ended("search", "search/echo", outcome="ok", status=200, duration_s=0.5)
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
    metrics.allow([], [])
    metrics.rejected("search", "queue_full")

    text = metrics.render(Now()).decode()

    assert 'cotenant_rejections_total{reason="queue_full",tenant="search"} 1.0' in text
    assert 'cotenant_rejections_total{reason="queue_full",tenant="other"} 2.0' in text
