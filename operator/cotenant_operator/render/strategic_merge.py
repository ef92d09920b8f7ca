"""Strategic merge patch of a pod template, by Kubernetes' rules for pods. Pure.

Maps are merged, null removes, lists of things with a name are merged by it, every other list is replaced.
`$patch: delete` removes an item of such a list (or empties a map), `$patch: replace` takes a map, or the list whose
item it is, as it stands.
Two rules are kinder than kubectl's: an environment variable is replaced as a whole, and so is a volume that comes
from elsewhere now, for two sources at once are never valid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
    "schedulingGates": "name",
}
"""List → the field that tells its items apart. Tolerations, args and commands have none: they are replaced."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` laid over it; neither is changed."""
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    merged = dict(base)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge_field(name, merged.get(name), value)
    return merged


def _merge_field(name: str, base: Any, patch: Any) -> Any:
    if isinstance(patch, Mapping):
        return merge(base if isinstance(base, Mapping) else {}, patch)
    key = _KEYS.get(name)
    if key is None or not _is_list(patch) or not _is_list(base or []):
        return patch
    return _merge_items(name, key, base or [], patch)


def _merge_items(name: str, key: str, base: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    """Items keep their order; those that are new come last."""
    merged = [] if {"$patch": "replace"} in patch else list(base)
    for item in patch:
        if not isinstance(item, Mapping) or key not in item:
            continue  # cannot be told apart: a field that Kubernetes requires is missing
        place = next((index for index, old in enumerate(merged) if old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if place is not None:
                del merged[place]
        elif place is None:
            merged.append(merge({}, item))
        else:
            merged[place] = merge({} if _replaced(name, merged[place], item) else merged[place], item)
    return merged


def _replaced(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return name == "env" or (name == "volumes" and old.keys() != new.keys())


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
