"""`cotenant get` and `cotenant explain`: what runs, and why it is where it is."""

import sys
import time
from pathlib import Path

from cotenant_operator.cli.completion import ModelName
from cotenant_operator.cli.options import Context, InNamespace, Kubeconfig, Output, Shown, State, show


def get_models(
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: InNamespace = None,
    output: Shown = Output.TABLE,
) -> int:
    """Models with their state, reason and engines."""
    import msgspec

    from cotenant_operator.cli.world import find_world
    from cotenant_operator.control import ControlClient
    from cotenant_operator.status import model_rows

    world = find_world(state, kubeconfig, context, namespace)
    wide = output is Output.WIDE
    if not isinstance(world, Path):
        from cotenant_operator.cli.in_cluster import all_of
        from cotenant_operator.kinds import MODELS
        from cotenant_operator.object_reports import model_object_rows, without_noise

        models = all_of(world, MODELS)
        return show(model_object_rows(models, now_s=time.time(), wide=wide), without_noise(models), output)
    status = ControlClient.of_state(world).status()
    return show(model_rows(status, wide=wide), msgspec.to_builtins(status.models), output)


def get_pools(
    state: State = None, kubeconfig: Kubeconfig = None, context: Context = None, output: Shown = Output.TABLE
) -> int:
    """Devices with their memory: all, reserved, in use."""
    import msgspec

    from cotenant_operator.cli.world import find_world
    from cotenant_operator.control import ControlClient
    from cotenant_operator.status import pool_rows

    world = find_world(state, kubeconfig, context, None)
    wide = output is Output.WIDE
    if not isinstance(world, Path):
        from cotenant_operator.cli.in_cluster import all_of
        from cotenant_operator.kinds import POOLS
        from cotenant_operator.object_reports import pool_object_rows, without_noise

        pools = all_of(world, POOLS)
        return show(pool_object_rows(pools, wide=wide), without_noise(pools), output)
    status = ControlClient.of_state(world).status()
    devices = msgspec.to_builtins(status.devices)
    document = [{"pool": status.pool, "generation": status.generation, "devices": devices}]
    return show(pool_rows(status, wide=wide), document, output)


def get_tenants(
    state: State = None, kubeconfig: Kubeconfig = None, context: Context = None, output: Shown = Output.TABLE
) -> int:
    """Tenants with the models they see and their limits. Keys are never shown."""
    from cotenant_operator.cli.world import find_world

    world = find_world(state, kubeconfig, context, None)
    if isinstance(world, Path):
        return _tenants_here(world, output)
    from cotenant_operator.cli.in_cluster import all_of
    from cotenant_operator.kinds import TENANTS
    from cotenant_operator.object_reports import tenant_object_rows, without_noise

    tenants = all_of(world, TENANTS)
    return show(tenant_object_rows(tenants, wide=output is Output.WIDE), without_noise(tenants), output)


def _tenants_here(state: Path, output: Output) -> int:
    from cotenant_operator.key_book import KeyBook, read_sources
    from cotenant_operator.keys_report import keys_per_tenant, known_keys
    from cotenant_operator.published import read_published
    from cotenant_operator.tenants_report import tenant_document, tenant_rows

    published = read_published(state)
    tenants = published.tenants
    keys = keys_per_tenant(known_keys(tenants, KeyBook(state).read(), read_sources(state), time.time()))
    tasks = {model.name: model.task or "task unknown" for model in published.models}
    rows = tenant_rows(tenants, keys, tasks if output is Output.WIDE else {})
    return show(rows, tenant_document(tenants, keys), output)


def explain_model(
    name: ModelName,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    namespace: InNamespace = None,
    output: Shown = Output.TABLE,
) -> int:
    """Say why a model is where it is, from the conductor's last decision."""
    from cotenant_operator.cli.world import find_world

    world = find_world(state, kubeconfig, context, namespace)
    wide = output is Output.WIDE
    if isinstance(world, Path):
        from cotenant_operator.control import ControlClient
        from cotenant_operator.explanation import explain, explain_document
        from cotenant_operator.names import model_named

        models = {model.model: model for model in ControlClient.of_state(world).status().models}
        found = models[model_named(name, models)]
        return _tell(explain(found, wide=wide), found.state, explain_document(found), output)
    from cotenant_operator.cli.in_cluster import model_of
    from cotenant_operator.object_explanation import explain_object, state_of
    from cotenant_operator.object_reports import without_noise

    model = model_of(world, name)
    lines = explain_object(model, now_s=time.time(), wide=wide)
    return _tell(lines, state_of(model), without_noise([model])[0], output)


def _tell(lines: list[str], state: str, document: object, output: Output) -> int:
    from cotenant_operator.output import harmless, paint

    if output in (Output.JSON, Output.YAML):
        return show(((), []), document, output)
    headline, *rest = map(harmless, lines)
    colour = {"ready": "green", "failed": "red", "waiting": "yellow"}.get(state, "cyan")
    sys.stdout.write("\n".join([paint(headline, colour, sys.stdout), *rest]) + "\n")
    return 0
