"""From what the command line says to a run that may begin: scenario, plan, limits, target, keys, folder.

Every command that sends something goes this way, so that none forgets a bound.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cotenant_loadtests.keys import LocalKeys, given_keys, keys_for
from cotenant_loadtests.refusals import EXTRA, RefusedError, missing
from cotenant_loadtests.terminal import note

if TYPE_CHECKING:
    from cotenant_loadtests.overrides import Override
    from cotenant_loadtests.planned import Planned
    from cotenant_loadtests.safety import Extent, Resolve
    from cotenant_loadtests.spec import Scenario

_HELD = ("results.json", "report.html", "requests.csv", "requests.parquet", "run-*/*.plan.jsonl")
"""Files of a run that ended, and the folder of one that goes on."""
LEAST_COVERED, WELL_COVERED = 0.5, 0.9
"""Of a stream's time by its trace: less is refused; less is told. Any part of a trace may end with a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the command line says about a scenario."""

    scenario: str
    """A path, or the name of a shipped one."""
    url: str | None = None
    settings: Sequence[str] = ()
    """`FIELD=VALUE` each."""
    seed: int | None = None
    processes: int | None = None
    permitted: Sequence[str] = ()
    """The hosts beside this machine that may be loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the command line says beside the scenario."""

    out: Path | None = None
    quiet: bool = False


def _look_up_once() -> "Resolve":
    """A name that says another address the second time would lead a run to a host that nobody checked."""
    from cotenant_loadtests.safety import addresses_of

    return cache(addresses_of)


@dataclass(frozen=True, slots=True)
class Loaded:
    scenario: "Scenario"
    folder: Path
    """Where the scenario stands; its files are beside it."""
    choices: Choices
    resolve: "Resolve" = field(default_factory=_look_up_once)
    """Host → addresses. All runs of a command dial the addresses that were checked before the first."""


def load(choices: Choices, local: LocalKeys) -> Loaded:
    """Read the scenario; a target that it does not name is the gateway that runs here.

    Raises ScenarioError, RefusedError.
    """
    from cotenant_loadtests.reading import read_scenario, scenario_path

    path = scenario_path(choices.scenario)
    scenario = read_scenario(path, _overrides(choices))
    changes: dict[str, str] = {}
    if "url" not in scenario.target.model_fields_set and (here := local.gateway_url()) is not None:
        changes["url"] = here
    if scenario.target.ca_file is not None:
        changes["ca_file"] = str(path.parent / Path(scenario.target.ca_file).expanduser())
    target = scenario.target.model_copy(update=changes)
    return Loaded(scenario.model_copy(update={"target": target}), path.parent, choices)


def plan_of(loaded: Loaded) -> "Sequence[Planned]":
    """Raises ScenarioError; RefusedError where a trace leaves most of its stream's time silent."""
    from cotenant_loadtests.workload import make_plan, trace_ends

    plan = make_plan(loaded.scenario, loaded.folder)
    for end in trace_ends(loaded.scenario, plan):
        if end.covered < LEAST_COVERED:
            raise RefusedError(end.sentence())
        if end.covered < WELL_COVERED:
            note(end.sentence())
    sending = {request.stream for request in plan}
    for stream in loaded.scenario.streams:
        if plan and stream.name not in sending:
            note(f"stream {stream.name} has no request in this plan; raise its rate, or duration_s")
    return plan


def with_plan_of_file(loaded: Loaded, path: Path) -> "tuple[Loaded, Sequence[Planned]]":
    """The requests of a plan file, and the scenario with the seed that they were drawn from.

    A plan of another length is refused: the run's end, its rates and its limits follow from the scenario's
    `duration_s`. Raises RefusedError, PlanError.
    """
    from cotenant_loadtests.plan_file import read_plan

    with readable(path):
        header, plan = read_plan(path)
    if header.duration_s != loaded.scenario.duration_s:
        raise RefusedError(
            f"{path}: the plan lasts {header.duration_s:.12g} s, the scenario {loaded.scenario.duration_s:.12g} s; "
            f"say --set duration_s={header.duration_s:.12g}, or plan again"
        )
    return replace(loaded, scenario=loaded.scenario.model_copy(update={"seed": header.seed})), plan


def check(loaded: Loaded, plan: "Sequence[Planned]", *, limits: bool = True) -> "Extent":
    """How much is going to be sent, when it may be sent there, and is within the limits. Raises RefusedError."""
    from cotenant_loadtests import bodies, safety

    for package in EXTRA:
        if find_spec(package) is None:
            raise RefusedError(missing(package))
    scenario = loaded.scenario
    safety.check_hosts(scenario, loaded.choices.permitted, loaded.resolve)
    if not plan:
        raise RefusedError("the plan has no request; raise a rate or duration_s")
    extent = safety.extent_of(plan, scenario, lambda request: len(bodies.render(request)))
    if limits:
        safety.check_limits(extent, scenario.limits)
    return extent


def check_start(loaded: Loaded, plan: "Sequence[Planned]") -> None:
    """Once, before anything is sent, told or made: keys that are given, open files, and that something listens.

    Raises RefusedError.
    """
    from cotenant_loadtests import open_files
    from cotenant_loadtests.reaching import check_reached
    from cotenant_loadtests.safety import host_of

    scenario = loaded.scenario
    given_keys(scenario, sorted({request.tenant for request in plan}), loaded.folder, os.environ)
    connections = max(1, scenario.limits.connections // min(scenario.processes, len(plan)))
    if (problem := open_files.problem_of(connections)) is not None:
        raise RefusedError(problem)
    check_reached(scenario, loaded.resolve(host_of(scenario.target.url)))


def keys_of(loaded: Loaded, plan: "Sequence[Planned]", local: LocalKeys) -> AbstractContextManager[Mapping[str, str]]:
    """Tenant → key while the block lasts. Raises RefusedError."""
    tenants = sorted({request.tenant for request in plan})
    return keys_for(loaded.scenario, tenants, loaded.folder, os.environ, local)


def make_folder(given: Path | None, name: str) -> Path:
    """The folder for what is written, made: `loadtest-NAME-TIME` when none is given. Raises RefusedError.

    One that holds an earlier run, or one that goes on, is refused: its figures would be lost or mixed with these.
    """
    folder = given or Path(f"loadtest-{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if (there := next((one for one in _HELD if next(folder.glob(one), None)), None)) is not None:
        raise RefusedError(f"--out {folder} holds a run already ({there}); give another folder, or remove that one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise RefusedError(f"--out {folder} cannot be written: {error.strerror}; give another folder") from None
    return folder


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong with a file inside the block is a RefusedError that names it."""
    try:
        yield
    except OSError as error:
        raise RefusedError(f"{path}: {error.strerror or error}; give another file") from None


def _overrides(choices: Choices) -> "list[str | Override]":
    """`FIELD=VALUE` each; the options of their own last, so that they win."""
    from cotenant_loadtests.overrides import Override

    own = (
        Override(("target", "url"), choices.url, "--url"),
        Override(("seed",), choices.seed, "--seed"),
        Override(("processes",), choices.processes, "--processes"),
    )
    return [*choices.settings, *(one for one in own if one.value is not None)]
