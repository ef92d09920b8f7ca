"""The `cotenant` command. Parses, calls, prints.

    options.py   what the commands share: options, formats, exit codes, the default state directory
    serve.py     up, demo            planning.py   plan
    operator.py  operator
    looking.py   get, explain        keys.py       key create, list, revoke
    logs.py      logs                usage.py      usage
    talking.py   chat, embed         doctor.py     doctor
    loadtest.py  loadtest …          about.py      version
    cache.py     cache ls, ensure, plan, evict, verify, pin, unpin, du, serve
    completion.py names for the shell

Everything heavy is imported by the command that needs it, so that `cotenant --help` is quick.
"""

import os
import sys

import typer

from cotenant_operator.cli.about import version
from cotenant_operator.cli.cache import cache_app
from cotenant_operator.cli.doctor import doctor
from cotenant_operator.cli.keys import create_key, list_keys, revoke_key
from cotenant_operator.cli.loadtest import loadtest_app
from cotenant_operator.cli.logs import logs
from cotenant_operator.cli.looking import explain_model, get_models, get_pools, get_tenants
from cotenant_operator.cli.operator import operator
from cotenant_operator.cli.options import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_MANIFESTS, EXIT_REFUSED, default_state
from cotenant_operator.cli.planning import plan
from cotenant_operator.cli.serve import demo, up
from cotenant_operator.cli.talking import chat, embed
from cotenant_operator.cli.usage import usage
from cotenant_operator.failure import Failure

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_MANIFESTS", "EXIT_REFUSED", "app", "default_state", "main"]

app = typer.Typer(
    name="cotenant",
    help="Many tenants and many models on the same GPUs: admitted, guarded, fair, and fast to wake.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
get_app = typer.Typer(help="Show what runs: models, tenants, pools.", no_args_is_help=True)
explain_app = typer.Typer(help="Say why something is where it is.", no_args_is_help=True)
key_app = typer.Typer(help="API keys of tenants: make, list, revoke.", no_args_is_help=True)

SERVE, LOOK, CALL = "Serve", "Look at what runs", "Call a model"
for panel, command in ((SERVE, plan), (SERVE, up), (SERVE, demo), (SERVE, doctor), (LOOK, logs), (LOOK, usage)):
    app.command(rich_help_panel=panel)(command)
app.add_typer(get_app, name="get", rich_help_panel=LOOK)
app.add_typer(explain_app, name="explain", rich_help_panel=LOOK)
app.add_typer(key_app, name="key", rich_help_panel=CALL)
app.add_typer(cache_app, name="cache", rich_help_panel=LOOK)
app.command(rich_help_panel=CALL)(chat)
app.command(rich_help_panel=CALL)(embed)
app.add_typer(loadtest_app, name="loadtest", rich_help_panel=CALL)
app.command()(version)
app.command(rich_help_panel=SERVE)(operator)
get_app.command("models")(get_models)
get_app.command("pools")(get_pools)
get_app.command("tenants")(get_tenants)
explain_app.command("model")(explain_model)
key_app.command("create")(create_key)
key_app.command("list")(list_keys)
key_app.command("revoke")(revoke_key)


def main() -> int:
    """Entry point of the console script: the exit status."""
    from cotenant_operator.output import error

    try:
        result = app(prog_name="cotenant", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more at exit
        return EXIT_FAILED
    except Failure as failure:
        error(str(failure))
        return failure.exit_code
    except Exception as problem:
        show = getattr(problem, "format_message", None)  # a mistake in the flags
        if show is None:
            raise
        where = getattr(getattr(problem, "ctx", None), "command_path", "cotenant")
        error(f"{show()} (see `{where} --help`)")
        return EXIT_MANIFESTS
    return result if isinstance(result, int) else 0
