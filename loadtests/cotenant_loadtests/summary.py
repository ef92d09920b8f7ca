"""Scenario and what its run gave → Results."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from cotenant_loadtests.columns import columns_of
from cotenant_loadtests.error_examples import error_examples
from cotenant_loadtests.fairness_index import fairness_of
from cotenant_loadtests.gate import evaluate, verdict
from cotenant_loadtests.measures import measure
from cotenant_loadtests.plan_file import plan_sha256
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import RunOutput
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.steps import steps_of
from cotenant_loadtests.this_machine import cores, machine
from cotenant_loadtests.timeline import timeline_of
from cotenant_loadtests.validity import validity_of
from cotenant_loadtests.window import window_of


def summarise(scenario: Scenario, output: RunOutput, target: str) -> Results:
    """`target`: the address that was loaded; the scenario's unless another was given."""
    columns = columns_of(output.plan, output.records)
    window = window_of(scenario, output, columns)
    measured = window.has(columns)
    measures = measure(columns.rows(measured), window, scenario.goodput)
    run_end_us = round(output.duration_s * 1e6)
    fairness = fairness_of(columns, window, run_end_us)
    validity = validity_of(scenario, output, columns, window, cores=cores())
    slo = evaluate(scenario.slo, measures, fairness)
    return Results(
        cotenant_version=_own_version(),
        name=scenario.name,
        about=scenario.about,
        started=datetime.fromtimestamp(output.started_unix_s, UTC).isoformat(timespec="milliseconds"),
        target=target,
        seed=scenario.seed,
        plan_sha256=plan_sha256(output.plan),
        scenario=scenario.model_dump(mode="json"),
        machine=machine(),
        duration_s=output.duration_s,
        window_from_s=window.from_s,
        window_to_s=window.to_s,
        interrupted=output.interrupted,
        verdict=verdict(validity.valid, slo),
        validity=validity,
        slo=slo,
        total=measures.total,
        tenants=measures.tenants,
        models=measures.models,
        groups=measures.groups,
        errors=error_examples(output.plan, (output.records[row] for row in measured.nonzero()[0].tolist())),
        timeline=timeline_of(columns, run_end_us),
        steps=steps_of(scenario, columns, window),
        fairness=fairness,
        server=output.server,
    )


def _own_version() -> str:
    """A program that runs from its source tree has none: a run of hours is summed up all the same."""
    try:
        return version("cotenant")
    except PackageNotFoundError:
        return "0"
