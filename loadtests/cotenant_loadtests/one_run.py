"""One run of a plan, from its start to its results."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cotenant_loadtests.exit_codes import EXIT_CODES, EXIT_INTERRUPTED
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Progress, RunError, RunOutput
from cotenant_loadtests.running import run_plan
from cotenant_loadtests.safety import host_of
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
        output = run_plan(
            scenario,
            plan,
            keys,
            folder=folder,
            addresses=loaded.resolve(host_of(scenario.target.url)),
            stop=stop,
            on_progress=on_progress,
        )
    except RunError as error:
        if error.output is None or not error.output.records:
            raise
        output = replace(error.output, problems=(*error.output.problems, str(error)))
    return Measured(output, summarise(scenario, output, scenario.target.url))


def exit_code(results: Results) -> int:
    return EXIT_INTERRUPTED if results.interrupted else EXIT_CODES[results.verdict]
