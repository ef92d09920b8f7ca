"""Grafana dashboards of the chart: rows of panels here → charts/cotenant/files/dashboards/*.json.

    python scripts/chart_dashboards.py           write them
    python scripts/chart_dashboards.py --check   exit with 1 when one differs

A test holds the metrics and labels of the queries against those that the programs have.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generated_files import ROOT, bring_up_to_date

FOLDER = ROOT / "charts" / "cotenant" / "files" / "dashboards"
RATE = "[$__rate_interval]"
_COLUMNS, _HEIGHT = 3, 8


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time."""

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    """(PromQL, legend) of each line or family of lines."""
    unit: str = "short"
    """As Grafana names units: short, reqps, percentunit, s, bytes."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[tuple[str, str], ...] = ()
    """(name, metric that has it as a label)."""


_POOL = '{pool=~"$pool"}'
_MINE = 'tenant=~"$tenant", model=~"$model"'
_BAD = f'{_MINE}, outcome!~"ok|refused|client_closed"'


def _of_node(field: str) -> str:
    """Of each volume: its instances all say the same."""
    return f"max by (node) (cotenant_cache_{field}{_POOL})"


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

CACHE = Dashboard(
    "cotenant / Weight caches",
    (
        (
            "Room",
            (
                Panel(
                    "Used",
                    "Of each node's volume; instances of one volume say the same.",
                    (
                        (_of_node("used_bytes"), "{{node}} used"),
                        (_of_node("budget_bytes"), "{{node}} budget"),
                        (_of_node("reserved_bytes"), "{{node}} promised"),
                    ),
                    "bytes",
                ),
                Panel(
                    "Free on the disk",
                    "Whoever uses it: near nothing, fetches stop with DiskFull.",
                    ((_of_node("disk_free_bytes"), "{{node}}"),),
                    "bytes",
                ),
                Panel(
                    "Unfinished and quarantined",
                    "Unfinished files go on when they are wanted again; quarantined ones broke their digest.",
                    (
                        (_of_node("partial_bytes"), "{{node}} unfinished"),
                        (_of_node("quarantined_bytes"), "{{node}} quarantined"),
                    ),
                    "bytes",
                ),
            ),
        ),
        (
            "Models",
            (
                Panel(
                    "Models and files",
                    "Whole or not.",
                    ((_of_node("models"), "{{node}} models"), (_of_node("blobs"), "{{node}} files")),
                ),
                Panel(
                    "In use",
                    "Leases: what they hold is not evicted.",
                    ((_of_node("leases"), "{{node}} leases"), (_of_node("instances"), "{{node}} instances")),
                ),
                Panel(
                    "How fetches ended",
                    "By reason; `done` is a model that is here.",
                    ((f"sum by (outcome) (increase(cotenant_cache_ensures_total{_POOL}{RATE}))", "{{outcome}}"),),
                ),
            ),
        ),
        (
            "Traffic and checks",
            (
                Panel(
                    "Fetched",
                    "Whole files, from the hub and from other nodes.",
                    ((f"sum by (from) (rate(cotenant_cache_fetched_bytes_total{_POOL}{RATE}))", "{{from}}"),),
                    "Bps",
                ),
                Panel(
                    "Checked again",
                    "In the background, at most at `spec.cache.verifyRate` for each instance.",
                    ((f"sum by (node) (rate(cotenant_cache_verified_bytes_total{_POOL}{RATE}))", "{{node}}"),),
                    "Bps",
                ),
                Panel(
                    "Flipped bits",
                    "Files that no longer had their digest. A disk with more than one is to be replaced.",
                    ((f"sum by (node) (cotenant_cache_bad_blobs_total{_POOL})", "{{node}}"),),
                ),
            ),
        ),
    ),
    (("pool", "cotenant_cache_models"),),
)

DASHBOARDS = {"gateways": GATEWAY, "operator": OPERATOR, "caches": CACHE}


def main(arguments: Sequence[str] | None = None) -> int:
    return bring_up_to_date(__file__, "Write the chart's Grafana dashboards.", files, arguments)


def files() -> dict[Path, str]:
    """Path → text of each dashboard."""
    return {
        FOLDER / f"{name}.json": json.dumps(document(name, dashboard), indent=1) + "\n"
        for name, dashboard in DASHBOARDS.items()
    }


def document(name: str, dashboard: Dashboard) -> dict[str, Any]:
    """As Grafana 9 and newer import it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in dashboard.rows:
        panels.append(_titled(len(panels) + 1, title, top))
        for column, panel in enumerate(row):
            panels.append(_panel(len(panels) + 1, panel, top + 1, column))
        top += 1 + _HEIGHT
    return {
        "uid": f"cotenant-{name}",
        "title": dashboard.title,
        "tags": ["cotenant"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource(), *(_variable(*variable) for variable in dashboard.variables)]},
        "panels": panels,
    }


def _titled(number: int, title: str, top: int) -> dict[str, Any]:
    place = {"h": 1, "w": 24, "x": 0, "y": top}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, top: int, column: int) -> dict[str, Any]:
    width = 24 // _COLUMNS
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {"h": _HEIGHT, "w": width, "x": column * width, "y": top},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(panel.queries)
        ],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(label: str, metric: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": f"label_values({metric}, {label})",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


if __name__ == "__main__":
    sys.exit(main())
