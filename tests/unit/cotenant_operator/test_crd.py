"""The CRDs as text: structural, a description on each field, and rules that agree with the schema."""

from collections.abc import Iterator
from typing import Any

import generate_crds
import pytest
from pydantic import ValidationError
from tests.builders.nonsense import NONSENSE, UNUSUAL, Nonsense

from cotenant_operator.crd import CRDS, Crd, object_schema, render_crd
from cotenant_operator.spec import GPUPool, ModelDeployment, Tenant
from cotenant_operator.spec_pods import Affinity, PodTemplate, Resources, Toleration

Schema = dict[str, Any]
_KNOWN = {
    "type", "format", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties",
    "pattern", "properties", "items", "additionalProperties", "required", "description", "default",
    "x-kubernetes-validations", "x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-list-map-keys",
}  # fmt: skip


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Path and schema of each node, the root first."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}".removeprefix("."))
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from walk(schema[name], f"{path}[]")


NODES = [(crd, path, node) for crd in CRDS for path, node in walk(object_schema(crd))]


def read(item: dict[str, Any]) -> None:
    kind = {"ModelDeployment": ModelDeployment, "Tenant": Tenant, "GPUPool": GPUPool}[item["kind"]]
    kind.model_validate(item, by_alias=True, by_name=False)


def at(crd: Crd, path: str) -> Schema:
    return next(node for found, place, node in NODES if (found, place) == (crd, path))


def test_the_files_of_the_chart_are_what_the_code_says_now(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate_crds.main(["--check"]) == 0, capsys.readouterr()


def test_nothing_stands_in_a_schema_that_kubernetes_would_refuse() -> None:
    for crd, path, node in NODES:
        place = f"{crd.plural}: {path}"
        assert set(node) <= _KNOWN, place
        open_ended = node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
        assert "type" in node or open_ended, place
        assert not ("properties" in node and "additionalProperties" in node), place
        assert not str(node.get("format", "")).startswith("cotenant"), place


def test_every_field_has_a_description() -> None:
    bare = [f"{crd.plural}: {path}" for crd, path, node in NODES if "description" not in node]

    assert [place for place in bare if not place.endswith(("[]", ": metadata"))] == []


def test_every_list_and_text_of_a_spec_is_bounded() -> None:
    """Or the API server could not afford the rules."""
    for crd, path, node in NODES:
        if not path.startswith("spec.") or "enum" in node:
            continue
        if node.get("type") == "array":
            assert "maxItems" in node, f"{crd.plural}: {path}"
        if node.get("type") == "string":
            assert "maxLength" in node, f"{crd.plural}: {path}"


def test_every_rule_says_what_to_write() -> None:
    rules = [rule for _, _, node in NODES for rule in node.get("x-kubernetes-validations", ())]

    assert len(rules) > 40
    for rule in rules:
        assert 20 < len(rule["message"]) < 300 or rule["message"].startswith("must be"), rule
        assert "\n" not in rule["message"], rule


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda item: f"{item.item['kind']} {item.path}"[:80])
def test_what_the_api_server_refuses_up_refuses_too(nonsense: Nonsense) -> None:
    with pytest.raises(ValidationError):
        read(nonsense.item)


@pytest.mark.parametrize("item", UNUSUAL, ids=lambda item: str(item["spec"])[:80])
def test_what_only_looks_odd_up_takes(item: dict[str, Any]) -> None:
    read(item)


def test_fields_of_an_engine_are_never_filled_in() -> None:
    """Whether one was given matters: those of another task are refused."""
    engine = at(CRDS[0], "spec.engine")

    assert engine["default"] == {}
    assert not any("default" in field for field in engine["properties"].values())


@pytest.mark.parametrize(
    ("path", "default"),
    [
        ("spec.pool", "default"),
        ("spec.replicas", {"min": 0, "max": 1, "idleAfter": "10m"}),
        ("spec.replicas.idleAfter", "10m"),
    ],
)
def test_defaults_are_as_a_person_would_write_them(path: str, default: object) -> None:
    assert at(CRDS[0], path)["default"] == default


def test_the_scale_subresource_points_at_fields_that_are_there() -> None:
    scale = render_crd(CRDS[0])["spec"]["versions"][0]["subresources"]["scale"]

    for path in scale.values():
        assert at(CRDS[0], path.removeprefix("."))["type"] in ("integer", "string")


def test_columns_are_those_of_the_design() -> None:
    columns = render_crd(CRDS[0])["spec"]["versions"][0]["additionalPrinterColumns"]

    narrow = [column["name"].upper() for column in columns if not column.get("priority")]
    assert narrow == ["MODEL", "READY", "REASON", "REPLICAS", "CACHED", "GPU", "URL", "AGE"]
    assert all(column["description"] for column in columns)


def test_what_is_passed_on_to_pods_has_the_fields_that_kubernetes_has() -> None:
    """As far as they are named at all; the client's own classes are the reference."""
    client = pytest.importorskip("kubernetes.client")
    for shape, reference in (
        (Toleration, client.V1Toleration),
        (Affinity, client.V1Affinity),
        (Resources, client.V1ResourceRequirements),
        (PodTemplate, client.V1PodTemplateSpec),
    ):
        (schema,) = (item.json_schema for item in shape.__metadata__ if hasattr(item, "json_schema"))
        assert set(schema["properties"]) <= set(reference.attribute_map.values())
