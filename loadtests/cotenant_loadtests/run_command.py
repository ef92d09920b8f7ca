"""`run`: a scenario's plan is bounded, sent, measured, judged and written."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_loadtests.keys import LocalKeys
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.setting_up import (
    Choices,
    Loaded,
    Wishes,
    check,
    check_start,
    keys_of,
    load,
    make_folder,
    plan_of,
    readable,
    with_plan_of_file,
)
from cotenant_loadtests.terminal import note

if TYPE_CHECKING:
    from cotenant_loadtests.planned import Planned


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWishes(Wishes):
    plan_file: Path | None = None
    from_plan: Path | None = None
    requests: str = "csv"


def run_scenario(choices: Choices, wishes: RunWishes, local: LocalKeys) -> int:
    """The exit code. Raises ScenarioError, RefusedError, RunError, UnwrittenError."""
    from cotenant_loadtests.live import watching
    from cotenant_loadtests.one_run import exit_code, measure
    from cotenant_loadtests.stopping import stopping
    from cotenant_loadtests.terminal_summary import print_summary
    from cotenant_loadtests.writing import refuse_unwritten
    from cotenant_loadtests.written import write_run

    if wishes.from_plan is not None and choices.seed is not None:
        raise RefusedError("--seed: the plan of --from-plan has its own seed; leave one of them out")
    loaded = load(choices, local)
    if wishes.from_plan is None:
        plan = plan_of(loaded)
    else:
        loaded, plan = with_plan_of_file(loaded, wishes.from_plan)
    if wishes.plan_file is not None:
        return _print_plan(loaded, plan, wishes.plan_file)
    extent = check(loaded, plan)
    check_start(loaded, plan)
    folder = make_folder(wishes.out, loaded.scenario.name)
    with stopping(folder) as stop:
        with keys_of(loaded, plan, local) as keys:
            note(extent.sentence(loaded.scenario.target.url))
            with watching(loaded.scenario, plan, quiet=wishes.quiet) as on_progress:
                measured = measure(loaded, plan, keys, folder=folder, stop=stop, on_progress=on_progress)
        unwritten = write_run(folder, loaded.scenario, measured, requests=wishes.requests)
        print_summary(measured.results, folder, unwritten)
        refuse_unwritten(unwritten)
    return exit_code(measured.results)


def _print_plan(loaded: Loaded, plan: "Sequence[Planned]", path: Path) -> int:
    from cotenant_loadtests.plan_file import plan_lines, write_plan

    if str(path) == "-":
        sys.stdout.buffer.writelines(plan_lines(loaded.scenario, plan))
        sys.stdout.buffer.flush()
    else:
        with readable(path):
            write_plan(path, loaded.scenario, plan)
        note(f"{len(plan):,} requests in {path}; nothing was sent")
    return 0
