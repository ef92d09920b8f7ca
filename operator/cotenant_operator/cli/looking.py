"""`cotenant get` and `cotenant explain`: what runs, and why it is where it is."""

import sys
import time

from cotenant_operator.cli.completion import ModelName
from cotenant_operator.cli.options import Output, Shown, State, default_state, show


def get_models(state: State = None, output: Shown = Output.TABLE) -> int:
    """Models with their state, reason and engines."""
    import msgspec

    from cotenant_operator.control import ControlClient
    from cotenant_operator.status import model_rows

    status = ControlClient.of_state(state or default_state()).status()
    return show(model_rows(status, wide=output is Output.WIDE), msgspec.to_builtins(status.models), output)


def get_pools(state: State = None, output: Shown = Output.TABLE) -> int:
    """Devices with their memory: all, reserved, in use."""
    import msgspec

    from cotenant_operator.control import ControlClient
    from cotenant_operator.status import pool_rows

    status = ControlClient.of_state(state or default_state()).status()
    devices = msgspec.to_builtins(status.devices)
    document = [{"pool": status.pool, "generation": status.generation, "devices": devices}]
    return show(pool_rows(status, wide=output is Output.WIDE), document, output)


def get_tenants(state: State = None, output: Shown = Output.TABLE) -> int:
    """Tenants with the models they see and their limits. Keys are never shown."""
    from cotenant_operator.key_book import KeyBook, read_sources
    from cotenant_operator.keys_report import keys_per_tenant, known_keys
    from cotenant_operator.published import read_published
    from cotenant_operator.tenants_report import tenant_document, tenant_rows

    where = state or default_state()
    published = read_published(where)
    tenants = published.tenants
    keys = keys_per_tenant(known_keys(tenants, KeyBook(where).read(), read_sources(where), time.time()))
    tasks = {model.name: model.task or "task unknown" for model in published.models}
    rows = tenant_rows(tenants, keys, tasks if output is Output.WIDE else {})
    return show(rows, tenant_document(tenants, keys), output)


def explain_model(name: ModelName, state: State = None, output: Shown = Output.TABLE) -> int:
    """Say why a model is where it is, from the conductor's last decision."""
    from cotenant_operator.control import ControlClient
    from cotenant_operator.explanation import explain, explain_document
    from cotenant_operator.names import model_named
    from cotenant_operator.output import harmless, paint

    models = {model.model: model for model in ControlClient.of_state(state or default_state()).status().models}
    found = models[model_named(name, models)]
    if output in (Output.JSON, Output.YAML):
        return show(((), []), explain_document(found), output)
    headline, *lines = map(harmless, explain(found, wide=output is Output.WIDE))
    colour = {"ready": "green", "failed": "red", "waiting": "yellow"}.get(found.state, "cyan")
    sys.stdout.write("\n".join([paint(headline, colour, sys.stdout), *lines]) + "\n")
    return 0
