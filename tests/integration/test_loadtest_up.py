"""Shipped scenarios, shortened, against a real `cotenant up`, by the real command.

What is asserted is arithmetic, and that verdict and exit code follow from what was measured; never that this machine
is quiet: a run on a busy one is `not_valid`, and says so.
"""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.docs import ROOT
from tests.builders.up import Up, model, until

from cotenant_loadtests.exit_codes import EXIT_CODES
from cotenant_loadtests.gate import bound
from cotenant_loadtests.plan_file import read_plan
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.results import MOST_LATENESS_P99_MS, Results
from cotenant_loadtests.results_file import read_results
from cotenant_loadtests.soak import server_rss_bytes

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

SCENARIOS = ROOT / "loadtests" / "scenarios"
CHAT = ROOT / "serving" / "cotenant_serving" / "demo_models" / "chat"
SHORT = {
    "noisy-neighbour": (
        *("duration_s=6", "warmup_s=1", "drain_s=10"),
        *("streams.2.from_s=2", "streams.2.to_s=4", "streams.2.deadline_s=6"),
        *("streams.3.from_s=2", "streams.3.to_s=4", "streams.3.deadline_s=6"),
    ),
    "cold-start": ("duration_s=8", "streams.0.arrivals.rate_per_s=0.25"),
    "many-models": (
        *("duration_s=6", "warmup_s=1", "processes=2"),
        'streams.0.model={names: ["echo-{01..04}"], zipf: 1.0}',
    ),
    "chat-steady": (
        *("duration_s=4", "warmup_s=0", "cooldown_s=0", "streams.0.model=chat", "streams.0.check=shape"),
        *("streams.0.output.tokens=20", "streams.0.prompt.tokens=10", "streams.0.arrivals.rate_per_s=2"),
    ),
}
"""Scenario → fields that make it short; the last one asks the real chat model of the demo."""
OBSERVED = ("observe.table=true", "observe.interval_s=0.5")
TENANTS = {"search", "mail", "ads", "analytics", "batch"}
KEY = re.compile(rb"ct-[A-Za-z0-9_-]{20,}")


@dataclass(frozen=True, slots=True)
class Run:
    """One `cotenant loadtest run`: what it left, and what the gateway wrote meanwhile."""

    folder: Path
    exit_code: int
    said: str
    results: Results
    plan: list[Planned]
    rows: list[dict[str, str]]
    usage: list[dict[str, Any]]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """What loadtests/models.yaml has, with a chat model in place of the encoder that stands beside it."""
    documents = list(yaml.safe_load_all((ROOT / "loadtests" / "models.yaml").read_text()))
    documents = [one for one in documents if one["metadata"]["name"] != "sentences"]
    documents.append(model("chat", namespace="default", model=f"file://{CHAT}"))
    running = Up(tmp_path_factory.mktemp("up"), *documents).start()
    yield running
    running.stop()


@pytest.fixture(scope="module", params=sorted(SHORT))
def run(request: pytest.FixtureRequest, up: Up, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_scenario(up, request.param, tmp_path_factory.mktemp(request.param), SHORT[request.param])


def run_scenario(up: Up, name: str, folder: Path, settings: tuple[str, ...]) -> Run:
    seen = len(up.usage())
    options = [part for setting in (*settings, *OBSERVED) for part in ("--set", setting)]
    command = [sys.executable, "-m", "cotenant_operator", "loadtest", "--state", str(up.state)]
    command += ["run", str(SCENARIOS / f"{name}.yaml"), "--out", str(folder), "--quiet", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert (folder / "results.json").exists(), said
    rows = list(csv.DictReader((folder / "requests.csv").read_text().splitlines()))
    known = {row["request_id"] for row in rows if row["request_id"]}

    def usage() -> list[dict[str, Any]]:
        return [record for record in up.usage()[seen:] if record["request_id"] in known]

    until(lambda: len(up.usage()) - seen >= len(admitted(rows)), "the gateway has written its usage")
    _, plan = read_plan(folder / "plan.jsonl")
    return Run(folder, done.returncode, said, read_results(folder / "results.json"), list(plan), rows, usage())


def admitted(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Those that a gateway counts: it took them, whatever became of them."""
    return [row for row in rows if row["outcome"] in ("ok", "cancelled")]


def test_every_planned_request_has_one_record(run: Run) -> None:
    assert [int(row["id"]) for row in run.rows] == [planned.id for planned in run.plan] == list(range(len(run.plan)))
    assert len(run.plan) > 1


def test_groups_add_up_to_their_tenants_and_models_and_to_the_total(run: Run) -> None:
    results = run.results
    for groups in (results.groups, results.tenants, results.models):
        for figure in ("scheduled", "succeeded", "cancelled", "failed", "good", "prompt_tokens", "completion_tokens"):
            assert sum(getattr(group, figure) for group in groups) == getattr(results.total, figure), figure
        for latency in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"):
            assert sum(getattr(group, latency).count for group in groups) == getattr(results.total, latency).count
        errors: Counter[str] = Counter()
        for group in groups:
            errors.update(group.errors)
        assert errors == results.total.errors
    for group in (results.total, *results.groups):
        assert group.scheduled == group.succeeded + group.failed
        assert sum(group.errors.values()) == group.failed


def test_what_was_measured_is_what_the_rows_of_the_window_say(run: Run) -> None:
    results = run.results
    within = [row for row in run.rows if results.window_from_s <= float(row["scheduled_s"]) < results.window_to_s]
    for group in results.groups:
        mine = [row for row in within if (row["tenant"], row["model"]) == (group.tenant, group.model)]
        good = admitted(mine)
        assert (group.scheduled, group.succeeded) == (len(mine), len(good))
        assert group.completion_tokens == sum(int(row["completion_tokens"]) for row in good)
        assert group.ttft_ms.count == len(good)
    assert sum(group.scheduled for group in results.groups) == len(within)


def test_tokens_are_those_of_the_gateways_own_records(run: Run) -> None:
    by_id = {record["request_id"]: record for record in run.usage}
    assert len(by_id) == len(run.usage), "a request was counted twice"
    whole = [row for row in run.rows if row["outcome"] == "ok"]
    assert whole
    for row in whole:
        record = by_id[row["request_id"]]
        assert (record["tenant"], record["model"]) == (row["tenant"], f"default/{row['model']}")
        assert (record["outcome"], record["estimated"]) == ("ok", False)
        assert record["prompt_tokens"] == int(row["prompt_tokens"])
        assert record["completion_tokens"] == int(row["completion_tokens"])


def test_no_answer_was_wrong(run: Run) -> None:
    """Every word and checksum was checked; an overloaded model may only make requests late, or turn them away."""
    late = {"timeout", "rate_limited", "overloaded", "unfinished"}
    assert {row["outcome"] for row in run.rows} <= {"ok", *late}


def test_the_exit_code_is_the_verdict_and_the_verdict_is_what_the_figures_say(run: Run) -> None:
    results = run.results
    assert run.exit_code == EXIT_CODES[results.verdict], run.said
    assert results.validity.valid == (not results.validity.reasons)
    assert results.validity.lateness_ms.count == len(run.rows)
    if results.validity.lateness_ms.p99 > MOST_LATENESS_P99_MS:
        assert not results.validity.valid
    for slo in results.slo:
        kept = slo.value is not None and (
            slo.value <= slo.limit if bound(slo.slo) == "at most" else slo.value >= slo.limit
        )
        assert slo.passed == kept, slo
    expected = "passed" if all(slo.passed for slo in results.slo) else "missed"
    assert results.verdict == (expected if results.validity.valid else "not_valid")


def test_what_is_missed_or_not_valid_is_said_by_name(run: Run) -> None:
    for reason in run.results.validity.reasons:
        assert reason in run.said
    if run.results.validity.valid:
        for slo in run.results.slo:
            assert slo.passed or slo.slo in run.said


def test_no_key_of_the_run_works_after_it_and_none_was_written(run: Run, up: Up) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "cotenant_operator", "get", "tenants", "--state", str(up.state), "-o", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert {tenant["name"]: tenant["keys"] for tenant in json.loads(shown.stdout)} == dict.fromkeys(TENANTS, 0)
    written = [file for file in run.folder.rglob("*") if file.is_file()]
    assert {file.name for file in written} == {
        "report.html",
        "results.json",
        "requests.csv",
        "junit.xml",
        "plan.jsonl",
    }
    assert [file.name for file in written if KEY.search(file.read_bytes())] == []
    assert not KEY.search(run.said.encode())


def test_the_servers_own_view_is_beside_the_clients(run: Run) -> None:
    server = run.results.server
    assert server.problems == ()
    assert {sample.values["default/contended"] for sample in server.table} == {1.0}
    assert all(0 <= sample.at_s <= run.results.duration_s + 1 for sample in server.metrics)
    assert (server_rss_bytes(server) or 0) > 10_000_000
    for before, now in pairwise(server.metrics):
        asked = [name for name in before.values if name.startswith("cotenant_requests_total{")]
        assert all(before.values[name] <= now.values[name] for name in asked)
        assert all(f"rate({name})" in now.values for name in asked)
    if run.results.name == "noisy-neighbour":
        name = 'cotenant_requests_total{code="200",model="default/contended",outcome="ok",tenant="search"}'
        assert server.metrics[-1].values[name] >= 1
