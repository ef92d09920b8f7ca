"""Names for the shell's completion, from what `up` has published last. Quick, and silent when there is nothing."""

import json
from pathlib import Path
from typing import Annotated, Any

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


def complete_key(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of created keys: those that can be revoked."""
    keys = _content(ctx, "keys.json").get("keys", ())
    return [id for key in keys if (id := str(key["sha256"])[:12]).startswith(incomplete)]


def _published(ctx: typer.Context, kind: str) -> list[str]:
    return sorted(str(item["name"]) for item in _content(ctx, "gateway.json").get(kind, ()))


def _content(ctx: typer.Context, name: str) -> dict[str, Any]:
    """An object in the state directory that the line names, or in the default one; empty when there is none."""
    given = ctx.params.get("state")
    try:
        content = json.loads(((Path(given) if given else default_state()) / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
