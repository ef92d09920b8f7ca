"""`cotenant usage`: who used what."""

import time
from typing import Annotated

import typer

from cotenant_operator.cli.options import Output, Shown, State, default_state, show


def usage(
    by: Annotated[str, typer.Option(help="Fields to sum by: tenant, model, outcome, day.")] = "tenant,model",
    since: Annotated[
        str | None, typer.Option(help="A duration before now (1h, 7d), or a date (2026-11-26). Default: all.")
    ] = None,
    state: State = None,
    output: Shown = Output.TABLE,
) -> int:
    """Sum up requests and tokens, tenant by tenant and model by model."""
    from cotenant_operator.output import note, warning
    from cotenant_operator.published import read_published
    from cotenant_operator.usage_report import parse_by, parse_since, sum_up, usage_document, usage_rows

    where = state or default_state()
    fields = parse_by(by)
    begin = None if since is None else parse_since(since, time.time())
    path = where / "gateway" / "usage.jsonl"
    try:
        with path.open("rb") as lines:
            found = sum_up(lines, fields, begin)
    except FileNotFoundError:
        read_published(where)  # says so when nothing has ever run here
        found = sum_up((), fields, begin)
    show(usage_rows(found, wide=output is Output.WIDE), usage_document(found), output)
    if not found.total.requests:
        note(f"nothing to sum up: each admitted request gets a line in {path} when it ends")
    if found.damaged:
        warning(f"{found.damaged} lines of {path} are damaged and in no sum; look at them, or move the file away")
    return 0
