"""The runs of one command: each planned, held against the bounds, sent and summed up.

The commands beside `run` go this way for every run: a rate that was raised is checked as the first was.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cotenant_loadtests import one_run, setting_up
from cotenant_loadtests.keys import LocalKeys
from cotenant_loadtests.live import watching
from cotenant_loadtests.one_run import Measured
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.problems import ScenarioError
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results, ServerSide
from cotenant_loadtests.run_output import Failed, RunError, RunOutput
from cotenant_loadtests.setting_up import Choices, Loaded, Wishes
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.stopping import stopping
from cotenant_loadtests.summary import summarise
from cotenant_loadtests.variants import with_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    loaded: Loaded
    keys: Mapping[str, str]
    """Tenant → key."""
    folder: Path
    """For what workers need while a run lasts."""
    stop: threading.Event
    quiet: bool = False

    def results(self, scenario: Scenario, plan: Sequence[Planned] | None = None) -> Results:
        return self.run(scenario, plan).results

    def repeated(self, scenario: Scenario, number: int) -> Results | Failed:
        """The `number`-th run from 0 of the scenario that was checked, with a seed of its own.

        By chance it may have more in a second, or in all, than the one that was held against the limits. Raises
        ScenarioError, RefusedError, RunError for the first, before which there is nothing to lose.
        """
        mine = with_seed(scenario, number)
        measured = self.perhaps(mine) if number else self.run(mine)
        return measured if isinstance(measured, Failed) else measured.results

    def perhaps(self, scenario: Scenario, plan: Sequence[Planned] | None = None) -> Measured | Failed:
        """A later run, not held against the limits once more."""
        try:
            return self.run(scenario, plan, again=True)
        except (ScenarioError, RefusedError, RunError) as error:
            return Failed(str(error))

    def run(self, scenario: Scenario, plan: Sequence[Planned] | None = None, *, again: bool = False) -> Measured:
        """The plan is the scenario's unless another is given. After a wish to stop nothing is sent any more.

        `again`: not held against the limits once more. Raises ScenarioError, RefusedError, RunError.
        """
        loaded = replace(self.loaded, scenario=scenario)
        wanted = setting_up.plan_of(loaded) if plan is None else plan
        setting_up.check(loaded, wanted, limits=not again)
        if self.stop.is_set():
            output = nothing_sent()
            return Measured(output, summarise(scenario, output, scenario.target.url))
        with watching(scenario, wanted, quiet=self.quiet) as on_progress:
            return one_run.measure(
                loaded, wanted, self.keys, folder=self.folder, stop=self.stop, on_progress=on_progress
            )


Refuse = Callable[[Scenario, Sequence[Planned]], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A scenario that may be sent, and what its runs need."""

    loaded: Loaded
    plan: Sequence[Planned]
    extent: str
    """A sentence: how much one run of the plan sends."""
    folder: Path
    runs: Measuring


@contextmanager
def ready(
    choices: Choices,
    wishes: Wishes,
    local: LocalKeys,
    refuse: Refuse,
    ask: Refuse = lambda scenario, plan: None,
) -> Iterator[Ready]:
    """Checked before anything is sent or made. The first Ctrl-C ends the run that is under way.

    `refuse` raises RefusedError for what the command cannot use, `ask` for what the target does not tell.
    Raises ScenarioError, RefusedError.
    """
    loaded = setting_up.load(choices, local)
    plan = setting_up.plan_of(loaded)
    extent = setting_up.check(loaded, plan).sentence(loaded.scenario.target.url)
    refuse(loaded.scenario, plan)
    setting_up.check_start(loaded, plan)
    ask(loaded.scenario, plan)
    folder = setting_up.make_folder(wishes.out, loaded.scenario.name)
    with (
        stopping(folder) as stop,
        measuring(loaded, plan, local, folder=folder, stop=stop, quiet=wishes.quiet) as runs,
    ):
        yield Ready(loaded, plan, extent, folder, runs)


@contextmanager
def measuring(
    loaded: Loaded, plan: Sequence[Planned], local: LocalKeys, *, folder: Path, stop: threading.Event, quiet: bool
) -> Iterator[Measuring]:
    """With keys of the plan's tenants, while the block lasts. Raises RefusedError."""
    with setting_up.keys_of(loaded, plan, local) as keys:
        yield Measuring(loaded=loaded, keys=keys, folder=folder, stop=stop, quiet=quiet)


def nothing_sent() -> RunOutput:
    return RunOutput(
        plan=(),
        records=(),
        processes=(),
        server=ServerSide(),
        started_unix_s=0.0,
        duration_s=0.0,
        interrupted=True,
    )
