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
    ids = (digest[:12] for digest in _texts(ctx, "keys.json", "keys", "sha256"))
    return [id for id in ids if id.startswith(incomplete)]


def _published(ctx: typer.Context, kind: str) -> list[str]:
    return sorted(_texts(ctx, "gateway.json", kind, "name"))


def _texts(ctx: typer.Context, file: str, kind: str, field: str) -> list[str]:
    """This field of each object in a list; what is damaged counts as absent."""
    items = _content(ctx, file).get(kind)
    found = [item.get(field) for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return [value for value in found if isinstance(value, str) and value.isprintable()]


def _content(ctx: typer.Context, name: str) -> dict[str, Any]:
    """An object in the state directory that the line names, or in the default one; empty when there is none."""
    given = ctx.params.get("state")
    try:
        content = json.loads(((Path(given) if given else default_state()) / name).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
