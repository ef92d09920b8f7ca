"""What objects say of themselves in the situations of docs/conditions.md: condition, reason, message, columns."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders.kube import Kube, Object
from tests.builders.release import NAMESPACE, Release
from tests.builders.situations import Said, Situation
from tests.builders.up import API, echo, keys, model, pool, tenant

DOCS = Path(__file__).parents[2] / "docs"
NO_NODE = "no-node-has-it"
GIB = "1Gi"
SMALL = {"memory": "256Mi"}


def group(name: str, **fields: object) -> Object:
    return {"name": name, "device": "cpu", "memory": GIB, "max": 1, **fields}


def another_pool(name: str, *groups: Object, **spec: object) -> Object:
    found = pool(*groups)
    found["metadata"]["name"] = name
    found["spec"].update(spec)
    return found


def keyless(name: str, *references: tuple[str, str], namespaces: tuple[str, ...] = ()) -> Object:
    spec = {
        "namespaces": list(namespaces),
        "keys": [{"secretRef": {"name": secret, "key": key}} for secret, key in references],
    }
    return {"apiVersion": API, "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


def secret(name: str, **values: str) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": values}


CARDS = {"memory": "512Mi", "resource": "nvidia.com/mig-3g.40gb", "sharing": "mig"}
OBJECTS: tuple[Object, ...] = (
    pool(group("cpu"), group("cards", **CARDS)),
    another_pool("unschedulable", group("cpu", nodeSelector={"example.com/none": NO_NODE})),
    another_pool(
        "headless", group("cpu"), head={"nodeSelector": {"example.com/none": NO_NODE}}, namespaces=["search"]
    ),
    keys("search", "ads"),
    tenant("search", namespaces=["search", "late"]),
    tenant("ads"),
    echo("warm", gpu=SMALL, replicas={"min": 1}),
    echo("cold", gpu=SMALL),
    echo("huge", gpu={"memory": "64Gi"}),
    echo("sliced", gpu={"mig": "7g.80gb"}),
    echo("carded", gpu={"mig": "3g.40gb"}, replicas={"min": 1}),
    model("lost", model="file:///nowhere/at/all"),
    model("pooled", task="echo", pool="nowhere"),
    model("kept-out", namespace="ads", task="echo", pool="headless"),
    model("waits", task="echo", pool="unschedulable", replicas={"min": 1}, gpu=SMALL),
    model("early", task="echo", pool="headless", replicas={"min": 1}, gpu=SMALL),
    echo("unseen", namespace="unbound", gpu=SMALL),
    keyless("keyless", namespaces=("unbound",)),
    keyless("forgetful", ("nowhere", "token")),
    secret("unusable", token="two words"),
    keyless("unusable", ("unusable", "token")),
    keyless("mistaken", ("lonely", "tokne")),
    secret("shared", token="ct-shared-0123456789abcdef0123456789abcdef"),
    keyless("sharer", ("shared", "token")),
    keyless("other-sharer", ("shared", "token")),
    secret("lonely", token="ct-lonely-0123456789abcdef0123456789abcdef"),
    keyless("lonely", ("lonely", "token")),
)
LATER = (
    echo("warm", namespace="late", gpu=SMALL),
    echo("slow", gpu=SMALL, replicas={"min": 1}, loadSeconds=3600),
    echo("greedy", gpu={"memory": "1000Mi"}, replicas={"min": 1}),
)
"""Of a name that is taken; of a load that holds up all others on its device; for room that is taken."""


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str]) -> Release:
    for name in ("search", "ads", "unbound", "late"):
        namespaces(name)
    release.install({"defaultPool": {"enabled": False}})
    kube.apply(*OBJECTS)
    kube.until(lambda: not SITUATIONS[0].differs(kube), SITUATIONS[0].name, limit_s=600)
    kube.apply(*LATER)
    return release


FITS = "gets 256 MiB on group cpu or cards; needs 224 MiB: runtime 224 MiB"
IDLE = "no engine; the first request wakes one"
NO_CARD = (
    "needs nvidia.com/mig-3g.40gb (group cards), and no node of the cluster has any; nodes have: …; partition a card "
    "into 3g.40gb and run NVIDIA's device plugin with MIG strategy mixed, or ask for spec.gpu.memory on a group that "
    "nodes have; it goes on by itself once a node advertises it"
)
UNSCHEDULABLE = "pod …: Unschedulable: …; it waits for a node with room: free one, add one, or lower max"
KEY_SHARED = (
    "tenants other-sharer and sharer have the same key, so nobody could tell them apart; it works for neither: give "
    "each its own (make one with `openssl rand -hex 32`)"
)
MAKE_KEY = f"make one: kubectl -n {NAMESPACE} create secret generic … --from-literal=token=$(openssl rand -hex 32)"


def of_model(name: str, object_: str, *said: Said, where: str = "search", **columns: str) -> Situation:
    return Situation(name, "ModelDeployment", object_, said, where, columns)


def of_pool(name: str, object_: str, *said: Said, **columns: str) -> Situation:
    return Situation(name, "GPUPool", object_, said, columns=columns)


def of_tenant(name: str, object_: str, *said: Said, **columns: str) -> Situation:
    return Situation(name, "Tenant", object_, said, columns=columns)


def refused(name: str, object_: str, reason: str, message: str, where: str = "search") -> Situation:
    """Nothing is made of it, and each condition says why."""
    accepted, ready = Said("Accepted", "False", reason, message), Said("Ready", "False", reason, message)
    return of_model(name, object_, accepted, ready, where=where, Ready="False", Reason=reason, Replicas="0/0")


def hindered(name: str, object_: str, reason: str, message: str) -> Situation:
    """Accepted, and something else than its spec keeps it from running."""
    said = [Said(type_, "False", reason, message) for type_ in ("Placed", "Loaded", "Ready")]
    return of_model(name, object_, Said("Accepted", "True", "Fits"), *said, Ready="False", Reason=reason)


SITUATIONS = (
    of_model(
        "a model that is kept warm answers",
        "warm",
        Said("Accepted", "True", "Fits", FITS),
        Said("Cached", "True", "Loaded", ""),
        Said("Placed", "True", "Placed", "…/cpu/0"),
        Said("Loaded", "True", "Loaded", "1 of 1 engines"),
        Said("Ready", "True", "Ready", "1 engine answers"),
        Ready="True",
        Reason="Ready",
        Replicas="1/1",
        Cached="True",
        GPU="256Mi",
    ),
    of_model(
        "a model that nobody asks is cold",
        "cold",
        Said("Accepted", "True", "Fits", FITS),
        Said("Cached", "True", "NoFiles", ""),
        Said("Placed", "False", "Idle", IDLE),
        Said("Loaded", "False", "Idle", IDLE),
        Said("Ready", "False", "Idle", IDLE),
        Ready="False",
        Reason="Idle",
        Replicas="0/0",
    ),
    of_model(
        "a model that loads",
        "slow",
        Said("Placed", "True", "Placed", "…/cpu/0"),
        Said("Loaded", "False", "Loading", "…"),
        Said("Ready", "False", "Loading", "search.slow-… on …/cpu/0: loading …"),
        Ready="False",
        Reason="Loading",
        Replicas="0/1",
    ),
    hindered("a model for which there is no room", "greedy", "NoRoom", "…"),
    refused(
        "a model larger than any device",
        "huge",
        "DoesNotFit",
        "needs …; asked gpu.memory 64 GiB; the largest share of pool default is 1 GiB on group cpu; …",
    ),
    refused(
        "a model for a MIG profile that its pool has not",
        "sliced",
        "DoesNotFit",
        "asked gpu.mig 7g.80gb; pool default has MIG profiles 3g.40gb; set one of them, or gpu.memory",
    ),
    hindered("a model for a kind of GPU that no node has", "carded", "NoNodeWithResource", NO_CARD),
    refused("a model without files", "lost", "ModelNotFound", "…/nowhere/at/all…"),
    refused(
        "a model of no pool",
        "pooled",
        "PoolNotFound",
        "there is no pool 'nowhere'; known: default, headless, unschedulable",
    ),
    refused(
        "a model in a pool that is not for its namespace",
        "kept-out",
        "NotAllowed",
        "namespace 'ads' may not place models in pool 'headless'; allowed: search; add it to spec.namespaces of the "
        "GPUPool",
        where="ads",
    ),
    hindered("a model whose pod no node takes", "waits", "PodPending", UNSCHEDULABLE),
    hindered("a model of a pool without a head", "early", "PodPending", UNSCHEDULABLE),
    of_model(
        "a model whose name another one had first",
        "warm",
        Said(
            "Accepted",
            "True",
            "NameTaken",
            FITS + "; for tenant search the bare name 'warm' means an older model of another namespace: call this "
            "one 'late/warm', or give it another name",
        ),
        Said("Ready", "False", "Idle", IDLE),
        where="late",
    ),
    of_pool(
        "a pool at work",
        "default",
        Said("Accepted", "True", "Valid", "2 worker groups"),
        Said("KubeRayReady", "True", "KubeRayWorks", ""),
        Said("ConductorReady", "True", "Answers", "that of RayCluster default-… answers"),
        Said("Rolling", "False", "Settled", ""),
        Said("Ready", "True", "Ready", "… of … models are accepted; " + UNSCHEDULABLE),
        Ready="True",
        Reason="Ready",
        Pods="1/2",
    ),
    of_pool(
        "a pool whose head no node takes",
        "headless",
        Said("Accepted", "True", "Valid", "1 worker group"),
        Said("KubeRayReady", "True", "KubeRayWorks", ""),
        Said("ConductorReady", "False", "PodPending", UNSCHEDULABLE),
        Said("Ready", "False", "PodPending", UNSCHEDULABLE),
        Ready="False",
        Reason="PodPending",
    ),
    of_pool(
        "a pool whose workers no node takes",
        "unschedulable",
        Said("ConductorReady", "True", "Answers", "that of RayCluster unschedulable-… answers"),
        Said("Ready", "True", "Ready", "1 of 1 models are accepted; " + UNSCHEDULABLE),
        Pods="0/1",
    ),
    of_tenant(
        "a tenant with a key and models",
        "search",
        Said("Accepted", "True", "Valid", "namespaces: search, late"),
        Said("Ready", "True", "Ready", "1 key, … models"),
        Keys="1",
    ),
    of_tenant(
        "a tenant without keys",
        "keyless",
        Said("Ready", "False", "NoKeys", "has no spec.keys, so nobody can call in its name; " + MAKE_KEY),
        Ready="False",
        Reason="NoKeys",
        Keys="0",
        Models="1",
    ),
    of_tenant(
        "a tenant whose Secret is missing",
        "forgetful",
        Said("Ready", "False", "KeyMissing", f"Secret 'nowhere' is not in namespace {NAMESPACE}; " + MAKE_KEY),
        Reason="KeyMissing",
    ),
    of_tenant(
        "a tenant whose Secret has another key",
        "mistaken",
        Said("Ready", "False", "KeyMissing", "Secret 'lonely' has no key 'tokne'; it has: token"),
        Reason="KeyMissing",
    ),
    of_tenant(
        "a tenant whose key no header can carry",
        "unusable",
        Said(
            "Ready",
            "False",
            "KeyUnusable",
            "Secret 'unusable' holds a key with characters that no HTTP header can carry; make one with "
            "`openssl rand -hex 32`",
        ),
        Reason="KeyUnusable",
    ),
    of_tenant(
        "a tenant with another's key", "sharer", Said("Ready", "False", "KeyShared", KEY_SHARED), Reason="KeyShared"
    ),
    of_tenant(
        "a tenant that sees no model",
        "lonely",
        Said("Accepted", "True", "Valid", "namespaces: none"),
        Said("Ready", "True", "NoModels", "1 key, and no model that it sees"),
        Models="0",
    ),
)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_what_is_said(installed: Release, kube: Kube, situation: Situation):
    kube.until(
        lambda: not situation.differs(kube),
        situation.name,
        limit_s=300,
        explain=lambda: situation.differs(kube) + "\n" + kube.story(),
    )


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_what_is_said_is_documented(situation: Situation):
    """Each reason has a row of its own: its cause, and what to do."""
    rows = [line for name in ("conditions.md", "errors.md") for line in (DOCS / name).read_text().splitlines()]
    for said in situation.said:
        assert sum(row.startswith(f"| `{said.reason}` |") for row in rows) == 1, said.reason
