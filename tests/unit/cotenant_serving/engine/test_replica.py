"""The Serve wrapper's options are ones that this Ray accepts."""

import pytest
from tests.builders.engine import echo_args

# Ray's own modules use pydantic in a way that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_serve_accepts_the_options_and_keeps_them() -> None:
    from cotenant_serving.engine.replica import EngineReplica, deployment_options

    options = deployment_options(echo_args(app="echo-1-0"), resources={"share_cpu": 0.25}, num_gpus=0.0)
    deployment = EngineReplica.options(**options)
    assert deployment.name == "echo-1-0"
    assert deployment.num_replicas == 1
    assert deployment.ray_actor_options["resources"] == {"share_cpu": 0.25}
    assert deployment.ray_actor_options["num_cpus"] == 0.01


def test_a_share_of_a_gpu_is_asked_for() -> None:
    from cotenant_serving.engine.replica import deployment_options

    options = deployment_options(echo_args(), resources={}, num_gpus=0.15)
    assert options["ray_actor_options"]["num_gpus"] == 0.15
