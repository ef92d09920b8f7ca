"""`cotenant cache`: the models on this machine's disk. Each command is a cache instance of its own, for its time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.options import EXIT_FAILED, EXIT_REFUSED, Output, Shown, State, default_state, show

if TYPE_CHECKING:
    from cotenant_cache.cache import Cache
    from cotenant_cache.contract import RoomPlan

cache_app = typer.Typer(
    help="Models on this machine's disk: list, fetch, check, evict. In a cluster: the same inside the container "
    "`cache` of a worker pod, with --root.",
    no_args_is_help=True,
)

Root = Annotated[
    Path | None,
    typer.Option(help="Folder of the volume. Default: cache/ of the state directory.", show_default=False),
]
Budget = Annotated[
    str | None, typer.Option(help="Bytes that models may use, such as 500Gi. Default: what the volume is set to.")
]
Sources = Annotated[list[str], typer.Argument(help="Models such as hf://Qwen/Qwen3-4B@main.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="The longest to wait for each model. What came is kept. Default: as long as it takes."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it. Without: say what would go, change nothing.")]


@cache_app.command("ls")
def list_models(root: Root = None, state: State = None, output: Shown = Output.TABLE) -> int:
    """List models: size, state, last use, and what keeps them."""
    import time

    from cotenant_operator.cache_report import document, model_rows

    with _opened(root, state) as cache:
        models = cache.models()
    return show(model_rows(models, now=time.time(), wide=output is Output.WIDE), document(models), output)


@cache_app.command("du")
def disk_usage(root: Root = None, state: State = None, budget: Budget = None, output: Shown = Output.TABLE) -> int:
    """Say what the volume's bytes are used for."""
    from cotenant_operator.cache_report import document, usage_lines

    with _opened(root, state, budget) as cache:
        usage = cache.usage()
    return _tell(usage_lines(usage), document(usage), output)


@cache_app.command()
def ensure(
    sources: Sources,
    root: Root = None,
    state: State = None,
    budget: Budget = None,
    output: Shown = Output.TABLE,
    timeout: Timeout = None,
) -> int:
    """Fetch models that are not here, whole and verified; prints their folders."""
    from cotenant_cache.errors import CacheError
    from cotenant_operator.cache_progress import shown_progress
    from cotenant_operator.cache_report import ensured_document
    from cotenant_operator.output import error

    deadline_s = _seconds("--timeout", timeout)
    done, problems = {}, {}
    with _opened(root, state, budget, sources=sources, make=True) as cache, shown_progress() as tell:
        for source in sources:
            try:
                done[source] = cache.ensure(source, progress=tell, deadline_s=deadline_s)
            except CacheError as failed:
                problems[source] = failed
    _tell([str(leased.folder) for leased in done.values()], ensured_document(done, problems), output)
    for problem in problems.values():
        error(problem.message)
    return EXIT_FAILED if problems else 0


@cache_app.command()
def plan(
    source: Annotated[str, typer.Argument(help="A model such as hf://Qwen/Qwen3-4B@main.")],
    root: Root = None,
    state: State = None,
    budget: Budget = None,
    output: Shown = Output.TABLE,
) -> int:
    """Say what would go to make room for a model, and what that costs. Changes nothing."""
    with _opened(root, state, budget, sources=[source]) as cache:
        found = cache.plan(source)
    return _planned(found, output)


@cache_app.command()
def evict(
    sources: Annotated[list[str] | None, typer.Argument(help="Models to remove.")] = None,
    room: Annotated[str | None, typer.Option("--bytes", help="Room to make instead, such as 20Gi.")] = None,
    yes: Yes = False,
    root: Root = None,
    state: State = None,
    budget: Budget = None,
    output: Shown = Output.TABLE,
) -> int:
    """Remove models, or make room; without --yes only says what would go, and what it costs to bring back."""
    from cotenant_operator.failure import FlagError
    from cotenant_operator.output import note

    if bool(sources) == (room is not None):
        raise FlagError("name models, or say how much room to make by --bytes 20Gi: one of them")
    with _opened(root, state, budget, sources=sources) as cache:
        found = cache.evict(sources or (), _bytes("--bytes", room) if room else 0, yes=yes)
    code = _planned(found, output)
    if code == 0:
        note("done" if yes else "nothing was changed; --yes does it")
    return code


@cache_app.command()
def verify(
    sources: Annotated[list[str] | None, typer.Argument(help="Models; default: all, and files of no model.")] = None,
    rate: Annotated[str | None, typer.Option(help="Bytes a second, such as 50Mi. Default: the disk's.")] = None,
    root: Root = None,
    state: State = None,
    output: Shown = Output.TABLE,
) -> int:
    """Read files again and compare them with their digests; a bad one is quarantined. Exit 1 if there was one."""
    from cotenant_operator.cache_progress import shown_progress
    from cotenant_operator.cache_report import verified_document
    from cotenant_operator.output import error, note
    from cotenant_operator.quantity import show_bytes

    limit = _bytes("--rate", rate) if rate else 0
    with _opened(root, state, sources=sources) as cache, shown_progress() as tell:
        adopted = cache.adopt(tell)
        found = cache.verify(sources or None, limit, progress=tell)
    _tell([], verified_document(found, adopted), output)
    for bad in found.bad:
        error(
            f"{bad.repo}: file {bad.digest[:12]}… does not match its digest; "
            + (
                f"it is quarantined, `cotenant cache ensure hf://{bad.repo}` fetches it again"
                if bad.quarantined
                else "it stays and is not served, as it belongs to another user, who alone may remove it"
            )
            + ("; an engine uses it: restart that engine" if bad.leased else "")
        )
    if served := [one for one in adopted if not one.refusal]:
        note(f"{len(served)} models that other tools had put there were checked and are served")
    note(f"{found.blobs} files, {show_bytes(found.bytes)}: {len(found.bad)} bad")
    return EXIT_FAILED if found.bad else 0


@cache_app.command()
def pin(sources: Sources, root: Root = None, state: State = None, output: Shown = Output.TABLE) -> int:
    """Keep models: they are not evicted until they are unpinned."""
    with _opened(root, state, sources=sources) as cache:
        commits = {source: cache.pin(source) for source in sources}
    return _tell([], [{"source": at, "commit": commit, "pinned": True} for at, commit in commits.items()], output)


@cache_app.command()
def unpin(sources: Sources, root: Root = None, state: State = None, output: Shown = Output.TABLE) -> int:
    """Let models be evicted again, when room is needed."""
    with _opened(root, state, sources=sources) as cache:
        commits = {source: cache.unpin(source) for source in sources}
    return _tell([], [{"source": at, "commit": commit, "pinned": False} for at, commit in commits.items()], output)


@cache_app.command(
    "serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def serve(context: typer.Context) -> int:
    """Run the sidecar and node agent of a cluster; --help lists its options."""
    import os
    import sys

    words = [sys.executable, "-m", "cotenant_serving.weight_cache", *context.args]
    os.execv(sys.executable, words)


@contextmanager
def _opened(
    root: Path | None,
    state: Path | None,
    budget: str | None = None,
    *,
    sources: Iterable[str] | None = (),
    make: bool = False,
) -> "Iterator[Cache]":
    """`make`: the state directory's folder, if it is not there.

    Raises FlagError for `sources` that are none, Failure with what the cache has to say.
    """
    from cotenant_cache.cache import Cache
    from cotenant_cache.errors import CacheError
    from cotenant_cache.source import parse_source
    from cotenant_operator.failure import Failure, FlagError

    try:
        for source in sources or ():
            parse_source(source)
    except CacheError as error:
        raise FlagError(error.message) from None
    folder = root or (state or default_state()) / "cache"
    if make and not root:
        folder.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        hint = "make it, or check --root" if root else "`cotenant up` and `cotenant cache ensure` make it"
        raise FlagError(f"{folder}: {'this is no folder' if folder.exists() else 'there is no such folder'}; {hint}")
    try:
        with Cache(folder, _bytes("--budget", budget) if budget else None) as cache:
            yield cache
    except CacheError as error:
        raise Failure(error.message) from None


def _bytes(option: str, text: str) -> int:
    from cotenant_operator.failure import FlagError
    from cotenant_operator.quantity import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise FlagError(f"{option} {text}: {error}") from None


def _seconds(option: str, value: float | None) -> float | None:
    from cotenant_operator.failure import FlagError

    if value is not None and not 0 < value < float("inf"):
        raise FlagError(f"{option} {value:g}: it must be above 0, in seconds; without it there is no limit")
    return value


def _planned(plan: "RoomPlan", output: Output) -> int:
    from cotenant_operator.cache_report import document, plan_lines
    from cotenant_operator.output import error

    _tell(plan_lines(plan), document(plan), output)
    if plan.fits:
        return 0
    error(plan.refusal)
    return EXIT_REFUSED


def _tell(lines: list[str], document: object, output: Output) -> int:
    from cotenant_operator.output import harmless

    if output in (Output.JSON, Output.YAML):
        return show(((), []), document, output)
    if lines:
        typer.echo("\n".join(map(harmless, lines)))
    return 0
