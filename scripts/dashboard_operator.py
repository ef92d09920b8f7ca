"""Dashboard of operators."""

from dashboard_panels import RATE, Dashboard, Panel

OPERATOR = Dashboard(
    "cotenant / Operator",
    (
        (
            "Pools",
            (
                Panel(
                    "Models",
                    "ModelDeployments of each pool.",
                    (("max by (pool) (cotenant_operator_models)", "{{pool}}"),),
                ),
                Panel(
                    "Conductors that answer",
                    "1 while one of the pool does.",
                    (("max by (pool) (cotenant_operator_conductor_up)", "{{pool}}"),),
                ),
                Panel(
                    "Leaders",
                    "1 operator writes; more than 1, or none for long, is wrong.",
                    (("sum(cotenant_operator_leader)", "leaders"),),
                ),
            ),
        ),
        (
            "Work",
            (
                Panel(
                    "Duration of a round",
                    "Read the caches, decide, write the difference.",
                    (
                        (
                            "histogram_quantile(0.95, sum by (kind, le) "
                            f"(rate(cotenant_operator_round_seconds_bucket{RATE})))",
                            "{{kind}} p95",
                        ),
                    ),
                    "s",
                ),
                Panel(
                    "Writes",
                    "None while nothing changes.",
                    ((f"sum by (kind) (rate(cotenant_operator_object_writes_total{RATE}))", "{{kind}}"),),
                    "ops",
                ),
                Panel(
                    "Calls to the API server",
                    "Code 0: no answer; 403: a right is missing (docs/rbac.md).",
                    ((f"sum by (verb, code) (rate(cotenant_operator_api_calls_total{RATE}))", "{{verb}} {{code}}"),),
                    "ops",
                ),
            ),
        ),
        (
            "What it sees",
            (
                Panel(
                    "Objects",
                    "That are watched.",
                    (("max by (kind) (cotenant_operator_objects)", "{{kind}}"),),
                ),
                Panel(
                    "Kinds whose changes are not seen",
                    "1 while a watch fails, or the kind is not installed.",
                    (("max by (kind) (cotenant_operator_watch_stale)", "{{kind}}"),),
                ),
                Panel(
                    "How fast weights come",
                    "Of each pool, from a hub or another node, from disks, and from the page cache.",
                    (("max by (pool, rung) (cotenant_operator_weights_bytes_per_second)", "{{pool}} {{rung}}"),),
                    "Bps",
                ),
            ),
        ),
        (
            "What gateways are told",
            (
                Panel(
                    "Gateways' configuration",
                    "Its size in the Secret; from 1 MB on, models are left out.",
                    (("max(cotenant_operator_gateway_config_bytes)", "bytes"),),
                    "bytes",
                ),
                Panel(
                    "Left out of the gateways' configuration",
                    "Models and tenants that have no room in it.",
                    (("max by (kind) (cotenant_operator_gateway_config_left_out)", "{{kind}}"),),
                ),
            ),
        ),
    ),
)
