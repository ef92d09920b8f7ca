"""Which edit needs new pods: every field of a GPUPool and of the operator's settings, one by one."""

import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from cotenant_operator.cluster_names import raycluster_name
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.pool_template import PoolTemplate, compare, template_from_json
from cotenant_operator.render.raycluster import pool_template, render_raycluster, template_hash
from cotenant_operator.spec import GPUPool

HEAD, GROUP, ALL = "new pods: head", "new pods: group", "new pods: all"
IN_PLACE, NOTHING, ANOTHER = "in place", "no pod knows", "another object"

POOL: dict[str, Any] = {
    "metadata": {"name": "default"},
    "spec": {
        "workers": [
            {"name": "shared", "device": "cuda", "memory": "80Gi", "max": 8},
            {"name": "spare", "device": "cpu", "memory": "8Gi", "max": 2},
        ],
        "head": {"redis": {"address": "redis:6379", "secretRef": {"name": "redis", "key": "password"}}},
        "cache": {"hub": {"secretRef": {"name": "hub", "key": "token"}}},
    },
}

AFFINITY = {"nodeAffinity": {"x": []}}
PASSED_ON: dict[str, Any] = {
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "gpu"}],
    "affinity": AFFINITY,
    "runtimeClassName": "nvidia",
    "resources": {"requests": {"cpu": "3"}},
    "podTemplate": {"spec": {"priorityClassName": "high"}},
}
FIELDS: dict[str, tuple[Any, str]] = {
    "apiVersion": (None, NOTHING),
    "kind": (None, NOTHING),
    "metadata.name": ("another", ANOTHER),
    "metadata.labels": ({"a": "b"}, NOTHING),
    "metadata.annotations": ({"a": "b"}, NOTHING),
    "spec.namespaces": (["search"], NOTHING),
    "spec.workers.0.name": ("renamed", GROUP),
    "spec.workers.0.device": ("cpu", GROUP),
    "spec.workers.0.resource": ("example.com/gpu", GROUP),
    "spec.workers.0.memory": ("40Gi", NOTHING),  # how much of a card engines may use is the conductor's business
    "spec.workers.0.sharing": (None, NOTHING),
    "spec.workers.0.min": (1, IN_PLACE),
    "spec.workers.0.max": (9, IN_PLACE),
    **{f"spec.workers.0.{name}": (value, GROUP) for name, value in PASSED_ON.items()},
    "spec.head.redis.address": ("other:6379", HEAD),
    "spec.head.redis.secretRef.name": ("other", HEAD),
    "spec.head.redis.secretRef.key": ("other", HEAD),
    **{f"spec.head.{name}": (value, HEAD) for name, value in PASSED_ON.items()},
    "spec.cache.size": ("10Gi", GROUP),
    "spec.cache.path": ("/models", ALL),  # the conductor tells engines where
    "spec.cache.claimName": ("models", GROUP),
    "spec.cache.downloadRate": ("100Mi", GROUP),
    "spec.cache.verifyRate": ("10Mi", GROUP),
    "spec.cache.hub.endpoint": ("https://hub.example", GROUP),
    "spec.cache.hub.secretRef.name": ("other", GROUP),
    "spec.cache.hub.secretRef.key": ("other", GROUP),
    "spec.idleAfter": ("2m", IN_PLACE),
    "spec.queueName": ("team", IN_PLACE),
}
SIZES = {"requests": {"cpu": "7"}}
SETTINGS: dict[str, tuple[Any, str]] = {
    "namespace": ("other", HEAD),
    "gatewayService": ("other", NOTHING),
    "gatewayUrl": ("https://models.example", NOTHING),
    "image.name": ("example/serving:2", ALL),
    "image.pullPolicy": ("Never", ALL),
    "image.pullSecrets": (["registry"], ALL),
    "ray.version": ("2.61.0", HEAD),
    "ray.idleTimeout": ("90s", IN_PLACE),
    "resources.head.requests": (SIZES["requests"], HEAD),
    "resources.head.limits": (SIZES["requests"], HEAD),
    "resources.autoscaler.requests": (SIZES["requests"], HEAD),
    "resources.autoscaler.limits": (SIZES["requests"], HEAD),
    "resources.conductor.requests": (SIZES["requests"], HEAD),
    "resources.conductor.limits": (SIZES["requests"], HEAD),
    "resources.worker.requests": (SIZES["requests"], GROUP),
    "resources.worker.limits": (SIZES["requests"], GROUP),
    "resources.cache.requests": (SIZES["requests"], GROUP),
    "resources.cache.limits": (SIZES["requests"], GROUP),
    "extraEnv": ([{"name": "HTTPS_PROXY", "value": "http://proxy"}], ALL),
    "extraVolumes": ([{"name": "more", "emptyDir": {}}], ALL),
    "extraVolumeMounts": ([{"name": "more", "mountPath": "/more"}], ALL),
    "requestTimeout": ("20m", ALL),
    "defaultPool.enabled": (False, NOTHING),
    "defaultPool.memory": ("2Gi", NOTHING),
    "defaultPool.max": (5, NOTHING),
    **{
        f"timeouts.{name}": ("7s", NOTHING)
        for name in ("conductor", "conductorPoll", "resync", "debounce", "watchSilence", "rollDrain")
    },
    "cacheDir": ("/other", NOTHING),
    "networkPolicies": (False, NOTHING),
    "usageRetentionDays": (30, NOTHING),
}


def changed(value: Any, path: str, new: Any) -> Any:
    """A copy of plain values with `new` at `path`."""
    first, _, rest = path.partition(".")
    if isinstance(value, list):
        edited = new if not rest else changed(value[int(first)], rest, new)
        return [edited if str(index) == first else item for index, item in enumerate(value)]
    return {**value, first: changed(value.get(first, {}), rest, new) if rest else new}


def pool(value: dict[str, Any] = POOL) -> GPUPool:
    return GPUPool.model_validate(value)


def effect(before: tuple[GPUPool, OperatorSettings], after: tuple[GPUPool, OperatorSettings]) -> str:
    if before[0].metadata.name != after[0].metadata.name:
        return ANOTHER
    new_pods = compare(pool_template(*before), pool_template(*after)).new_pods
    if new_pods:
        groups = any(item.startswith("group") for item in new_pods)
        return {(True, True): ALL, (True, False): HEAD, (False, True): GROUP}["head" in new_pods, groups]
    return NOTHING if render_raycluster(*before, "name") == render_raycluster(*after, "name") else IN_PLACE


@pytest.mark.parametrize("field", [name for name, (value, _) in FIELDS.items() if value is not None])
def test_an_edit_of_a_pool_does_what_its_field_does(field: str) -> None:
    value, expected = FIELDS[field]
    settings = OperatorSettings()
    assert effect((pool(), settings), (pool(changed(POOL, field, value)), settings)) == expected


@pytest.mark.parametrize("field", SETTINGS)
def test_an_edit_of_the_settings_does_what_its_field_does(field: str) -> None:
    value, expected = SETTINGS[field]
    edited = OperatorSettings.model_validate(changed({}, field, value))
    assert effect((pool(), OperatorSettings()), (pool(), edited)) == expected


def test_no_field_is_forgotten() -> None:
    assert set(leaves(GPUPool)) == {name.replace(".0.", ".") for name in FIELDS}
    assert set(leaves(OperatorSettings)) == set(SETTINGS)


def test_the_memory_of_a_cpu_group_is_its_pods_size() -> None:
    edited = pool(changed(POOL, "spec.workers.1.memory", "16Gi"))
    assert effect((pool(), OperatorSettings()), (edited, OperatorSettings())) == GROUP


def test_sharing_changes_pods_only_by_the_resource_that_goes_with_it() -> None:
    slices = {"resource": "nvidia.com/mig-1g.10gb", "sharing": "mig"}
    edited = pool(changed(POOL, "spec.workers.0", {**POOL["spec"]["workers"][0], **slices}))
    assert effect((pool(), OperatorSettings()), (edited, OperatorSettings())) == GROUP


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_new_group_is_added_in_place_wherever_it_stands(place: int) -> None:
    workers = list(POOL["spec"]["workers"])
    workers.insert(place, {"name": "new", "device": "cuda", "memory": "80Gi"})
    before, after = (
        pool_template(p, OperatorSettings()) for p in (pool(), pool(changed(POOL, "spec.workers", workers)))
    )
    change = compare(before, after)
    assert (change.new_pods, change.new_groups) == ((), ("new",))


def test_the_order_of_groups_needs_no_pods() -> None:
    turned = pool(changed(POOL, "spec.workers", POOL["spec"]["workers"][::-1]))
    assert effect((pool(), OperatorSettings()), (turned, OperatorSettings())) == IN_PLACE
    assert template_hash(turned, OperatorSettings()) == template_hash(pool(), OperatorSettings())


def test_a_group_that_is_gone_needs_new_pods() -> None:
    """Its pods serve, and nobody but a roll can empty them without cutting a request."""
    fewer = pool(changed(POOL, "spec.workers", POOL["spec"]["workers"][:1]))
    change = compare(pool_template(pool(), OperatorSettings()), pool_template(fewer, OperatorSettings()))
    assert change.new_pods == ("group spare is gone",)


def test_pods_that_nobody_knows_are_replaced() -> None:
    assert compare(None, pool_template(pool(), OperatorSettings())).new_pods


def test_a_template_survives_its_annotation() -> None:
    template = pool_template(pool(), OperatorSettings())
    assert template_from_json(template.to_json()) == template
    assert render_raycluster(pool(), OperatorSettings(), "x")["metadata"]["annotations"] == {
        "cotenant.dev/template": template.to_json()
    }


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"head": 1, "groups": {}}', "nonsense"])
def test_an_annotation_that_somebody_edited_is_no_template(text: str) -> None:
    assert template_from_json(text) is None


def test_two_pools_never_share_a_name() -> None:
    other = pool(changed(POOL, "metadata.name", "r7b"))
    digits = pool(changed(POOL, "metadata.name", "7b"))
    names = {raycluster_name(p.metadata.name, template_hash(p, OperatorSettings())) for p in (other, digits)}
    assert len(names) == 2
    assert all(name.startswith("r7b-") for name in names)


def test_the_longest_name_fits_what_kuberay_makes_of_it() -> None:
    assert len(raycluster_name("9" * 40, "ffffffff")) <= 50


def test_a_name_that_is_taken_is_not_given_twice() -> None:
    first = raycluster_name("p", "ffffffff")
    second = raycluster_name("p", "ffffffff", [first])
    assert (first, second) == ("p-ffffffff", "p-00000000")
    assert raycluster_name("p", "ffffffff", [first, second]) == "p-00000001"


def test_a_hash_is_eight_hex_digits_whatever_the_template() -> None:
    assert int(PoolTemplate("a", {}).hash, 16) >= 0
    assert len(PoolTemplate("a", {"b": "c"}).hash) == 8


def leaves(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        full = f"{path}{field.alias or name}"
        inner = _model_in(field.annotation)
        if inner is None or full.endswith(("requests", "limits")):
            yield full
        else:
            yield from leaves(inner, f"{full}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union, tuple):
        return next((found for arg in typing.get_args(annotation) if (found := _model_in(arg))), None)
    return None
