"""`cotenant key create`, `key list`, `key revoke`: API keys on one machine."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.completion import TenantName, complete_key, complete_tenant
from cotenant_operator.cli.options import EXIT_FAILED, Output, Shown, State, default_state, show

if TYPE_CHECKING:
    from pathlib import Path

    from cotenant_operator.keys_report import KnownKey


def create_key(tenant: TenantName, state: State = None) -> int:
    """Make an API key for a tenant and print it, once. Only its hash is kept."""
    from cotenant_operator.key_book import KeyBook
    from cotenant_operator.key_effect import wait_until_known
    from cotenant_operator.names import tenant_named
    from cotenant_operator.output import note, warning
    from cotenant_operator.published import read_published

    where = state or default_state()
    name = tenant_named(tenant, (known.name for known in read_published(where).tenants))
    key, made = KeyBook(where).create(name, now_s=time.time())
    typer.echo(key)
    note(f"key {made.id} of tenant {name}; it is not shown again. `cotenant key revoke {made.id}` ends it")
    if not wait_until_known(where, key, made.sha256):
        warning("`cotenant up` runs, but its gateway does not take the key yet; the output of `up` says why")
    return 0


def list_keys(
    tenant: Annotated[
        str | None, typer.Argument(help="Name of a Tenant; all when absent.", autocompletion=complete_tenant)
    ] = None,
    state: State = None,
    output: Shown = Output.TABLE,
) -> int:
    """Keys by their ids, with tenant and source. The keys themselves are kept nowhere."""
    from cotenant_operator.keys_report import key_document, key_rows
    from cotenant_operator.names import tenant_named
    from cotenant_operator.published import read_published

    where = state or default_state()
    keys = _known(where)
    if tenant is not None:
        names = [*(known.name for known in read_published(where).tenants), *(key.tenant for key in keys)]
        tenant_named(tenant, names)
        keys = [key for key in keys if key.tenant == tenant]
    return show(key_rows(keys, wide=output is Output.WIDE), key_document(keys), output)


def revoke_key(
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Id of the key, as `cotenant key list` shows it.", autocompletion=complete_key
        ),
    ],
    state: State = None,
) -> int:
    """Take away a key that `key create` has made. New requests with it get 401 within two seconds."""
    from cotenant_operator.key_book import KeyBook
    from cotenant_operator.key_effect import wait_until_gone
    from cotenant_operator.keys_report import how_to_remove
    from cotenant_operator.near import hint
    from cotenant_operator.output import error, note, warning

    where = state or default_state()
    gone = KeyBook(where).revoke(id)
    if gone is None:
        keys = _known(where)
        in_file = next((key for key in keys if key.id == id), None)
        ids = [key.id for key in keys if key.is_created]
        error(how_to_remove(in_file) if in_file else f"there is no key {id!r}; {hint(id, ids, label='created keys')}")
        return EXIT_FAILED
    note(f"key {gone.id} of tenant {gone.tenant} is revoked: 401 within two seconds; what runs may finish")
    if not wait_until_gone(where, gone.sha256):
        warning("`cotenant up` runs, but has not taken the key from its gateway yet; the output of `up` says why")
        return EXIT_FAILED
    return 0


def _known(state: "Path") -> list["KnownKey"]:
    from cotenant_operator.key_book import KeyBook, read_sources
    from cotenant_operator.keys_report import known_keys
    from cotenant_operator.published import read_published

    return known_keys(read_published(state).tenants, KeyBook(state).read(), read_sources(state), time.time())
