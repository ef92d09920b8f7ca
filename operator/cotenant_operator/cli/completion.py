"""Names for the shell's completion, from what `up` has published last. Quick, and silent when there is nothing."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cotenant_operator.cli.options import default_state


def complete_model(ctx: typer.Context, incomplete: str) -> list[str]:
    """`namespace/name` of each model, and its bare name where that is unambiguous."""
    names = _published(ctx, "models")
    bare = [name.rpartition("/")[2] for name in names]
    return [
        name for name in (*(item for item in bare if bare.count(item) == 1), *names) if name.startswith(incomplete)
    ]


def complete_tenant(ctx: typer.Context, incomplete: str) -> list[str]:
    return [name for name in _published(ctx, "tenants") if name.startswith(incomplete)]


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="name, or namespace/name.", autocompletion=complete_model)
]
TenantName = Annotated[
    str, typer.Argument(metavar="TENANT", help="Name of a Tenant.", autocompletion=complete_tenant)
]


def _published(ctx: typer.Context, kind: str) -> list[str]:
    given = ctx.params.get("state")
    try:
        content = json.loads(((Path(given) if given else default_state()) / "gateway.json").read_bytes())
        return sorted(str(item["name"]) for item in content.get(kind, ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
