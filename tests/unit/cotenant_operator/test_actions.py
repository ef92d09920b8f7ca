"""Whether an object is as it is wanted: fields of others are left alone, unless they change what ours mean."""

import pytest

from cotenant_operator.actions import covers

SERVICE = {
    "metadata": {"labels": {"app": "x"}},
    "spec": {"selector": {"ray.io/cluster": "a"}, "ports": [{"port": 1}]},
}


@pytest.mark.parametrize(
    "live",
    [
        SERVICE,
        {**SERVICE, "metadata": {"labels": {"app": "x", "team": "blue"}, "annotations": {"note": "mine"}}},
        {**SERVICE, "spec": {**SERVICE["spec"], "clusterIP": "10.0.0.1"}},
    ],
)
def test_more_fields_than_are_wanted_are_left_alone(live):
    assert covers(live, SERVICE)


@pytest.mark.parametrize(
    "spec",
    [
        {"selector": {"ray.io/cluster": "b"}},
        {"selector": {"ray.io/cluster": "a", "nobody": "has-it"}},
        {"ports": [{"port": 1}, {"port": 2}]},
        {"ports": [{"port": 2}]},
    ],
)
def test_what_means_something_else_than_is_wanted_is_written_again(spec):
    assert not covers({**SERVICE, "spec": {**SERVICE["spec"], **spec}}, SERVICE)


@pytest.mark.parametrize(
    ("wanted", "live", "same"),
    [
        ({"cpu": "0.1", "memory": "1024Mi"}, {"cpu": "100m", "memory": "1Gi"}, True),
        ({"cpu": 2}, {"cpu": "2", "nvidia.com/gpu": "1"}, True),
        ({"memory": "0.5Gi"}, {"memory": "512Mi"}, True),
        ({"memory": "1e3"}, {"memory": "1k"}, True),
        ({"cpu": "0.1"}, {"cpu": "200m"}, False),
        ({"cpu": "0.1"}, {}, False),
        ({"cpu": "nonsense"}, {"cpu": "1"}, False),
    ],
)
def test_quantities_are_compared_by_what_they_are_worth(
    wanted: dict[str, object], live: dict[str, object], same: bool
) -> None:
    assert covers({"resources": {"requests": live}}, {"resources": {"requests": wanted}}) == same
    assert not covers({"labels": live}, {"labels": wanted}), "elsewhere they are only texts"


def test_an_empty_text_is_there_when_it_is_left_out() -> None:
    assert covers({"name": "HF_TOKEN"}, {"name": "HF_TOKEN", "value": ""})
    assert not covers({"name": "HF_TOKEN"}, {"name": "HF_TOKEN", "value": "0"})
