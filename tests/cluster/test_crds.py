"""What a real API server does with the CRDs: refuses nonsense in words that help, explains, defaults, scales, prints.

Needs no KubeRay and no pod: an API server is enough.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.kube import Kube, KubeError, namespace
from tests.builders.nonsense import NONSENSE, UNUSUAL, Nonsense
from tests.builders.printer import printed
from tests.builders.release import another_cotenant
from tests.golden.conditions import Situation, situations

from cotenant_operator.crd import CRDS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "charts" / "cotenant" / "files" / "crds").glob("*.yaml"))
KINDS = [crd.model.__name__ for crd in CRDS]
ACCEPTED = [*sorted((ROOT / "examples").glob("*.yaml")), *sorted((ROOT / "tests" / "golden").glob("*/models.yaml"))]
SPACE = f"cotenant-crd-tests-{os.getpid()}"


@pytest.fixture(scope="module")
def api() -> Iterator[Kube]:
    """The cluster of KUBECONFIG with our CRDs, which go again unless they were there before."""
    path = os.environ.get("KUBECONFIG")
    if not path:
        pytest.skip("KUBECONFIG names no cluster (see `make test-cluster`)")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    kube = Kube(path)
    try:
        yield from _with_crds(kube)
    finally:
        kube.close()


def _with_crds(kube: Kube) -> Iterator[Kube]:
    reason = another_cotenant(kube)
    if reason:
        pytest.skip(f"the cluster of KUBECONFIG: {reason}")
    names = [yaml.safe_load(file.read_text())["metadata"]["name"] for file in FILES]
    made = [name for name in names if kube.find("CustomResourceDefinition", name) is None]
    try:
        kube.kubectl("apply", "--server-side", "--force-conflicts", *(f"-f={file}" for file in FILES))
        kube.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
        kube.until(lambda: all(_served(kube, kind) for kind in KINDS), "the kinds are served", explain=str)
        kube.apply(namespace(SPACE))
        yield kube
    finally:
        for name in made:
            kube.delete("CustomResourceDefinition", name)
        kube.delete("Namespace", SPACE)


def _served(kube: Kube, kind: str) -> bool:
    try:
        return isinstance(kube.call("GET", kube.path(kind)).get("items"), list)
    except KubeError:
        return False


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


@pytest.mark.parametrize("nonsense", NONSENSE, ids=lambda item: f"{item.item['kind']} {item.path}"[:80])
def test_nonsense_is_refused_with_what_to_write_instead(api: Kube, nonsense: Nonsense) -> None:
    text = yaml.safe_dump(nonsense.item)

    with pytest.raises(KubeError) as refusal:
        api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text)

    assert nonsense.said in str(refusal.value)


@pytest.mark.parametrize("item", UNUSUAL, ids=lambda item: str(item["spec"])[:80])
def test_what_only_looks_odd_is_accepted(api: Kube, item: dict[str, Any]) -> None:
    api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(item))


@pytest.mark.parametrize("file", ACCEPTED, ids=lambda file: "/".join(file.parts[-2:]))
def test_what_up_accepts_a_cluster_accepts(api: Kube, file: Path) -> None:
    for document in yaml.safe_load_all(file.read_text()):
        metadata = document["metadata"]
        if document["kind"] in ("ModelDeployment", "Secret"):
            document["metadata"] = {**metadata, "namespace": SPACE}
        api.kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(document))


def test_every_field_is_explained(api: Kube) -> None:
    for crd in CRDS:
        kind = crd.model.__name__.lower()
        for part in ("spec", "status"):
            for path in _paths(api, f"{kind}.{part}"):
                text = api.kubectl("explain", path)
                description = text.partition("DESCRIPTION:")[2].partition("FIELDS:")[0]
                assert "<empty>" not in description, path
                assert description.strip(), path


def _paths(kube: Kube, root: str) -> list[str]:
    """`root` and each field below it that `kubectl explain --recursive` lists."""
    found, way = [root], []
    fields = kube.kubectl("explain", "--recursive", root).partition("FIELDS:")[2]
    for line in fields.splitlines():
        if "\t<" not in line:
            continue
        depth, name = (len(line) - len(line.lstrip())) // 2 - 1, line.split()[0]
        way = [*way[:depth], name]
        found.append(".".join([root, *way]))
    return found


def test_the_least_that_serves_a_model_is_filled_up(store: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    stored = store(model())

    assert stored["spec"] == {
        "model": "hf://org/name",
        "pool": "default",
        "replicas": {"min": 0, "max": 1, "idleAfter": "10m"},
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
    for wide in (False, True):
        shown = _got(api, item, space, wide)
        assert shown == printed(situation.crd, item, wide=wide), "but for the age"


def _got(kube: Kube, item: dict[str, Any], space: str, wide: bool) -> str:
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
