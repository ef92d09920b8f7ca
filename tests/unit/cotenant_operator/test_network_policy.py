"""A RayCluster's own NetworkPolicy."""

from tests.builders.chart import Endpoint, may_reach

from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.render.network_policy import render_network_policy

ONE = render_network_policy("shared", OperatorSettings(), "shared-1", uid="u-1")


def pod(cluster: str) -> Endpoint:
    return Endpoint({"ray.io/cluster": cluster})


def test_only_the_pods_of_one_raycluster_reach_each_other() -> None:
    assert may_reach([ONE], pod("shared-1"), pod("shared-1"), 6379)
    assert not may_reach([ONE], pod("shared-2"), pod("shared-1"), 6379)
    assert not may_reach([ONE], Endpoint({}), pod("shared-1"), 8265)


def test_it_goes_with_its_raycluster() -> None:
    (owner,) = ONE["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("RayCluster", "shared-1", "u-1")
