"""`cotenant loadtest …`: the load tests, with keys of their own where `cotenant up` runs on this machine."""

import typer

from cotenant_loadtests.cli import make_app
from cotenant_operator.cli.options import State, default_state
from cotenant_operator.run_keys import KeysOfUp

loadtest_app = make_app()


@loadtest_app.callback()
def use(context: typer.Context, state: State = None) -> None:
    """Load any OpenAI- or OIP-compatible endpoint: many tenants, many models, open loop."""
    context.obj = KeysOfUp(state or default_state())
