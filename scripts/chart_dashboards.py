"""Grafana dashboards of the chart: rows of panels in dashboard_*.py → charts/cotenant/files/dashboards/*.json.

    python scripts/chart_dashboards.py           write them
    python scripts/chart_dashboards.py --check   exit with 1 when one differs

A test holds the metrics and labels of the queries against those that the programs have.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dashboard_caches import CACHE
from dashboard_gateways import GATEWAY
from dashboard_operator import OPERATOR
from dashboard_panels import Dashboard, Panel
from generated_files import ROOT, bring_up_to_date

FOLDER = ROOT / "charts" / "cotenant" / "files" / "dashboards"
_COLUMNS, _HEIGHT = 3, 8


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
