"""`cotenant logs MODEL`: what its engines have written, without knowing Ray."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.completion import ModelName
from cotenant_operator.cli.options import (
    EXIT_FAILED,
    Context,
    InNamespace,
    Kubeconfig,
    OperatorNamespace,
    State,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cotenant_operator.cli.cluster_logs import PodLogs
    from cotenant_operator.engine_logs import EngineLog, Line

_COLOURS = ("cyan", "magenta", "blue", "yellow", "green")


def logs(
    name: ModelName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines of each engine. Default: all.")] = None,
    previous: Annotated[
        bool, typer.Option("--previous", help="Also earlier runs of its engines, and earlier revisions.")
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="Only lines of a duration before now (10m). Default: all.")
    ] = None,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: InNamespace = None,
    operator_namespace: OperatorNamespace = None,
) -> int:
    """Show what a model's engines have written: stages of loading, errors, CUDA's own messages."""
    from cotenant_operator.cli.world import find_world

    world = find_world(state, kubeconfig, context, namespace)
    since_s = _seconds(since)
    if isinstance(world, Path):
        return _logs_here(name, world, follow=follow, tail=tail, previous=previous, since_s=since_s)
    from cotenant_operator.cli.cluster_logs import PodLogs
    from cotenant_operator.cli.in_cluster import model_of
    from cotenant_operator.objects import SYSTEM_NAMESPACE

    found = PodLogs(
        api=world.api, namespace=operator_namespace or SYSTEM_NAMESPACE, model=model_of(world, name), since_s=since_s
    )
    return _logs_of_pods(found, follow=follow, tail=tail, previous=previous)


def _logs_of_pods(logs: "PodLogs", *, follow: bool, tail: int | None, previous: bool) -> int:
    from cotenant_operator.cluster_errors import ForbiddenError
    from cotenant_operator.kube_objects import full_name
    from cotenant_operator.output import error, note

    try:
        lines = logs.read(previous=previous, tail=tail)
        show = _Printer({line.app for line in lines})
        for line in lines:
            show(line)
        if follow:
            if not lines:
                note(f"no engine of {full_name(logs.model)} has written anything yet; waiting for one")
            logs.follow(show)
    except ForbiddenError as problem:
        error(f"{problem}. What its object says:")
        note("\n".join(logs.words()))
        return EXIT_FAILED
    if not lines:
        error(f"no engine of {full_name(logs.model)} has left a line in any pod. What its object says:")
        note("\n".join(logs.words()))
        return EXIT_FAILED
    return 0


def _logs_here(name: str, where: Path, *, follow: bool, tail: int | None, previous: bool, since_s: int | None) -> int:
    from cotenant_operator.engine_logs import engine_logs, merged, newest_revision
    from cotenant_operator.log_follow import Follower
    from cotenant_operator.log_follow import follow as follow_for_ever
    from cotenant_operator.output import error, note

    model = _named(name, where)
    all_logs = [log for log in engine_logs(where) if log.model == model]
    shown = all_logs if previous else newest_revision(all_logs)
    begin = {log.path: _begin(log.path, previous, tail) for log in shown}
    show = _Printer({log.app for log in shown}, _moment(since_s))
    if follow:
        if not shown:
            note(f"no engine of {model} has run here yet; waiting for one")
        follow_for_ever(Follower(where, model, begin), show)
    if not shown:
        error(
            f"no engine of {model} has run here yet: the first request wakes one. "
            f"`cotenant explain model {model}` says more, and -f waits for it"
        )
        return EXIT_FAILED
    for line in merged(shown, begin):
        show(line)
    _last_words(shown)
    if tail is None and (len(shown) < len(all_logs) or any(begin.values())):
        note(f"what they wrote before: cotenant logs {model} --previous")
    return 0


def _seconds(since: str | None) -> int | None:
    """Raises FlagError."""
    from cotenant_operator.failure import FlagError
    from cotenant_operator.quantity import parse_seconds

    if since is None:
        return None
    try:
        return max(1, round(parse_seconds(since)))
    except ValueError as problem:
        raise FlagError(f"--since {since[:80]!r} {problem}") from None


def _moment(since_s: int | None) -> str:
    """That long ago, as engines write it in their logs."""
    from datetime import datetime, timedelta

    return "" if since_s is None else f"{datetime.now() - timedelta(seconds=since_s):%Y-%m-%d %H:%M:%S,%f}"[:23]


def _begin(path: Path, previous: bool, tail: int | None) -> int:
    from cotenant_operator.engine_logs import begin_of_last_run, begin_of_tail

    begin = 0 if previous else begin_of_last_run(path)
    return begin if tail is None else max(begin, begin_of_tail(path, tail))


def _named(name: str, state: Path) -> str:
    """`namespace/name` of a model that is published, or that has a log from earlier."""
    from cotenant_operator.engine_logs import engine_logs
    from cotenant_operator.names import model_named
    from cotenant_operator.published import NotPublishedError, read_published

    logged = {log.model for log in engine_logs(state)}
    try:
        published = {model.name for model in read_published(state).models}
    except NotPublishedError:
        if not logged:
            raise
        published = set()
    return model_named(name, logged | published)


class _Printer:
    """Prints lines; names the engine on each as soon as there is more than one."""

    def __init__(self, apps: set[str], since: str = "") -> None:
        """`since`: lines before it are not shown; a time as it stands in a log."""
        self._apps, self._since = sorted(apps), since

    def __call__(self, line: "Line") -> None:
        from cotenant_operator.output import harmless, paint

        out = sys.stdout
        if line.time < self._since:
            return
        if line.app not in self._apps:
            self._apps.append(line.app)
        prefix = ""
        if len(self._apps) > 1:
            colour = _COLOURS[self._apps.index(line.app) % len(_COLOURS)]
            prefix = paint(f"[{line.app}]", colour, out) + " "
        text = harmless(line.text) if out.isatty() else line.text
        if colour := _colour(text):
            text = paint(text, colour, out)
        out.write(f"{prefix}{text}\n")
        out.flush()


def _colour(text: str) -> str:
    level = text[24:32].partition(" ")[0]
    return {"ERROR": "red", "WARNING": "yellow"}.get(level, "")


def _last_words(shown: "Sequence[EngineLog]") -> None:
    """Why it ended, below a traceback that is long."""
    from cotenant_operator.engine_logs import cause
    from cotenant_operator.output import note

    for log in shown:
        if said := cause(log):
            note(f"{log.app} failed: {said.reason}: {said.message}", "red")
