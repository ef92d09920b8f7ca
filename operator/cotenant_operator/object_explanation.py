"""`cotenant explain model NAME` in a cluster: why a model is where it is, from its status alone. Pure."""

from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import at, condition, full_name, instant, items_at
from cotenant_operator.object_reports import CONDITIONS, replicas
from cotenant_operator.quantity import show_seconds

FAILED = frozenset({"LoadFailed", "EngineDied", "MemoryExceeded", "DoesNotFit", "PoolNotFound", "NotAllowed"})


def explain_object(model: Object, *, now_s: float, wide: bool = False) -> list[str]:
    """What it is, its conditions in their order, its engines, then where to look next."""
    lines = [_headline(model)]
    lines += [f"  {line}" for line in at(model, "status", "explanation") or ()]
    if outdated := _outdated(model):
        lines.append(f"  {outdated}")
    lines += [f"  {line}" for line in _about(model)]
    lines += [f"  {line}" for line in _conditions(model, now_s=now_s, wide=wide)]
    for place in items_at(model, "status", "placements"):
        lines.append(f"  {_placement(place)}")
    lines.append(f"  more: cotenant logs {full_name(model)}, kubectl describe mdep {_kubectl(model)}")
    return lines


def state_of(model: Object) -> str:
    """`ready`, `waiting` or `failed`: how it is coloured."""
    ready = condition(model, "Ready")
    if ready.get("status") == "True":
        return "ready"
    return "failed" if ready.get("reason") in FAILED else "waiting" if ready else "unknown"


def _headline(model: Object) -> str:
    ready = condition(model, "Ready")
    if not ready:
        return (
            f"{full_name(model)}: Unknown (NotSeenYet): no operator has looked at it; "
            "`cotenant doctor` says whether one runs"
        )
    said = f"{full_name(model)}: {'ready' if ready.get('status') == 'True' else 'not ready'} ({ready.get('reason')})"
    return said + (f": {ready['message']}" if ready.get("message") else "")


def _outdated(model: Object) -> str:
    generation, observed = at(model, "metadata", "generation"), at(model, "status", "observedGeneration")
    if not generation or not observed or generation == observed:
        return ""
    return f"edited since: this is about generation {observed}, its YAML is at {generation}"


def _about(model: Object) -> list[str]:
    status = "status"
    lines = [f"pool {at(model, 'spec', 'pool') or 'default'}, {replicas(model)} engines ready"]
    if source := at(model, status, "source"):
        lines.append(f"model {source}, task {at(model, status, 'task') or 'unknown'}")
    if share := at(model, status, "gpu", "share"):
        lines.append(f"share {share} of a device of group {' or '.join(at(model, status, 'gpu', 'groups') or ())}")
    revision, target = at(model, status, "revision"), at(model, status, "targetRevision")
    if target and target != revision:
        lines.append(f"revision {revision or 'none'} serves, {target} is on its way")
    if url := at(model, status, "url"):
        lines.append(f"url {url}")
    return lines


def _conditions(model: Object, *, now_s: float, wide: bool) -> list[str]:
    """Conditions that say the same share a line; what the headline has said is not said again."""
    ready = condition(model, "Ready")
    groups: list[list[Object]] = []
    for item in filter(None, (condition(model, type) for type in CONDITIONS)):
        if groups and _says(groups[-1][0]) == _says(item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return [_group(group, ready, now_s=now_s, wide=wide) for group in groups]


def _group(group: list[Object], ready: Object, *, now_s: float, wide: bool) -> str:
    first = group[0]
    line = f"{', '.join(str(item.get('type')) for item in group)}: {first.get('status')}"
    if first.get("reason") != ready.get("reason"):
        line += f" ({first.get('reason')})"
    since = instant(first.get("lastTransitionTime"))
    if wide and since is not None:
        line += f" for {show_seconds(max(0.0, now_s - since))}"
    message = first.get("message") or ""
    return line if message in ("", ready.get("message")) else f"{line}: {message}"


def _says(item: Object) -> tuple[object, ...]:
    return item.get("status"), item.get("reason"), item.get("message")


def _placement(place: Object) -> str:
    line = f"engine {place.get('engine', '?')}: {place.get('state', 'unknown')} on {place.get('device', '?')}"
    return ", ".join([line, *(f"{name} {place[name]}" for name in ("share", "node", "pod") if place.get(name))])


def _kubectl(model: Object) -> str:
    namespace, _, name = full_name(model).rpartition("/")
    return f"{name} -n {namespace}"
