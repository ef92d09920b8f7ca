"""What a real API server does with the CRDs: refuses nonsense in words that help, explains, defaults, scales, prints.

Needs no KubeRay and no pod: an API server is enough.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.kube import Kube, KubeError, namespace
from tests.builders.nonsense import NONSENSE, UNUSUAL, Nonsense
from tests.builders.printer import printed
from tests.builders.release import until_served
from tests.golden.conditions import Situation, situations

from cotenant_operator.crd import CRDS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "charts" / "cotenant" / "files" / "crds").glob("*.yaml"))
ACCEPTED = [*sorted((ROOT / "examples").glob("*.yaml")), *sorted((ROOT / "tests" / "golden").glob("*/models.yaml"))]
WIDE = {situation.title for situation in situations()[::6]}
"""Those that are looked at with `-o wide` too: each look is a process."""
SPACE = f"cotenant-crd-tests-{os.getpid()}"


@pytest.fixture(scope="module")
def api(api_server: Kube) -> Iterator[Kube]:
    """With our CRDs, which go again unless they were there before."""
    kube = api_server
    names = [yaml.safe_load(file.read_text())["metadata"]["name"] for file in FILES]
    made = [name for name in names if kube.find("CustomResourceDefinition", name) is None]
    try:
        kube.kubectl("apply", "--server-side", "--force-conflicts", *(f"-f={file}" for file in FILES))
        kube.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
        until_served(kube)
        kube.apply(namespace(SPACE))
        yield kube
    finally:
        for name in made:
            kube.delete("CustomResourceDefinition", name)
        kube.delete("Namespace", SPACE)
        for name in made:  # or the next file's would be taken for those that go
            kube.gone("CustomResourceDefinition", name)


@pytest.fixture
def store(api: Kube) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Keep an object until the test ends. It stands in the tests' namespace, whatever namespace it names."""
    stored: list[tuple[str, str, str]] = []

    def keep(item: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": item["metadata"]["name"]}
        if "namespace" in item["metadata"]:
            metadata["namespace"] = SPACE
        stored.append((item["kind"], metadata["name"], metadata.get("namespace", "")))
        return api.create({**item, "metadata": metadata})

    yield keep
    for kind, name, space in stored:
        api.delete(kind, name, space)


def model(**spec: Any) -> dict[str, Any]:
    given = {"model": "hf://org/name", **spec}
    metadata = {"name": "chat", "namespace": SPACE}
    return {"apiVersion": "cotenant.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": given}


def tried(kube: Kube, item: dict[str, Any]) -> None:
    """As `kubectl apply --dry-run=server` asks, at a tenth of its cost. Raises KubeError."""
    path = kube.path(item["kind"], namespace=item["metadata"].get("namespace", ""))
    kube.call("POST", path + "?dryRun=All&fieldValidation=Strict", item)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda item: f"{item.item['kind']} {item.path}"[:80])
def test_nonsense_is_refused_with_what_to_write_instead(api: Kube, nonsense: Nonsense) -> None:
    with pytest.raises(KubeError) as refusal:
        tried(api, nonsense.item)

    assert refusal.value.status in (400, 422)
    assert nonsense.said in refusal.value.message


@pytest.mark.parametrize("nonsense", NONSENSE[::20], ids=lambda item: f"{item.item['kind']} {item.path}"[:80])
def test_kubectl_shows_what_to_write_instead(api: Kube, nonsense: Nonsense) -> None:
    said = api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(nonsense.item), check=False)

    assert nonsense.said in said


@pytest.mark.parametrize("item", UNUSUAL, ids=lambda item: str(item["spec"])[:80])
def test_what_only_looks_odd_is_accepted(api: Kube, item: dict[str, Any]) -> None:
    tried(api, item)


@pytest.mark.parametrize("file", ACCEPTED, ids=lambda file: "/".join(file.parts[-2:]))
def test_what_up_accepts_a_cluster_accepts(api: Kube, file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        if document["kind"] in ("ModelDeployment", "Secret"):
            document["metadata"] = {**document["metadata"], "namespace": SPACE}
        tried(api, document)


EMPTIED = [
    ("GPUPool", {"head": {"redis": {"address": "redis:6379"}}}, {"head": {}}),
    ("GPUPool", {"head": {"nodeSelector": {"disk": "fast"}}}, {"head": {"nodeSelector": {}}}),
    ("GPUPool", {"head": {"affinity": {"nodeAffinity": {}}}}, {"head": {"affinity": {}}}),
    ("Tenant", {"limits": {"requestsPerMinute": 7}}, {"limits": {}}),
    ("ModelDeployment", {"replicas": {"max": 2}}, {"replicas": {}}),
    ("ModelDeployment", {"engine": {"contextTokens": 512}}, {"engine": {}}),
]
"""Kind, a part of its spec that is applied first, and the same without its fields."""


@pytest.mark.parametrize(("kind", "filled", "empty"), EMPTIED, ids=lambda value: str(value)[:60])
def test_what_was_applied_may_be_applied_without_its_fields(
    api: Kube, kind: str, filled: dict[str, Any], empty: dict[str, Any]
) -> None:
    """Server-side: what is left of an object by then is null to the API server, not {}."""
    least = {"GPUPool": {"workers": [{"name": "cpu", "device": "cpu", "memory": "1Gi"}]}, "Tenant": {}}
    spec = least.get(kind, {"model": "hf://org/name"})
    metadata = {"name": "emptied", **({"namespace": SPACE} if kind == "ModelDeployment" else {})}
    one = {"apiVersion": "cotenant.dev/v1alpha1", "kind": kind, "metadata": metadata}
    try:
        api.apply({**one, "spec": {**spec, **filled}})
        api.apply({**one, "spec": {**spec, **empty}})
    finally:
        api.delete(kind, "emptied", metadata.get("namespace", ""))


def test_every_field_is_explained(api: Kube) -> None:
    """`kubectl explain` reads it from the API server's own document."""
    schemas = api.call("GET", "/openapi/v3/apis/cotenant.dev/v1alpha1")["components"]["schemas"]
    for crd in CRDS:
        fields = schemas[f"dev.cotenant.v1alpha1.{crd.model.__name__}"]["properties"]
        for part in ("spec", "status"):
            assert list(_unexplained(fields[part], part)) == []
            assert "DESCRIPTION:\n    <empty>" not in api.kubectl("explain", f"{crd.short}.{part}")
    explained = api.kubectl("explain", "mdep.spec.gpu")
    assert "Part of one device's memory, above 0 and up to 1." in " ".join(explained.split())


def _unexplained(schema: dict[str, Any], path: str) -> Iterator[str]:
    if not schema.get("description"):
        yield path
    inner = schema.get("items", schema)
    for name, field in inner.get("properties", {}).items():
        yield from _unexplained(field, f"{path}.{name}")


def test_the_least_that_serves_a_model_is_filled_up(store: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    stored = store(model())

    assert stored["spec"] == {
        "model": "hf://org/name",
        "pool": "default",
        "replicas": {"min": 0, "max": 1, "idleAfter": "10m"},
        "engine": {},
    }


def test_a_model_stays_in_its_pool(api: Kube, store: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    store(model())

    with pytest.raises(KubeError) as refusal:
        api.patch("ModelDeployment", "chat", SPACE, {"spec": {"pool": "other"}})

    assert "cannot be changed; make another ModelDeployment" in refusal.value.message


def test_scale_sets_the_engines_that_are_kept_warm(
    api: Kube, store: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    store(model(replicas={"max": 4}))
    status = {"replicas": {"ready": 1, "desired": 1, "summary": "1/1"}, "selector": "cotenant.dev/pool=default"}
    api.patch("ModelDeployment", "chat", SPACE, {"status": status}, part="status")

    api.kubectl("scale", "mdep/chat", "--replicas=3", "-n", SPACE)

    assert api.get("ModelDeployment", "chat", SPACE)["spec"]["replicas"]["min"] == 3
    scale = api.call("GET", api.path("ModelDeployment", "chat", SPACE, part="scale"))
    assert (scale["spec"]["replicas"], scale["status"]) == (
        3,
        {"replicas": 1, "selector": "cotenant.dev/pool=default"},
    )
    with pytest.raises(KubeError, match="min is above max; raise max or lower min"):
        api.kubectl("scale", "mdep/chat", "--replicas=5", "-n", SPACE)


def test_a_status_is_written_beside_the_spec_alone(
    api: Kube, store: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    before = store(model())
    api.patch("ModelDeployment", "chat", SPACE, {"status": {"state": "cold"}, "spec": {"pool": "x"}}, part="status")
    after = api.get("ModelDeployment", "chat", SPACE)

    assert (after["status"], after["spec"]) == ({"state": "cold"}, before["spec"])
    assert after["metadata"]["generation"] == before["metadata"]["generation"]


@pytest.mark.parametrize("situation", situations(), ids=lambda item: item.title)
def test_kubectl_shows_a_situation_as_the_page_does(
    api: Kube, store: Callable[[dict[str, Any]], dict[str, Any]], situation: Situation
) -> None:
    item = situation.item
    stored = store({name: value for name, value in item.items() if name != "status"})
    space = stored["metadata"].get("namespace", "")
    api.patch(item["kind"], stored["metadata"]["name"], space, {"status": item["status"]}, part="status")

    assert api.get(item["kind"], stored["metadata"]["name"], space)["status"] == item["status"], "kept whole"
    assert _got(api, item, space) == printed(situation.crd, item), "but for the age"
    if situation.title in WIDE:
        assert _got(api, item, space, wide=True) == printed(situation.crd, item, wide=True), "but for the age"


def _got(kube: Kube, item: dict[str, Any], space: str, *, wide: bool = False) -> str:
    """What `kubectl get` prints, without the column of the age."""
    where = ["-n", space] if space else []
    form = ["-o", "wide"] if wide else []
    text = kube.kubectl("get", item["kind"].lower(), item["metadata"]["name"], *where, *form)
    header, row = text.splitlines()
    begin = header.index("AGE")
    end = next((at for at in range(begin + 3, len(header)) if header[at] != " "), len(header))
    lines = [(line[:begin] + line[end:]).rstrip() for line in (header, row)]
    return "".join(f"{line}\n" for line in lines)


def test_short_names_and_the_category_find_everything(
    api: Kube, store: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    store(model())

    for name in ("mdep", "modeldeployment", "cotenant"):
        assert "chat" in api.kubectl("get", name, "-n", SPACE, "-o", "name")
    for crd in CRDS:
        api.kubectl("get", crd.short)
