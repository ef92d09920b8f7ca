import os
from pathlib import Path

import pytest

from cotenant_operator.manifests import ManifestErrors, load
from cotenant_operator.objects import Manifests

MODEL = """\
apiVersion: cotenant.dev/v1alpha1
kind: ModelDeployment
metadata: {name: %s}
spec:
%s
"""


def model_text(spec: str, name: str = "qwen") -> str:
    return MODEL % (name, "\n".join("  " + line for line in spec.splitlines()))


def load_text(tmp_path: Path, text: str | bytes, name: str = "models.yaml") -> Manifests:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load([file])


def problems(tmp_path: Path, text: str | bytes) -> list[str]:
    """Each problem without the folder."""
    with pytest.raises(ManifestErrors) as caught:
        load_text(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


def test_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    (model,) = load_text(tmp_path, model_text("model: hf://Qwen/Qwen3-4B@main")).models

    assert model.full_name == "default/qwen"
    assert (model.spec.replicas.min, model.spec.replicas.max, model.spec.replicas.idle_after) == (0, 1, 600.0)
    assert (model.spec.pool, model.spec.gpu, model.spec.tenants) == ("default", None, None)


def test_an_unknown_field_names_its_line_and_the_near_match(tmp_path: Path) -> None:
    assert problems(tmp_path, model_text("model: hf://a/b\ngpu:\n  memroy: 12Gi")) == [
        "models.yaml:7: spec.gpu.memroy: unknown field; did you mean 'memory'? allowed: memory, fraction, mig, whole"
    ]


def test_python_names_are_unknown_in_yaml(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, model_text("model: hf://a/b\nreplicas: {idle_after: 10m}"))

    assert "unknown field; did you mean 'idleAfter'?" in problem


def test_all_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(model_text("model: hf://a/b\npool: 7", "Bad"))
    (tmp_path / "b.yaml").write_text("kind: ModelDeploymnt\n")
    with pytest.raises(ManifestErrors) as caught:
        load([tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "none.yaml"])

    assert [(Path(item.file).name, item.line, item.field) for item in caught.value.problems] == [
        ("a.yaml", 3, "metadata.name"),
        ("a.yaml", 6, "spec.pool"),
        ("b.yaml", 1, "kind"),
        ("none.yaml", 0, ""),
    ]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("task: embd\nmodel: hf://a/b", "did you mean 'embed'? allowed: generate, embed, rerank, classify, tensor"),
        ("task: embed", "spec.model: required field is missing"),
        (
            "task: tensor\nmodel: hf://a/b\nengine: {contextTokens: 64}",
            "contextTokens: 64 is only for tasks generate",
        ),
        ("task: generate\nmodel: hf://a/b\nengine: {maxBatch: 8}", "maxBatch: 8 is only for tasks embed, rerank, "),
        ("task: echo\nengine: {batchWait: 1ms}", 'spec.engine.batchWait: "1ms" is only for tasks embed, rerank, '),
        ("model: hf://a/b\nengine: {maxBatch: 0}", "spec.engine.maxBatch: 0 must be greater than or equal to 1"),
        ("model: hf://a/b\nengine: {maxBatch: 1025}", "must be less than or equal to 1024"),
        ("model: hf://a/b\nengine: {batchWait: 2s}", 'spec.engine.batchWait: "2s" must be at most 1s'),
        ("model: hf://a/b\nengine: {batchWait: 5}", "spec.engine.batchWait: 5 must be a duration"),
        ("task: generat\nmodel: hf://a/b", "did you mean 'generate'?"),
        ("task: generate", "spec.model: required field is missing"),
        ("task: echo\nmodel: hf://a/b", "is not for task echo"),
        ("model: hf://a/b\nengine: {tokensPerSecond: 3}", "spec.engine.tokensPerSecond: 3 is only for task echo"),
        ("model: org/name", "must be hf://owner/name"),
        ("model: hf://a/../b", "must be hf://owner/name"),
        ("model: file://models", "must be file:///absolute/folder"),
        ("model: hf://a/b\ngpu: {memory: 1Gi, whole: true}", "spec.gpu: exactly one of"),
        ("model: hf://a/b\ngpu: {}", "given: none"),
        ("model: hf://a/b\ngpu: {fraction: 1.5}", "spec.gpu.fraction: 1.5 must be less than or equal to 1"),
        ("model: hf://a/b\ngpu: {fraction: 0}", "must be greater than 0"),
        ("model: hf://a/b\ngpu: {whole: false}", "must be true"),
        ("model: hf://a/b\ngpu: {mig: small}", "must be a MIG profile"),
        ("model: hf://a/b\ngpu: {memory: 12GB}", "unit 'GB' is not one of"),
        ("model: hf://a/b\nreplicas: {min: 2}", "spec.replicas.min: 2 is above max 1"),
        ("model: hf://a/b\nreplicas: {min: '2'}", "must be a whole number, without quotes"),
        ("model: hf://a/b\nreplicas: {max: true}", "must be a whole number"),
        ("model: hf://a/b\nreplicas: {idleAfter: 600}", "must be a duration"),
        ("model: hf://a/b\ntenants: []", "spec.tenants: must have at least 1 item"),
        ("model: hf://a/b\ntenants: search", 'spec.tenants: "search" must be a list'),
        ("model: hf://a/b\npool: no", "spec.pool: false must be text; quote it"),
        ("model: 2026-11-23", "must be hf://owner/name"),
    ],
)
def test_a_wrong_field_says_what_is_allowed(tmp_path: Path, spec: str, said: str) -> None:
    assert said in "\n".join(problems(tmp_path, model_text(spec)))


@pytest.mark.parametrize("name", ["Qwen", "-a", "a-", "a.b", "a_b", "a" * 41])
def test_names_follow_kubernetes_rules(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, model_text("task: echo", name))

    assert problem.startswith("models.yaml:3: metadata.name: ")


def test_a_name_of_40_characters_is_fine(tmp_path: Path) -> None:
    assert load_text(tmp_path, model_text("task: echo", "a" * 40)).models


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Pod\napiVersion: v1\n", "models.yaml:1: kind: 'Pod' is not a kind"),
        ("apiVersion: v1\n", "models.yaml:1: kind: required field is missing"),
        ("kind: Tenant\n", "apiVersion: required field is missing; set apiVersion: cotenant.dev/v1alpha1"),
        ("apiVersion: cotenant.dev/v1\nkind: Tenant\n", "'cotenant.dev/v1' is not served"),
        ("- a\n", "is not an object"),
        ("hello\n", "is not an object"),
        ("a: 1\nb: 2\na: 3\n", "models.yaml:3: key 'a' stands twice, first on line 1"),
        ("a: [1, 2\nb: {\n", "models.yaml:2:2: is not YAML"),
        ("a:\n\tb: 1\n", "models.yaml:2:1: is not YAML: a tab stands where YAML allows only spaces"),
        ("a: *nobody\n", "undefined alias"),
        ("a: !!python/object/apply:os.system [x]\n", "is not allowed; remove it"),
        ("a: !thing x\n", "is not allowed; remove it"),
        ("a: !!bool maybe\n", "a number or value cannot be read; quote it"),
        ("a: !!int ''\n", "a number or value cannot be read; quote it"),
        ("a: &a [*a]\n", "alias of itself"),
        ("[" * 5000, "nested deeper than 40"),
        ("1: a\n", "a key is not text"),
        ("a: " + "9" * 6000, "quote it"),
        ("a: 0x" + "f" * 6000, "a whole number is too large; quote it"),
        ("", "holds no object"),
        ("---\n---\n# nothing\n", "holds no object"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a: \x07", "is not YAML"),
        ("#" * (2**20 + 1), "more than 1048576 bytes"),
    ],
)
def test_what_cannot_be_read_says_where(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in problems(tmp_path, text)[0]


def test_aliases_cannot_blow_up(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdef", "bcdefg", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + before] * 10)}]")

    assert "more than 100000 values" in problems(tmp_path, "\n".join(lines))[0]


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = model_text("task: echo\nengine: &small {concurrency: 3}") + "---\n"
    text += model_text("task: echo\nengine:\n  <<: {concurrency: 3, loadSeconds: 1}\n  loadSeconds: 2", "other")
    first, second = load_text(tmp_path, text).models

    assert first.spec.engine.concurrency == second.spec.engine.concurrency == 3
    assert second.spec.engine.load_seconds == 2


def test_merge_keys_cannot_blow_up(tmp_path: Path) -> None:
    lines = ["a: &a {}"]
    for before, name in zip("abcdef", "bcdefg", strict=True):
        lines += [f"{name}: &{name}", f"  <<: [{', '.join(['*' + before] * 10)}]"]

    assert "more than 100000 values" in problems(tmp_path, "\n".join(lines))[0]


def test_the_same_object_twice_names_both_places(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, model_text("task: echo") + "---\n" + model_text("task: echo"))

    assert problem.startswith("models.yaml:9: metadata.name: ModelDeployment 'default/qwen' stands already at ")
    assert problem.endswith("models.yaml:1; remove or rename one")


def test_a_folder_means_its_yaml_files(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(model_text("task: echo", "b"))
    (tmp_path / "a.yaml").write_text(model_text("task: echo", "a"))
    (tmp_path / "notes.txt").write_text("not: {yaml")

    assert [model.metadata.name for model in load([tmp_path]).models] == ["a", "b"]


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ManifestErrors, match=r"has no \*.yaml file"):
        load([tmp_path])


def test_a_relative_folder_is_beside_the_file(tmp_path: Path) -> None:
    (model,) = load_text(tmp_path, model_text("model: file://./weights")).models

    assert model.spec.model == f"file://{tmp_path}/weights"


SECRET = "apiVersion: v1\nkind: Secret\nmetadata: {name: k}\n"


@pytest.mark.parametrize(
    "rest",
    [
        "stringData: {token: 8675309}\n",
        "stringData: {token: [hunter2]}\n",
        "stringData: hunter2\n",
        "data: {token: '***hunter2'}\n",
        "data: {token: hunter2}\ntyp: Opaque\n",
        "stringData: {token: hunter2, token: hunter2}\n",
        "stringData: {token: &x hunter2}\nimmutable: hunter2 hunter2\n  x: [\n",
    ],
)
def test_values_of_secrets_stand_in_no_message(tmp_path: Path, rest: str) -> None:
    text = "\n".join(problems(tmp_path, SECRET + rest))

    assert "hunter2" not in text
    assert "8675309" not in text


def test_a_key_in_place_of_its_reference_is_not_shown(tmp_path: Path) -> None:
    text = "apiVersion: cotenant.dev/v1alpha1\nkind: Tenant\nmetadata: {name: t}\nspec:\n  keys: [hunter2]\n"

    assert "hunter2" not in "\n".join(problems(tmp_path, text))


def test_base64_and_plain_secrets_are_the_same(tmp_path: Path) -> None:
    (secret,) = load_text(tmp_path, SECRET + "data: {a: aGk=, b: aGk=}\nstringData: {b: wins}\n").secrets

    assert (secret.value("a"), secret.value("b"), secret.value("c")) == ("hi", "wins", None)
    assert "aGk" not in repr(secret)


POOL = "apiVersion: cotenant.dev/v1alpha1\nkind: GPUPool\nmetadata: {name: p}\nspec:\n  workers:\n"


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ("  - {name: a, device: cudo, memory: 1Gi}", "did you mean 'cuda'?"),
        ("  - {name: a, device: cpu}", "spec.workers[0].memory: required field is missing"),
        ("  - {name: a, device: cpu, memory: 1Gi}\n  - {name: a, device: cpu, memory: 1Gi}", "is used twice"),
        ("  - {name: a, device: cpu, memory: 1Gi, resource: gpus}", "must be an extended resource"),
        (
            "  - {name: a, device: cpu, memory: 1Gi, tolerations: [{keys: x}]}",
            "unknown field 'keys'; did you mean 'key'?",
        ),
        ("  - {name: a, device: cpu, memory: 1Gi, resources: {limit: {}}}", "did you mean 'limits'?"),
        ("  - {name: a, device: cpu, memory: 1Gi}\n  idleAfter: 1s", "must be at least 10s"),
        ("  - {name: a, device: cuda, memory: 1Gi, sharing: mig}", "does not match the resource"),
        ("  - {name: a, device: cpu, memory: 1Gi, min: 3, max: 2}", "above max 2"),
        ("  - {name: a, device: cpu, memory: 1Gi, toleration: []}", "did you mean 'tolerations'?"),
        ("    []", "spec.workers: must have at least 1 item"),
    ],
)
def test_worker_groups_are_checked(tmp_path: Path, workers: str, said: str) -> None:
    assert said in "\n".join(problems(tmp_path, POOL + workers + "\n"))


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (
            "  head: {podTemplate: {spec: {containers: [{name: sidecar}, {name: autoscaler}]}}}",
            'spec.head.podTemplate.spec.containers[1].name: "autoscaler" is the container that KubeRay adds to the '
            "head; give yours another name",
        ),
        (
            "  head: {podTemplate: {spec: {initContainers: [{name: conductor}]}}}",
            'spec.head.podTemplate.spec.initContainers[0].name: "conductor" is a container of these pods',
        ),
    ],
)
def test_a_container_of_a_pod_template_has_a_name_of_its_own(tmp_path: Path, pool: str, said: str) -> None:
    (problem,) = problems(tmp_path, POOL + "  - {name: a, device: cpu, memory: 1Gi}\n" + pool + "\n")
    assert said in problem


def test_a_worker_has_no_container_of_kuberays_names(tmp_path: Path) -> None:
    template = "podTemplate: {spec: {containers: [{name: ray-worker}], initContainers: [{name: wait-gcs-ready}]}}"
    (problem,) = problems(tmp_path, POOL + f"  - {{name: a, device: cpu, memory: 1Gi, {template}}}\n")
    assert (
        'spec.workers[0].podTemplate.spec.initContainers[0].name: "wait-gcs-ready" is the init container' in problem
    )


def test_fields_for_kubernetes_are_accepted(tmp_path: Path) -> None:
    worker = (
        "  - {name: a, device: cuda, memory: 80Gi, nodeSelector: {gpu: h100}, tolerations: [{key: x}], affinity: {}, "
        "runtimeClassName: nvidia, resources: {limits: {cpu: 4}}, podTemplate: {spec: {}}}\n"
        "  head: {redis: {address: 'redis:6379', secretRef: {name: r, key: k}}}\n"
        "  cache: {size: 500Gi, path: /models, hub: {endpoint: https://hub, secretRef: {name: h, key: t}}}\n"
    )
    (pool,) = load_text(tmp_path, POOL + worker).pools

    assert pool.spec.workers[0].device_resource == "nvidia.com/gpu"
    assert pool.spec.cache.size == 500 * 2**30


def test_a_fifo_is_refused_rather_than_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    with pytest.raises(ManifestErrors, match="not a regular file"):
        load([tmp_path / "fifo.yaml"])


def test_a_name_too_long_for_any_file_is_a_problem_and_no_crash(tmp_path):
    with pytest.raises(ManifestErrors, match="cannot be read"):
        load([tmp_path / ("x" * 300 + ".yaml")])


@pytest.mark.parametrize(
    "source",
    [
        "file:///models/../etc",
        "file:///..",
        "file:///models/a/..",
        "file:///models/a\\0b",
        "file://./a\\0b",
        "file://../a\\nx-header: b",
        "file:///models/a\\r\\nb",
        "file:///models/\\u202egpj",
    ],
)
def test_a_folder_of_a_model_leads_nowhere_else_and_breaks_no_line(tmp_path: Path, source: str) -> None:
    (problem,) = problems(tmp_path, model_text(f'model: "{source}"'))

    assert "must be the folder's own path, without '..' and control characters" in problem


def test_a_folder_beside_the_file_may_be_above_it(tmp_path: Path) -> None:
    (model,) = load_text(tmp_path, model_text("model: file://../models/a")).models

    assert model.spec.model == f"file://{tmp_path.parent}/models/a"


@pytest.mark.parametrize(
    "name", ["a\\nb", "a\\r\\nx-cotenant-model: b", "../a", "a/b", "a\\0", "a%2fb", "A", "a.b", ""]
)
def test_no_name_of_a_model_can_end_a_header_or_leave_a_path(tmp_path: Path, name: str) -> None:
    assert "metadata.name" in problems(tmp_path, model_text("task: echo", f'"{name}"'))[0]
