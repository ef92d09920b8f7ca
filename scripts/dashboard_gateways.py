"""Dashboard of gateways: what tenants ask for, and what they feel."""

from dashboard_panels import RATE, Dashboard, Panel

_MINE = 'tenant=~"$tenant", model=~"$model"'
_BAD = f'{_MINE}, outcome!~"ok|refused|client_closed"'

GATEWAY = Dashboard(
    "cotenant / Gateways",
    (
        (
            "Requests",
            (
                Panel(
                    "Requests by tenant",
                    "Admitted requests that ended.",
                    ((f"sum by (tenant) (rate(cotenant_requests_total{{{_MINE}}}{RATE}))", "{{tenant}}"),),
                    "reqps",
                ),
                Panel(
                    "Requests by outcome",
                    "`ok` and `refused` (an engine's 4xx) are answers; `client_closed` left by itself.",
                    ((f"sum by (outcome) (rate(cotenant_requests_total{{{_MINE}}}{RATE}))", "{{outcome}}"),),
                    "reqps",
                ),
                Panel(
                    "Part that ended badly",
                    "Of the requests that were admitted.",
                    (
                        (
                            f"sum(rate(cotenant_requests_total{{{_BAD}}}{RATE}))"
                            f" / sum(rate(cotenant_requests_total{{{_MINE}}}{RATE}))",
                            "failed",
                        ),
                    ),
                    "percentunit",
                ),
            ),
        ),
        (
            "What tenants feel",
            (
                Panel(
                    "Time to the first byte",
                    "From admission; waits for cold models included.",
                    tuple(
                        (
                            f"histogram_quantile({quantile}, sum by (model, le) "
                            f'(rate(cotenant_time_to_first_byte_seconds_bucket{{model=~"$model"}}{RATE})))',
                            f"{{{{model}}}} p{quantile:.0%}".replace("%", ""),
                        )
                        for quantile in (0.5, 0.95)
                    ),
                    "s",
                ),
                Panel(
                    "Time to the last byte",
                    "From admission.",
                    (
                        (
                            "histogram_quantile(0.95, sum by (model, le) "
                            f'(rate(cotenant_request_duration_seconds_bucket{{model=~"$model"}}{RATE})))',
                            "{{model}} p95",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Refused before any engine",
                    "Wrong keys, limits, full queues, requests that are wrong.",
                    (
                        (
                            f'sum by (reason) (rate(cotenant_rejections_total{{tenant=~"$tenant"}}{RATE}))',
                            "{{reason}}",
                        ),
                    ),
                    "reqps",
                ),
            ),
        ),
        (
            "Tokens and engines",
            (
                Panel(
                    "Tokens a second",
                    "Of ended requests.",
                    (
                        (
                            f"sum by (tenant, kind) (rate(cotenant_tokens_total{{{_MINE}}}{RATE}))",
                            "{{tenant}} {{kind}}",
                        ),
                    ),
                ),
                Panel(
                    "Waiting and running",
                    "Requests that wait in gateways, and that are at engines.",
                    (
                        ('sum by (model) (cotenant_queue_depth{model=~"$model"})', "{{model}} waiting"),
                        ('sum by (model) (cotenant_requests_in_flight{model=~"$model"})', "{{model}} running"),
                    ),
                ),
                Panel(
                    "Engines",
                    "In the routing table. All gateways have the same one, so the highest is shown.",
                    (('max by (model) (cotenant_engines{model=~"$model"})', "{{model}}"),),
                ),
            ),
        ),
        (
            "The gateways themselves",
            (
                Panel(
                    "Sent back to the queue",
                    "Before the first byte of an answer, so no client noticed.",
                    ((f"sum by (reason) (rate(cotenant_upstream_retries_total{RATE}))", "{{reason}}"),),
                    "reqps",
                ),
                Panel(
                    "Memory",
                    "Resident, of a gateway's processes together.",
                    (("cotenant_gateway_resident_memory_bytes", "{{pod}}"),),
                    "bytes",
                ),
                Panel(
                    "Trouble",
                    "Workers that died and the usage records made for them; records that a full disk keeps in "
                    "memory, or that were given up.",
                    (
                        (f"sum(increase(cotenant_gateway_worker_restarts_total{RATE}))", "workers started again"),
                        (f"sum(increase(cotenant_usage_records_recovered_total{RATE}))", "usage records recovered"),
                        ("sum(cotenant_usage_records_waiting)", "usage records waiting"),
                        (f"sum(increase(cotenant_usage_records_dropped_total{RATE}))", "usage records given up"),
                    ),
                ),
            ),
        ),
        (
            "What they hear from the operator, and tell it",
            (
                Panel(
                    "Configuration behind the newest",
                    "By generation, about milliseconds. One that stays above 0 does not hear the operator: keys "
                    "that were revoked still work there.",
                    (
                        (
                            "scalar(max(cotenant_gateway_config_generation)) - cotenant_gateway_config_generation",
                            "{{pod}}",
                        ),
                    ),
                    "ms",
                ),
                Panel(
                    "Usage that was not sent",
                    "Lines on a gateway's disk that the operator has not acknowledged: a node that dies takes them.",
                    (("cotenant_usage_unsent_bytes", "{{pod}}"),),
                    "bytes",
                ),
                Panel(
                    "Workers",
                    "Of each gateway.",
                    (("cotenant_gateway_workers", "{{pod}}"),),
                ),
            ),
        ),
    ),
    (("tenant", "cotenant_requests_total"), ("model", "cotenant_requests_total")),
)
