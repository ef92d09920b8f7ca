"""How many gateways the chart asks for while an autoscaler decides it: as many as there are, so that none goes."""

from pathlib import Path

import pytest
from tests.builders.api_server import DEPLOYMENTS, ApiServer, Object
from tests.builders.chart import one, rendered
from tests.golden_chart.situations import NO_HELM, has_helm

pytestmark = pytest.mark.skipif(not has_helm(), reason=NO_HELM)

AUTOSCALED = ("--set", "gateway.autoscaling.enabled=true")
LIST = {
    "kind": "APIResourceList",
    "groupVersion": "apps/v1",
    "resources": [{"name": "deployments", "namespaced": True, "kind": "Deployment", "verbs": ["get"]}],
}


def gateways(*replicas: int) -> list[Object]:
    return [DEPLOYMENTS.new("cotenant-gateway", "cotenant-system", spec={"replicas": count}) for count in replicas]


def asked_for(folder: Path, live: list[Object], *values: str) -> int | None:
    """What `helm upgrade` would send to a cluster with these gateways."""
    with ApiServer(*live, guarded=False) as api:
        api.objects["/apis/apps/v1"] = LIST
        config = str(api.kubeconfig(folder))
        found = rendered("--dry-run=server", "--kubeconfig", config, *values)
    replicas: int | None = one(found, "Deployment", "cotenant-gateway")["spec"].get("replicas")
    return replicas


def test_switching_the_autoscaler_on_leaves_as_many_gateways_as_there_are(tmp_path: Path) -> None:
    assert asked_for(tmp_path, gateways(5), *AUTOSCALED) == 5


def test_the_first_install_leaves_it_to_the_autoscaler(tmp_path: Path) -> None:
    assert asked_for(tmp_path, [], *AUTOSCALED) is None


def test_without_an_autoscaler_the_value_counts(tmp_path: Path) -> None:
    assert asked_for(tmp_path, gateways(5), "--set", "gateway.replicas=3") == 3


def test_who_renders_without_a_cluster_sets_no_number() -> None:
    assert "replicas" not in one(rendered(*AUTOSCALED), "Deployment", "cotenant-gateway")["spec"]
