"""Objects of a cluster → what `cotenant get` prints: rows, or the objects themselves. Pure; only status is told."""

from collections.abc import Sequence

from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import at, condition, full_name, instant, items_at, name_of
from cotenant_operator.quantity import as_quantity, parse_bytes, show_seconds

CONDITIONS = ("Accepted", "Cached", "Placed", "Loaded", "Ready")
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def model_object_rows(models: Sequence[Object], *, now_s: float, wide: bool) -> Table:
    """The printer's columns of a ModelDeployment, and why it is not ready."""
    columns: tuple[str, ...] = ("MODEL", "READY", "REASON", "REPLICAS", "CACHED", "GPU", "URL", "AGE", "MESSAGE")
    columns += ("POOL", "REVISION", "PLACED", "CONDITIONS") if wide else ()
    return columns, [_model(model, now_s) + (_wide(model) if wide else ()) for model in sorted(models, key=full_name)]


def _model(model: Object, now_s: float) -> tuple[str, ...]:
    ready = condition(model, "Ready")
    return (
        full_name(model),
        str(ready.get("status") or "Unknown"),
        str(ready.get("reason") or "NotSeenYet"),
        replicas(model),
        str(at(model, "status", "cached", "summary") or condition(model, "Cached").get("status") or "Unknown"),
        str(at(model, "status", "gpu", "share") or "-"),
        str(at(model, "status", "url") or "-"),
        _age(model, now_s),
        str(ready.get("message") or "-"),
    )


def replicas(model: Object) -> str:
    """`1/2`: ready and desired."""
    return str(at(model, "status", "replicas", "summary") or "-")


def _wide(model: Object) -> tuple[str, ...]:
    places = {
        str(place.get("device") or place.get("node") or "") for place in items_at(model, "status", "placements")
    }
    return (
        str(at(model, "spec", "pool") or "default"),
        str(at(model, "status", "revision") or at(model, "status", "targetRevision") or "-"),
        ", ".join(sorted(filter(None, places))) or "-",
        " ".join(f"{type}={condition(model, type).get('status') or 'Unknown'}" for type in CONDITIONS),
    )


def pool_object_rows(pools: Sequence[Object], *, wide: bool) -> Table:
    """One row for each device, as for `up`; a pool without any has one row with what it says of itself."""
    columns: tuple[str, ...] = ("POOL", "READY", "REASON", "DEVICE", "GROUP", "MEMORY", "RESERVED", "ENGINES")
    columns += ("FREE", "NODE", "POD", "RAYCLUSTER", "MESSAGE") if wide else ()
    rows = []
    for pool in sorted(pools, key=name_of):
        devices = items_at(pool, "status", "devices")
        rows += [_device(pool, device, wide) for device in sorted(devices, key=_id)] or [_device(pool, {}, wide)]
    return columns, rows


def _device(pool: Object, device: Object, wide: bool) -> tuple[str, ...]:
    ready = condition(pool, "Ready")
    row = (
        name_of(pool),
        str(ready.get("status") or "Unknown"),
        str(ready.get("reason") or "NotSeenYet"),
        _id(device) or "-",
        str(device.get("group") or "-"),
        *(str(device.get(name) or "-") for name in ("memory", "reserved")),
        str(device.get("engines", "-")),
    )
    if not wide:
        return row
    return (
        *row,
        _free(device),
        str(device.get("node") or "-"),
        str(device.get("pod") or "-"),
        str(at(pool, "status", "rayClusters", "active") or "-"),
        str(ready.get("message") or "-"),
    )


def tenant_object_rows(tenants: Sequence[Object], *, wide: bool) -> Table:
    columns: tuple[str, ...] = ("TENANT", "READY", "KEYS", "REQUESTS/MIN", "TOKENS/MIN", "CONCURRENT", "MODELS")
    columns += ("NAMESPACES", "MESSAGE") if wide else ()
    return columns, [_tenant(tenant, wide) for tenant in sorted(tenants, key=name_of)]


def _tenant(tenant: Object, wide: bool) -> tuple[str, ...]:
    ready, keys = condition(tenant, "Ready"), at(tenant, "status", "keys")
    limits = ("requestsPerMinute", "tokensPerMinute", "concurrentRequests")
    row = (
        name_of(tenant),
        str(ready.get("status") or "Unknown"),
        str(len(items_at(tenant, "spec", "keys")) if keys is None else keys),
        *(str(at(tenant, "spec", "limits", name) or "unlimited") for name in limits),
        str(at(tenant, "status", "models") or 0),
    )
    if not wide:
        return row
    return (*row, ", ".join(at(tenant, "spec", "namespaces") or ()) or "-", str(ready.get("message") or "-"))


def _id(device: Object) -> str:
    return str(device.get("id") or "")


def _free(device: Object) -> str:
    try:
        return as_quantity(parse_bytes(device.get("memory")) - parse_bytes(device.get("reserved")))
    except ValueError:  # nobody has said so yet
        return "-"


def _age(item: Object, now_s: float) -> str:
    made = instant(at(item, "metadata", "creationTimestamp"))
    return "-" if made is None else show_seconds(max(0.0, now_s - made))


def without_noise(items: Sequence[Object]) -> list[Object]:
    """For JSON and YAML: without what only the API server needs."""
    noise = ("managedFields", "selfLink")
    return [
        {**item, "metadata": {name: value for name, value in item["metadata"].items() if name not in noise}}
        for item in items
    ]
