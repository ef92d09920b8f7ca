"""`compare A B`: loads both, bounds both, measures them in turn, judges, writes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from cotenant_loadtests import safety
from cotenant_loadtests.compare import Limit, compare, parse_condition, slo_of, too_few, verdict_of
from cotenant_loadtests.concluding import conclude, in_short
from cotenant_loadtests.extras import concluded
from cotenant_loadtests.keys import LocalKeys
from cotenant_loadtests.measuring import measuring
from cotenant_loadtests.paired import FEWEST_ROUNDS
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.setting_up import Choices, Loaded, Wishes, check, check_start, load, make_folder, plan_of
from cotenant_loadtests.stopping import stopping
from cotenant_loadtests.terminal import note
from cotenant_loadtests.units import counted


def compare_two(
    names: Mapping[str, str],
    choices: Choices,
    wishes: Wishes,
    local: LocalKeys,
    *,
    rounds: int,
    fail_if: Sequence[str],
) -> int:
    """`names`: `a` and `b`, each a URL or a scenario; `choices.scenario` is that of URLs, empty where there are none.

    The exit code. Raises ScenarioError, RefusedError, RunError.
    """
    conditions = _conditions(fail_if, rounds)
    sides = sides_of(names, choices, local)
    plans = _plans(sides, rounds)
    folder = make_folder(wishes.out, f"compare-{sides['a'].scenario.name}")
    with (
        stopping(folder) as stop,
        measuring(sides["a"], plans["a"], local, folder=folder, stop=stop, quiet=wishes.quiet) as a,
        measuring(sides["b"], plans["b"], local, folder=folder, stop=stop, quiet=wishes.quiet) as b,
    ):
        runs = {"a": a, "b": b}

        def measure(side: str, turn: int) -> Results | Failed:
            results = runs[side].repeated(sides[side].scenario, turn)
            note(f"round {turn + 1} of {rounds}, {side.upper()}: {in_short(results)}")
            return results

        found, results = compare((names["a"], names["b"]), rounds, measure, conditions)
        done = concluded(
            msgspec.structs.replace(results, slo=slo_of(found, conditions)),
            "compare",
            found,
            verdict=verdict_of(found),
            interrupted=found.rounds < rounds and stop.is_set(),
            not_valid=found.not_valid,
        )
        return conclude(folder, done, found)


def _plans(sides: Mapping[str, Loaded], rounds: int) -> dict[str, Sequence[Planned]]:
    """Both held against their bounds before anything is sent, and told. Raises ScenarioError, RefusedError."""
    plans = {side: plan_of(loaded) for side, loaded in sides.items()}
    extents = {side: check(loaded, plans[side]) for side, loaded in sides.items()}
    for side, loaded in sides.items():
        check_start(loaded, plans[side])
    for side, loaded in sides.items():
        note(f"{side.upper()}: {counted(rounds, 'round')}, each {extents[side].sentence(loaded.scenario.target.url)}")
    return plans


def sides_of(names: Mapping[str, str], choices: Choices, local: LocalKeys) -> dict[str, Loaded]:
    """Each with the hosts that were permitted and are its own. Raises ScenarioError, RefusedError."""
    sides = {side: load(_choices_of(name, choices), local) for side, name in names.items()}
    hosts = {side: safety.hosts_of(loaded.scenario) for side, loaded in sides.items()}
    for host in choices.permitted:
        if not any(safety.plain_host(host) in known for known in hosts.values()):
            targets = " and ".join(next(iter(known)) for known in hosts.values())
            raise RefusedError(f"{safety.OPTION} {host}: the targets are {targets}, not that")
    return {
        side: replace(loaded, choices=replace(loaded.choices, permitted=_among(choices.permitted, hosts[side])))
        for side, loaded in sides.items()
    }


def _among(permitted: Sequence[str], hosts: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(host for host in permitted if safety.plain_host(host) in hosts)


def _choices_of(name: str, choices: Choices) -> Choices:
    if "://" not in name:
        return replace(choices, scenario=name)
    if not choices.scenario:
        raise RefusedError(f"{name} is an address: say with --scenario what shall be sent there")
    return replace(choices, url=name)


def _conditions(fail_if: Sequence[str], rounds: int) -> list[Limit]:
    conditions = [parse_condition(text) for text in fail_if]
    if conditions and rounds < FEWEST_ROUNDS:
        raise RefusedError(f"--fail-if: {too_few(rounds)}")
    return conditions
