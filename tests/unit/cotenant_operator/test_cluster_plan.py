"""What applying files would change in a cluster."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cotenant_operator.cluster_plan import changes, concerned, in_namespace, laid_over, pool_effect
from cotenant_operator.manifests import load
from cotenant_operator.objects import Manifests, World
from cotenant_operator.plan import plan
from cotenant_operator.planned import Plan
from cotenant_operator.spec import GPUPool

HEAD = "apiVersion: cotenant.dev/v1alpha1\n"
ECHO = HEAD + "kind: ModelDeployment\nmetadata: {{name: {name}}}\nspec: {{task: echo, {more}}}\n---\n"
POOL = HEAD + "kind: GPUPool\nmetadata: {{name: default}}\nspec: {{workers: [{workers}]}}\n---\n"
TENANT = HEAD + "kind: Tenant\nmetadata: {{name: {name}}}\nspec: {{namespaces: [team-a], {more}}}\n---\n"
CPU = "{name: cpu, device: cpu, memory: 1Gi}"


def echo(name: str = "chat", more: str = "replicas: {max: 1}") -> str:
    return ECHO.format(name=name, more=more)


def pool(workers: str = CPU) -> str:
    return POOL.format(workers=workers)


def tenant(name: str = "search", more: str = "") -> str:
    return TENANT.format(name=name, more=more)


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(*objects: str) -> Manifests:
        path = tmp_path / "it.yaml"
        path.write_text("".join(objects))
        return in_namespace(load([path]), "team-a")

    return read


def plans(files: Manifests, cluster: Manifests) -> tuple[Plan, Plan]:
    cluster = replace(cluster, namespace="cotenant-system")
    return (
        plan(World(laid_over(cluster, Manifests())), {}),
        plan(World(laid_over(cluster, files)), {}),
    )


def fates(files: Manifests, cluster: Manifests) -> dict[str, tuple[str, str]]:
    found = changes(files, cluster, *plans(files, cluster))
    return {change.name: (change.fate, change.effect) for change in found}


def test_what_is_as_it_was_changes_nothing(read: Any) -> None:
    both = read(pool(), tenant(), echo())

    assert set(fates(both, both).values()) == {("unchanged", "nothing")}


def test_models_that_name_no_namespace_go_where_kubectl_would_put_them(read: Any) -> None:
    named = echo().replace("{name: chat}", "{name: other, namespace: team-b}")
    found = fates(read(pool(), echo(), named), read(pool()))

    assert {"team-a/chat", "team-b/other"} <= set(found)
    assert found["team-a/chat"] == ("new", "its first engine starts with the first request")


@pytest.mark.parametrize(
    ("more", "effect"),
    [
        ("replicas: {max: 3}", "in place: no engine is replaced"),
        ("engine: {concurrency: 2}", "a new revision: the old one serves until an engine of the new one is ready"),
        ("gpu: {memory: 9Gi}", "refused: what ran before serves on"),
        ("pool: another", "refused by the API server: spec.pool cannot be changed (it is default)"),
    ],
)
def test_an_edit_of_a_model_says_whether_engines_are_replaced(read: Any, more: str, effect: str) -> None:
    fate, said = fates(read(echo(more=more)), read(pool(), echo()))["team-a/chat"]
    assert (fate, said[: len(effect)]) == ("edited", effect)


@pytest.mark.parametrize(
    ("workers", "effect"),
    [
        ("{name: cpu, device: cpu, memory: 1Gi, max: 5}", "in place: no pod is replaced"),
        (f"{CPU}, {{name: more, device: cpu, memory: 2Gi}}", "in place: group more is added"),
        ("{name: cpu, device: cpu, memory: 1Gi, nodeSelector: {a: b}}", "needs new pods (group cpu)"),
        ("{name: other, device: cpu, memory: 1Gi}", "needs new pods (group cpu is gone)"),
    ],
)
def test_an_edit_of_a_pool_says_whether_it_needs_new_pods(read: Any, workers: str, effect: str) -> None:
    (old,), (new,) = read(pool()).pools, read(pool(workers)).pools
    assert pool_effect(old, new).startswith(effect)


def test_a_new_pool_gets_a_raycluster(read: Any) -> None:
    new: GPUPool = read(pool()).pools[0]
    assert pool_effect(None, new) == "a RayCluster is made for it"


def test_models_of_others_are_shown_when_an_edit_of_their_pool_refuses_them(read: Any) -> None:
    cluster = read(pool(), echo("small", "gpu: {memory: 512Mi}"), echo("large", "gpu: {memory: 1Gi}"))
    files = read(pool("{name: cpu, device: cpu, memory: 600Mi}"))
    shown = concerned(files, *plans(files, cluster))

    assert {model.name: model.refusal is not None for model in shown.models} == {"team-a/large": True}


def test_keys_of_secrets_that_are_not_read_are_no_mistake(read: Any) -> None:
    keys = "keys: [{secretRef: {name: search-key, key: token}}, {secretRef: {name: search-key, key: other}}]"
    files = read(tenant(more=keys), echo())
    shown = concerned(files, *plans(files, read(pool(), tenant("ads", keys.replace("search", "ads")))))

    assert (shown.errors, shown.warnings) == ((), ())
    assert {item.name: item.models for item in shown.tenants} == {
        "search": ("team-a/chat",),
        "ads": ("team-a/chat",),
    }


def test_what_the_cluster_was_warned_of_before_is_not_told_again(read: Any) -> None:
    cluster = read(pool(), tenant("ads"), echo("old", "tenants: [nobody]"))
    files = read(echo("new", "tenants: [noone]"))
    shown = concerned(files, *plans(files, cluster))

    assert [warning for warning in shown.warnings if "nobody" in warning] == []
    assert len([warning for warning in shown.warnings if "noone" in warning]) == 1
