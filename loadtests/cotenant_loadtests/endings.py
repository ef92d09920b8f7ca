"""How a command ends: with an exit code, and for what went wrong one sentence instead of a traceback."""

import errno
import functools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

import typer

from cotenant_loadtests.exit_codes import EXIT_BAD_SCENARIO, EXIT_CLOSED_PIPE, EXIT_NOT_VALID, EXIT_OWN_MISTAKE
from cotenant_loadtests.refusals import EXTRA, RefusedError, missing
from cotenant_loadtests.terminal import complain, silence, with_streams

P = ParamSpec("P")


def ending(command: Callable[P, int]) -> Callable[P, int]:
    """The command, with errors that people can act on told and turned into its exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return command(*args, **kwargs)
        except Exception as problem:
            told = _told(problem)
            if told is None:
                raise
            complain("error", told[0])
            return told[1]

    return wrapped


@contextmanager
def coded() -> Iterator[None]:
    """What is raised in the block, and is no wish to exit, becomes one: with a code that is no verdict."""
    with_streams()
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise typer.Exit(EXIT_CLOSED_PIPE) from None
    except (typer.Exit, typer.Abort):
        raise
    except Exception as problem:
        if told_of_flags(problem):
            raise typer.Exit(EXIT_BAD_SCENARIO) from None
        complain("error", f"a mistake of cotenant, not of the target:\n{traceback.format_exc()}")
        raise typer.Exit(EXIT_OWN_MISTAKE) from None


def told_of_flags(problem: Exception) -> bool:
    """A mistake in the flags, as every library of that kind reports it: told, if it is one."""
    show = getattr(problem, "format_message", None)
    if show is None:
        return False
    if not show().strip():  # no command was given: its help is on the screen
        return True
    where = getattr(getattr(problem, "ctx", None), "command_path", "cotenant loadtest")
    said = show().replace("Value error, ", "").replace("Input should", "it must")  # of a library below
    complain("error", f"{said} (see `{where} --help`)")
    return True


def _told(problem: Exception) -> tuple[str, int] | None:
    """Sentence and exit code; None for a mistake of our own."""
    if isinstance(problem, ModuleNotFoundError) and (package := (problem.name or "").partition(".")[0]) in EXTRA:
        return missing(package), EXIT_BAD_SCENARIO
    from cotenant_loadtests.plan_file import PlanError
    from cotenant_loadtests.problems import ScenarioError
    from cotenant_loadtests.results_file import ResultsFileError
    from cotenant_loadtests.run_output import RunError
    from cotenant_loadtests.writing import UnwrittenError

    if isinstance(problem, RefusedError | ScenarioError | PlanError | ResultsFileError):
        return str(problem), EXIT_BAD_SCENARIO
    if isinstance(problem, RunError | UnwrittenError):
        return str(problem), EXIT_NOT_VALID
    if isinstance(problem, OSError) and problem.filename and problem.strerror:  # a full disk, and the like
        return f"{problem.filename}: {problem.strerror}; nothing more could be written or read", EXIT_NOT_VALID
    if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:  # a write names no file
        return f"{problem.strerror}; make room, or give another folder with --out", EXIT_NOT_VALID
    return None
