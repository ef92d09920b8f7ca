"""Everything in full: tables, what each figure means, the scenario."""

from collections.abc import Sequence

import yaml

from cotenant_loadtests.report.cast import by_traffic
from cotenant_loadtests.report.markup import Child, Markup, element, joined, named
from cotenant_loadtests.report.picture import section
from cotenant_loadtests.report.tables import folded, table
from cotenant_loadtests.report.wording import number, percent, whole
from cotenant_loadtests.results import ALL, Group, Results

DEFINITIONS = (
    ("scheduled", "requests that the plan has within the measured window"),
    ("succeeded", "whole and correct answers, and streams cancelled as planned"),
    ("success rate", "succeeded by scheduled"),
    ("good", "succeeded within every limit of the scenario's goodput; without limits, succeeded"),
    ("goodput", "good requests per second of the window"),
    (
        "TTFT",
        "time to first token: from the scheduled time to the first event with text; unstreamed, to the answer",
    ),
    ("ITL", "inter-token latency: each gap between two events with text, of all streams together"),
    ("TPOT", "time per output token: (end − first token) ÷ (tokens − 1), a value for each request"),
    ("E2E", "end to end: from the scheduled time to the end of the answer"),
    ("p99", "99 of 100 values are at or below it"),
    ("tokens", "by the server's usage where it told, else our own count of events with text"),
    ("in flight", "sent and not ended"),
    ("lateness", "from scheduled to sent, less the wait for a new connection: what this tool adds by itself"),
    (
        "Jain's index",
        "how evenly tenants were served, each by its service ÷ its fair part: an equal part, with those who had "
        "requests waiting or running at the same moment; 1: each got its part, 1/n: one of n got everything",
    ),
)
HEAD = (
    *("tenant", "model", "scheduled", "succeeded", "failed", "success"),
    *("good /s", "tokens /s", "prompt tokens", "tokens"),
    *(f"{name} {percentile}" for name in ("TTFT", "ITL", "TPOT", "E2E") for percentile in ("p50", "p99")),
)


def numbers(results: Results) -> Markup:
    return section(
        "numbers",
        "All numbers",
        folded("Each tenant", _groups("Each tenant; latencies in ms", [results.total, *by_traffic(results.tenants)])),
        folded("Each model", _groups("Each model; latencies in ms", by_traffic(results.models))),
        folded(
            "Each tenant and model", _groups("Each tenant and model; latencies in ms", by_traffic(results.groups))
        ),
        folded("What each figure means", definitions()),
        folded(
            "The scenario, as it was run",
            element("p", "SHA-256 of the plan: ", element("code", results.plan_sha256), class_="note"),
            element(
                "div",
                element("pre", element("code", scenario_yaml(results))),
                class_="scroll",
                tabindex="0",
                role="region",
                aria_label="Scenario as YAML",
            ),
        ),
    )


def definitions() -> Markup:
    return element(
        "dl", (joined(element("dt", name), element("dd", words)) for name, words in DEFINITIONS), class_="words"
    )


def scenario_yaml(results: Results) -> str:
    return yaml.safe_dump(results.scenario, sort_keys=False, allow_unicode=True, width=100, default_flow_style=None)


def _groups(caption: str, groups: Sequence[Group]) -> Markup:
    return table(caption, HEAD, (_cells(group) for group in groups), words=(1,))


def _cells(group: Group) -> tuple[Child, ...]:
    latencies = (group.ttft_ms, group.itl_ms, group.tpot_ms, group.e2e_ms)
    pairs = [number(value if one.count else None) for one in latencies for value in (one.p50, one.p99)]
    return (
        _who(group.tenant),
        _who(group.model),
        whole(group.scheduled),
        whole(group.succeeded),
        whole(group.failed),
        percent(group.success_rate if group.scheduled else None),
        number(group.goodput_per_s),
        number(group.completion_tokens_per_s),
        whole(group.prompt_tokens),
        whole(group.completion_tokens),
        *pairs,
    )


def _who(name: str) -> Markup:
    return element("em", "all") if name == ALL else named(name)
