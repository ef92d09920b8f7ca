"""Strategic merge: what a pool's podTemplate does to the pods that we render."""

from typing import Any

import pytest

from cotenant_operator.render.strategic_merge import merge

BASE: dict[str, Any] = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "containers": [
            {"name": "one", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "args": ["x", "y"]},
            {"name": "two", "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
        ],
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
        "tolerations": [{"key": "gpu"}],
    },
}


def spec(patch: dict[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = merge(BASE, {"spec": patch})["spec"]
    return merged


def test_maps_are_merged_and_the_rest_stays() -> None:
    merged = merge(BASE, {"metadata": {"labels": {"b": "2"}, "annotations": {"c": "3"}}})
    assert merged["metadata"] == {"labels": {"a": "1", "b": "2"}, "annotations": {"c": "3"}}
    assert merged["spec"] == BASE["spec"]


def test_neither_side_is_changed() -> None:
    before = repr(BASE)
    patch = {"spec": {"containers": [{"name": "one", "env": [{"name": "A", "value": "9"}]}]}}
    kept = repr(patch)
    merge(BASE, patch)
    assert (repr(BASE), repr(patch)) == (before, kept)


def test_containers_are_found_by_name_and_keep_their_order() -> None:
    containers = spec({"containers": [{"name": "new", "image": "n"}, {"name": "one", "image": "i"}]})["containers"]
    assert [item["name"] for item in containers] == ["one", "two", "new"]
    assert containers[0]["image"] == "i"
    assert containers[0]["args"] == ["x", "y"]


def test_an_environment_variable_is_replaced_as_a_whole() -> None:
    source = {"fieldRef": {"fieldPath": "metadata.name"}}
    env = spec({"containers": [{"name": "one", "env": [{"name": "A", "valueFrom": source}]}]})["containers"][0]["env"]
    assert env == [{"name": "A", "valueFrom": source}, {"name": "B", "value": "2"}]


def test_a_volume_that_comes_from_elsewhere_is_replaced() -> None:
    assert spec({"volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}]})["volumes"] == [
        {"name": "tmp", "persistentVolumeClaim": {"claimName": "c"}}
    ]


def test_a_volume_of_the_same_kind_is_merged() -> None:
    assert spec({"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]})["volumes"] == [
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}
    ]


def test_mounts_are_found_by_where_they_are() -> None:
    mounts = [{"name": "other", "mountPath": "/tmp"}, {"name": "more", "mountPath": "/more"}]
    assert spec({"containers": [{"name": "two", "volumeMounts": mounts}]})["containers"][1]["volumeMounts"] == mounts


@pytest.mark.parametrize("field", ["args", "command"])
def test_a_list_of_plain_values_is_replaced(field: str) -> None:
    assert spec({"containers": [{"name": "one", field: ["z"]}]})["containers"][0][field] == ["z"]


def test_tolerations_have_no_name_and_are_replaced() -> None:
    assert spec({"tolerations": [{"key": "other"}]})["tolerations"] == [{"key": "other"}]


def test_null_removes_a_field() -> None:
    assert "tolerations" not in spec({"tolerations": None})


def test_an_item_is_removed_on_demand() -> None:
    assert [item["name"] for item in spec({"containers": [{"name": "two", "$patch": "delete"}]})["containers"]] == [
        "one"
    ]
    assert spec({"containers": [{"name": "three", "$patch": "delete"}]})["containers"] == BASE["spec"]["containers"]


def test_a_map_is_replaced_or_emptied_on_demand() -> None:
    assert merge(BASE, {"metadata": {"$patch": "replace", "labels": {"b": "2"}}})["metadata"] == {
        "labels": {"b": "2"}
    }
    assert merge(BASE, {"metadata": {"$patch": "delete"}})["metadata"] == {}


def test_a_list_is_replaced_on_demand() -> None:
    patch = [{"$patch": "replace"}, {"name": "only", "emptyDir": {}}]
    assert spec({"volumes": patch})["volumes"] == [{"name": "only", "emptyDir": {}}]


def test_no_directive_reaches_the_result() -> None:
    new = {"name": "new", "env": [{"name": "A", "value": "1", "$patch": "delete"}, {"name": "B", "value": None}]}
    assert spec({"containers": [new]})["containers"][-1] == {"name": "new", "env": [{"name": "B"}]}


def test_an_item_without_its_name_changes_nothing() -> None:
    assert spec({"containers": [{"image": "x"}, "nonsense"]})["containers"] == BASE["spec"]["containers"]
