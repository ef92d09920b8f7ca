"""What must hold in a scenario beyond its schema: relations between fields. Pure."""

import re
from collections.abc import Iterator
from urllib.parse import SplitResult

from cotenant_loadtests.gate import check_slo_names
from cotenant_loadtests.http_urls import http_parts
from cotenant_loadtests.names import expand
from cotenant_loadtests.problems import one_of
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.stream_rules import Finding, stream_findings

MAX_PROCESSES = 64
_VARIABLE = re.compile("[A-Za-z_][A-Za-z0-9_]*")


def findings(scenario: Scenario) -> Iterator[Finding]:
    """Dotted fields and what is wrong with them."""
    yield from _window(scenario)
    yield from _processes(scenario)
    yield from _url("target.url", scenario.target.url)
    if scenario.observe.metrics_url is not None:
        yield from _url("observe.metrics_url", scenario.observe.metrics_url)
    names = [stream.name for stream in scenario.streams]
    for index, stream in enumerate(scenario.streams):
        if stream.name in names[:index]:
            yield f"streams.{index}.name", f"{stream.name!r} is also that of streams.{names.index(stream.name)}"
        for field, message in stream_findings(scenario, stream):
            yield f"streams.{index}.{field}", message
    yield from _tenants(scenario)
    for sentence in check_slo_names(scenario):
        field, _, message = sentence.partition(": ")
        yield field, message


def _window(scenario: Scenario) -> Iterator[Finding]:
    most_s = scenario.limits.duration_s
    if scenario.duration_s > most_s:  # before the plan is made, which takes time and memory in proportion
        yield "duration_s", f"is {scenario.duration_s:.12g} s, more than limits.duration_s, {most_s:.12g} s"
    cut_s = scenario.warmup_s + scenario.cooldown_s
    if cut_s >= scenario.duration_s:
        yield (
            "warmup_s",
            (
                f"with cooldown_s it is {cut_s:g} s of a run of {scenario.duration_s:g} s (duration_s), "
                "so that nothing would be measured"
            ),
        )


def _processes(scenario: Scenario) -> Iterator[Finding]:
    if scenario.processes > MAX_PROCESSES:
        yield (
            "processes",
            f"{scenario.processes} is more than {MAX_PROCESSES}; one sends thousands of requests a second",
        )


def _url(field: str, url: str) -> Iterator[Finding]:
    """The messages do not show the URL, which may hold a password."""
    parts = http_parts(url)
    if "@" in url.partition("://")[2].partition("/")[0]:
        yield field, "holds a name or password; keys belong to tenants: {NAME: {key: {env: VARIABLE}}}"
    elif parts is None or not _good_host(parts) or not url.isprintable():
        yield field, "is no http or https URL with a host; write it like http://127.0.0.1:8080"
    elif parts.query or parts.fragment:  # a query may hold a token, and the URL stands in the results
        yield field, "has a query or fragment; only scheme, host, port and path are used"
    elif field == "target.url" and parts.path.rstrip("/").endswith(("/v1", "/v2")):
        yield (
            field,
            "ends with the version that the APIs' own paths begin with, such as /v1/chat/completions; remove it",
        )


def _good_host(parts: SplitResult) -> bool:
    return not any(mark in parts.netloc for mark in " \\^<>{}|`\"'")


def _tenants(scenario: Scenario) -> Iterator[Finding]:
    used = _used_tenants(scenario)
    for name, tenant in scenario.tenants.items():
        if name not in used:
            yield f"tenants.{name}", f"no stream sends for this tenant; {one_of(name, sorted(used))}"
        if tenant.key and (tenant.key.env is None) == (tenant.key.file is None):
            yield f"tenants.{name}.key", "needs exactly one of env and file"
        elif tenant.key and tenant.key.env is not None and not _VARIABLE.fullmatch(tenant.key.env):
            yield (
                f"tenants.{name}.key.env",
                "is no name of a variable of the environment, such as SEARCH_KEY; the key itself belongs into that",
            )


def _used_tenants(scenario: Scenario) -> set[str]:
    used: set[str] = set()
    for stream in scenario.streams:
        try:
            used.update(expand(stream.tenant.names))
        except ValueError:
            used.update(stream.tenant.names)  # told where it stands
    return used
