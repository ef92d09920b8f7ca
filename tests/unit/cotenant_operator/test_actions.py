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
