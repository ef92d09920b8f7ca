"""`cotenant up` and `cotenant demo`: the two commands that serve until Ctrl-C."""

from typing import Annotated

import typer

from cotenant_operator.cli.options import Files, Port, State, default_state


def up(
    file: Files,
    host: Annotated[str, typer.Option(help="Address the gateway listens on.")] = "127.0.0.1",
    port: Port = 8080,
    gateway_workers: Annotated[int, typer.Option(min=1, max=63, help="Processes of the gateway.")] = 1,
    state: State = None,
) -> int:
    """Serve the models of these files on this machine, until Ctrl-C."""
    from cotenant_operator.local import up as run

    return run(file, host=host, port=port, state=state or default_state(), gateway_workers=gateway_workers)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Run through it once and exit.")] = False,
    port: Port = 8080,
    state: State = None,
) -> int:
    """Watch two tenants share one device, with models that come with cotenant."""
    from cotenant_operator.demo import run

    return int(run(once=once, port=port, state=state or default_state() / "demo"))
