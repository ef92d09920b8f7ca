"""`cotenant key create`, `key list`, `key revoke`: API keys on one machine, or in a cluster."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.completion import TenantName, complete_key, complete_tenant
from cotenant_operator.cli.options import (
    EXIT_FAILED,
    Context,
    Kubeconfig,
    OperatorNamespace,
    Output,
    Shown,
    State,
    show,
)

if TYPE_CHECKING:
    from cotenant_operator.cluster_keys import ClusterKeys
    from cotenant_operator.keys_report import KnownKey


def create_key(
    tenant: TenantName,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = None,
) -> int:
    """Make an API key for a tenant and print it, once."""
    world = _world(state, kubeconfig, context, operator_namespace)
    return _create_here(world, tenant) if isinstance(world, Path) else _create_in_cluster(world, tenant)


def _create_here(where: Path, tenant: str) -> int:
    from cotenant_operator.key_book import KeyBook
    from cotenant_operator.key_effect import wait_until_known
    from cotenant_operator.names import tenant_named
    from cotenant_operator.output import note, warning
    from cotenant_operator.published import read_published

    name = tenant_named(tenant, (known.name for known in read_published(where).tenants))
    key, made = KeyBook(where).create(name, now_s=time.time())
    typer.echo(key)
    note(f"key {made.id} of tenant {name}; it is not shown again. `cotenant key revoke {made.id}` ends it")
    if not wait_until_known(where, key, made.sha256):
        warning("`cotenant up` runs, but its gateway does not take the key yet; the output of `up` says why")
    return 0


def _create_in_cluster(keys: "ClusterKeys", tenant: str) -> int:
    from cotenant_operator.output import note, warning
    from cotenant_operator.tenant_keys import FIELD

    key, made = keys.create(tenant)
    typer.echo(key)
    note(f"key {made.id} of tenant {tenant}, in Secret {keys.namespace}/{made.secret}, which spec.keys names now")
    note(
        f"if that Tenant is applied from files, add `secretRef: {{name: {made.secret}, key: {FIELD}}}` to its "
        "spec.keys there, or the next apply takes the key away"
    )
    if not made.seen:
        warning(f"the operator has not looked at tenant {tenant} yet; `cotenant doctor` says why")
    return 0


def list_keys(
    tenant: Annotated[
        str | None, typer.Argument(help="Name of a Tenant; all when absent.", autocompletion=complete_tenant)
    ] = None,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = None,
    output: Shown = Output.TABLE,
) -> int:
    """Keys by their ids, with tenant and source. Keys themselves are never shown."""
    from cotenant_operator.keys_report import key_document, key_rows
    from cotenant_operator.output import note

    world = _world(state, kubeconfig, context, operator_namespace)
    if isinstance(world, Path):
        keys = _known_here(world, tenant)
    else:
        keys, lacking = world.known(tenant)
        if lacking:
            note(f"ids are not known: you may not {lacking}")
    return show(key_rows(keys, wide=output is Output.WIDE), key_document(keys), output)


def _known_here(where: Path, tenant: str | None) -> "list[KnownKey]":
    from cotenant_operator.names import tenant_named
    from cotenant_operator.published import read_published

    keys = _known(where)
    if tenant is None:
        return keys
    tenant_named(tenant, [*(known.name for known in read_published(where).tenants), *(key.tenant for key in keys)])
    return [key for key in keys if key.tenant == tenant]


def revoke_key(
    id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Id of the key, as `cotenant key list` shows it.", autocompletion=complete_key
        ),
    ],
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = None,
) -> int:
    """Take away a key that `key create` has made. New requests with it get 401 within seconds."""
    world = _world(state, kubeconfig, context, operator_namespace)
    return _revoke_here(world, id) if isinstance(world, Path) else _revoke_in_cluster(world, id)


def _revoke_here(where: Path, id: str) -> int:
    from cotenant_operator.key_book import KeyBook
    from cotenant_operator.key_effect import wait_until_gone
    from cotenant_operator.keys_report import how_to_remove
    from cotenant_operator.near import hint
    from cotenant_operator.output import error, note, warning

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


def _revoke_in_cluster(keys: "ClusterKeys", id: str) -> int:
    from cotenant_operator.output import note, warning
    from cotenant_operator.tenant_keys import stands_in

    gone, seen = keys.revoke(id)
    note(f"key {gone.id} of tenant {gone.tenant} is revoked: 401 within five seconds; what runs may finish")
    if gone.source == "key create":
        note("if that Tenant is applied from files, take the key out of its spec.keys there, too")
    else:
        secret, _ = stands_in(gone)
        note(
            f"its Secret stays, for `key create` has not made it: kubectl -n {keys.namespace} delete secret {secret}"
        )
    if not seen:
        warning("the operator has not looked at the Tenant yet, so the key still works; `cotenant doctor` says why")
        return EXIT_FAILED
    return 0


def _world(
    state: Path | None, kubeconfig: Path | None, context: str | None, namespace: str | None
) -> "Path | ClusterKeys":
    from cotenant_operator.cli.world import find_world

    world = find_world(state, kubeconfig, context, namespace)
    if isinstance(world, Path):
        return world
    from cotenant_operator.cluster_keys import ClusterKeys
    from cotenant_operator.objects import SYSTEM_NAMESPACE

    return ClusterKeys(world.api, namespace or SYSTEM_NAMESPACE)


def _known(state: Path) -> "list[KnownKey]":
    from cotenant_operator.key_book import KeyBook, read_sources
    from cotenant_operator.keys_report import known_keys
    from cotenant_operator.published import read_published

    return known_keys(read_published(state).tenants, KeyBook(state).read(), read_sources(state), time.time())
