"""One run of a plan, from its start to its results."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cotenant_loadtests.exit_codes import EXIT_CODES, EXIT_INTERRUPTED
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Progress, RunError, RunOutput
from cotenant_loadtests.running import run_plan
from cotenant_loadtests.setting_up import Loaded
from cotenant_loadtests.summary import summarise


@dataclass(frozen=True, slots=True)
class Measured:
    output: RunOutput
    results: Results


def measure(
    loaded: Loaded,
    plan: Sequence[Planned],
    keys: Mapping[str, str],
    *,
    folder: Path,
    stop: threading.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Measured:
    """What `run_plan` gives, summed up; not valid when the run failed midway.

    Raises RunError if nothing was measured.
    """
    scenario = loaded.scenario
    try:
        output = run_plan(scenario, plan, keys, folder=folder, stop=stop, on_progress=on_progress)
        problems = output.problems
    except RunError as error:
        if error.output is None or not error.output.records:
            raise
        output, problems = error.output, (str(error),)
    results = summarise(scenario, output, scenario.target.url)
    return Measured(output, not_valid(results, problems) if problems else results)


def not_valid(results: Results, reasons: Sequence[str]) -> Results:
    """The same, with more reasons not to believe it."""
    validity = msgspec.structs.replace(results.validity, valid=False, reasons=(*reasons, *results.validity.reasons))
    return msgspec.structs.replace(results, verdict="not_valid", validity=validity)


def exit_code(results: Results) -> int:
    return EXIT_INTERRUPTED if results.interrupted else EXIT_CODES[results.verdict]
