"""The chart's dashboards ask only for what the programs say."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from scripts import chart_dashboards, generate_docs
from scripts.chart_dashboards import DASHBOARDS, FOLDER

FILES = sorted(FOLDER.glob("*.json"))
ADDED_BY_A_SCRAPE = {"pod", "le"}
ADDED_BY_THE_MONITOR_OF_CACHES = {"pool", "node"}
every_dashboard = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def known() -> dict[str, set[str]]:
    """Series → its labels, of every program."""
    found: dict[str, set[str]] = {}
    for name, kind, labels, _ in [
        *generate_docs.metrics(),
        *generate_docs.operator_metrics(),
        *generate_docs.cache_metrics(),
    ]:
        ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        added = ADDED_BY_THE_MONITOR_OF_CACHES if name.startswith("`cotenant_cache_") else set()
        found |= {name.strip("`") + end: added | set(re.findall(r"`(\w+)`", labels)) for end in ends}
    return found


def queries(file: Any) -> list[tuple[str, str]]:
    panels = json.loads(file.read_text())["panels"]
    return [(target["expr"], target["legendFormat"]) for panel in panels for target in panel.get("targets", ())]


def test_the_files_are_what_the_script_makes() -> None:
    assert chart_dashboards.main(["--check"]) == 0
    assert {file.stem for file in FILES} == DASHBOARDS.keys()


@every_dashboard
def test_every_query_asks_for_series_and_labels_that_exist(file: Any) -> None:
    series = known()
    asked = queries(file)
    assert asked
    for query, legend in asked:
        named = re.findall(r"cotenant_\w+", query)
        assert named, query
        assert set(named) <= series.keys(), query
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query))
        labels |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
        have = set.intersection(*(series[name] for name in named)) | ADDED_BY_A_SCRAPE
        assert labels <= have, query
        kept = labels if " by (" in query else have
        assert set(re.findall(r"{{(\w+)}}", legend)) <= kept | ADDED_BY_A_SCRAPE, f"{query}: {legend}"


@every_dashboard
def test_every_variable_is_a_label_that_exists(file: Any) -> None:
    for variable in json.loads(file.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"])[0]
            assert label in known()[metric]


@pytest.mark.parametrize(
    ("file", "metrics"),
    [
        ("operator", generate_docs.operator_metrics),
        ("gateways", generate_docs.metrics),
        ("caches", generate_docs.cache_metrics),
    ],
)
def test_every_metric_is_on_a_dashboard(file: str, metrics: Callable[[], list[tuple[str, ...]]]) -> None:
    text = (FOLDER / f"{file}.json").read_text()
    assert [name for name, *_ in metrics() if name.strip("`") not in text] == []


@every_dashboard
def test_no_panel_lies_over_another(file: Any) -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(file.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for place in (panel["gridPos"] for panel in panels):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
