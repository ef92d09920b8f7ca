"""Who may reach whom, by the chart's NetworkPolicies. Computed from the rendered policies: not every network enforces
them, so a cluster would prove less."""

import pytest
from tests.builders.chart import Endpoint, Object, may_reach, rendered
from tests.builders.operator import pool as pool_of
from tests.golden_chart.situations import NO_HELM, has_helm

from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.cache_parts import render_cache_policy
from cotenant_operator.render.network_policy import render_network_policy

pytestmark = pytest.mark.skipif(not has_helm(), reason=NO_HELM)


def ours(component: str) -> Endpoint:
    names = {"app.kubernetes.io/name": "cotenant", "app.kubernetes.io/instance": "cotenant"}
    return Endpoint({**names, "app.kubernetes.io/component": component})


def ray(cluster: str, node_type: str) -> Endpoint:
    return Endpoint({"ray.io/cluster": cluster, "ray.io/node-type": node_type})


OPERATOR, GATEWAY, TEST = ours("operator"), ours("gateway"), ours("test")
HEAD, WORKER = ray("default-1", "head"), ray("default-1", "worker")
CACHE = Endpoint({**WORKER.labels, "cotenant.dev/cache": "default", "cotenant.dev/pool": "default"})
"""A worker pod has its pool's cache beside it."""
AGENT, OTHER_AGENT = (
    Endpoint({"cotenant.dev/cache": pool, "cotenant.dev/pool": pool, "app.kubernetes.io/component": "cache"})
    for pool in ("default", "other")
)
OTHER_HEAD, OTHER_WORKER = ray("other-1", "head"), ray("other-1", "worker")
KUBERAY = Endpoint({"app.kubernetes.io/component": "kuberay-operator"}, "kuberay")
CLIENT = Endpoint({"app": "shop"}, "shop")
PROMETHEUS = Endpoint({"app": "prometheus"}, "monitoring", {"kubernetes.io/metadata.name": "monitoring"})
NEIGHBOUR = Endpoint({"app": "someone-else"})
"""In our own namespace."""
API_SERVER, HUB, DNS = (Endpoint({}, "outside"), Endpoint({}, "outside"), Endpoint({"k8s-app": "dns"}, "kube-system"))

FLOWS = [
    ("clients call gateways", CLIENT, GATEWAY, 8080),
    ("`helm test` calls gateways", TEST, GATEWAY, 8080),
    ("gateways follow the operator", GATEWAY, OPERATOR, 8600),
    ("gateways follow conductors", GATEWAY, HEAD, 8700),
    ("gateways call engines", GATEWAY, WORKER, 8800),
    ("gateways call engines on the last port", GATEWAY, WORKER, 8899),
    ("the operator tells conductors", OPERATOR, HEAD, 8700),
    ("the operator asks the API server", OPERATOR, API_SERVER, 6443),
    ("the operator reads models' headers", OPERATOR, HUB, 443),
    ("KubeRay asks Ray's dashboard", KUBERAY, HEAD, 8265),
    ("gateways call engines of every pool", GATEWAY, OTHER_WORKER, 8800),
    ("workers talk to each other", WORKER, WORKER, 10_002),
    ("workers join their head", WORKER, HEAD, 6379),
    ("the head talks to its workers", HEAD, WORKER, 10_002),
    ("engines talk to their conductor", WORKER, HEAD, 8700),
    ("Ray's autoscaler asks the API server", HEAD, API_SERVER, 443),
    ("engines fetch weights", WORKER, HUB, 443),
    ("agents fetch weights", AGENT, HUB, 443),
    ("caches ask agents on other nodes", CACHE, AGENT, 8790),
    ("agents ask caches on other nodes", AGENT, CACHE, 8790),
]
REFUSED = [
    ("clients do not reach engines", CLIENT, WORKER, 8800),
    ("clients do not reach conductors", CLIENT, HEAD, 8700),
    ("clients do not reach Ray's dashboard", CLIENT, HEAD, 8265),
    ("clients do not reach the operator", CLIENT, OPERATOR, 8600),
    ("clients do not read metrics", CLIENT, GATEWAY, 8081),
    ("neighbours in the namespace do not reach engines", NEIGHBOUR, WORKER, 8800),
    ("neighbours in the namespace do not reach Ray", NEIGHBOUR, HEAD, 6379),
    ("neighbours in the namespace do not reach the operator", NEIGHBOUR, OPERATOR, 8600),
    ("KubeRay does not reach conductors", KUBERAY, HEAD, 8700),
    ("KubeRay does not reach engines", KUBERAY, WORKER, 8800),
    ("gateways do not reach Ray's dashboard", GATEWAY, HEAD, 8265),
    ("gateways do not reach Ray's GCS", GATEWAY, HEAD, 6379),
    ("gateways reach no more than the engines' ports", GATEWAY, WORKER, 8900),
    ("gateways do not reach the API server", GATEWAY, API_SERVER, 443),
    ("gateways do not reach strangers", GATEWAY, CLIENT, 8080),
    ("the operator does not reach engines", OPERATOR, WORKER, 8800),
    ("engines of one pool do not reach those of another", WORKER, OTHER_WORKER, 8800),
    ("workers of one pool do not join another's head", WORKER, OTHER_HEAD, 6379),
    ("workers of one pool do not reach another's conductor", OTHER_WORKER, HEAD, 8700),
    ("engines do not reach the operator", WORKER, OPERATOR, 8600),
    ("engines do not read gateways' metrics", WORKER, GATEWAY, 8081),
    ("engines do not reach strangers", WORKER, CLIENT, 8080),
    ("caches of another pool do not ask", OTHER_AGENT, AGENT, 8790),
    ("neighbours in the namespace do not reach caches", NEIGHBOUR, AGENT, 8790),
    ("clients do not reach caches", CLIENT, CACHE, 8790),
    ("nobody scrapes what was not opened", PROMETHEUS, OPERATOR, 8600),
]


@pytest.fixture(scope="module")
def default() -> list[Object]:
    """The chart's policies, and those that the operator makes for the RayClusters of two pools."""
    return everything()


def everything(*arguments: str) -> list[Object]:
    own = [render_network_policy(pool, OperatorSettings(), f"{pool}-1") for pool in ("default", "other")]
    caches = [render_cache_policy(pool_of(name=pool), OperatorSettings(), uid="u") for pool in ("default", "other")]
    return [*rendered(*arguments), *own, *caches]


@pytest.mark.parametrize(("source", "target", "port"), [flow[1:] for flow in FLOWS], ids=[flow[0] for flow in FLOWS])
def test_what_has_to_talk_may(default: list[Object], source: Endpoint, target: Endpoint, port: int) -> None:
    assert may_reach(default, source, target, port)


@pytest.mark.parametrize(
    ("source", "target", "port"), [flow[1:] for flow in REFUSED], ids=[flow[0] for flow in REFUSED]
)
def test_nothing_else_may(default: list[Object], source: Endpoint, target: Endpoint, port: int) -> None:
    assert not may_reach(default, source, target, port)


@pytest.mark.parametrize("source", [OPERATOR, GATEWAY, HEAD, WORKER])
def test_every_pod_resolves_names(default: list[Object], source: Endpoint) -> None:
    assert may_reach(default, source, DNS, 53, "UDP")
    assert may_reach(default, source, DNS, 53)


def test_only_the_named_may_scrape() -> None:
    peer = '[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]'
    objects = everything("--set-json", f"networkPolicy.metricsFrom={peer}")
    assert may_reach(objects, PROMETHEUS, OPERATOR, 8600)
    assert may_reach(objects, PROMETHEUS, GATEWAY, 8081)
    assert may_reach(objects, PROMETHEUS, CACHE, 8790)
    assert may_reach(objects, PROMETHEUS, AGENT, 8790)
    assert not may_reach(objects, CLIENT, AGENT, 8790)
    assert not may_reach(objects, PROMETHEUS, AGENT, 8791)
    assert not may_reach(objects, CLIENT, GATEWAY, 8081)
    assert not may_reach(objects, CLIENT, OPERATOR, 8600)


def test_clients_may_be_named() -> None:
    objects = everything("--set-json", 'networkPolicy.gatewayFrom=[{"podSelector":{"matchLabels":{"app":"proxy"}}}]')
    assert may_reach(objects, Endpoint({"app": "proxy"}), GATEWAY, 8080)
    assert may_reach(objects, TEST, GATEWAY, 8080), "or `helm test` would say that nothing answers"
    assert not may_reach(objects, CLIENT, GATEWAY, 8080)
    assert not may_reach(objects, NEIGHBOUR, GATEWAY, 8080)


def test_what_pods_call_may_be_left_open() -> None:
    objects = everything("--set", "networkPolicy.egress.enabled=false")
    assert may_reach(objects, GATEWAY, CLIENT, 8080)
    assert may_reach(objects, WORKER, CLIENT, 8080)
    assert not may_reach(objects, CLIENT, WORKER, 8800)


def test_without_policies_everyone_reaches_everyone() -> None:
    """The operator is told so, too: test_chart.py."""
    objects = rendered("--set", "networkPolicy.enabled=false")
    assert may_reach(objects, CLIENT, WORKER, 8800)
