"""From `helm install` to an answer, with what a newcomer has: a cluster, and the models of the demo."""

import base64
import json
from collections.abc import Callable

import openai
import pytest
from tests.builders.calls import key_of
from tests.builders.kube import Kube, Object
from tests.builders.pool_pods import containers, heads, is_ready, workers
from tests.builders.release import Release
from tests.builders.up import keys, model, tenant

KINDS = ("Pod", "ConfigMap", "RayCluster", "Event", "ModelDeployment", "GPUPool", "Tenant", "Deployment")
SHARE = {"memory": "1536Mi"}


@pytest.fixture(scope="module")
def installed(release: Release, kube: Kube, namespaces: Callable[[str], str]) -> Release:
    """Nothing but defaults: the operator makes the pool."""
    for name in ("search", "ads"):
        namespaces(name)
    release.install()
    folder = release.settings.models
    kube.apply(keys("search", "ads"), tenant("search"), tenant("ads"))
    kube.apply(
        model("chat", model=f"file://{folder}/chat", gpu=SHARE, engine={"contextTokens": 512}),
        model("sentences", model=f"file://{folder}/sentences", gpu=SHARE),
    )
    return release.reach()


def client(installed: Release, who: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{installed.url}/v1", api_key=key_of(who), max_retries=5, timeout=300)


def test_openai_python_streams_a_chat_and_gets_vectors_of_a_second_model_on_the_same_device(
    installed: Release, kube: Kube, phases: Callable[[str], None]
):
    kube.until(lambda: any(is_ready(pod) for pod in heads(installed)), "the head is ready")
    phases("head and conductor ready")
    with client(installed, "search") as search:
        messages = [{"role": "user", "content": "What is cotenant and who is it for?"}]
        stream = search.chat.completions.create(model="chat", messages=messages, stream=True, temperature=0)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        phases("chat's answer, from no pod")
        assert "many tenants and many models share the same GPUs" in text
        vectors = search.embeddings.create(model="sentences", input=["a warm coat", "a hotel room"])
        phases("vectors")
        assert len(vectors.data) == 2
        assert len(vectors.data[0].embedding) > 8
    assert len(workers(installed)) == 1, "both models are in one pod"


def test_a_tenant_neither_sees_nor_calls_the_models_of_another(installed: Release):
    with client(installed, "ads") as ads:
        assert [one.id for one in ads.models.list()] == []
        with pytest.raises(openai.NotFoundError):
            ads.chat.completions.create(model="chat", messages=[{"role": "user", "content": "hello"}])
        with pytest.raises(openai.NotFoundError):
            ads.chat.completions.create(model="search/chat", messages=[{"role": "user", "content": "hello"}])
    with client(installed, "nobody") as nobody, pytest.raises(openai.AuthenticationError):
        nobody.models.list()


def test_every_container_runs_as_user_1000_with_a_root_it_cannot_write_and_no_capability(
    installed: Release, kube: Kube
):
    installed.text("search", "chat", "hello", max_tokens=4)

    def ready() -> list[Object]:
        """None before all are: an engine answers before the probe of its pod has said so."""
        found = [pod for pod in installed.pods() if is_ready(pod)]
        return found if len(found) >= 6 else []

    for pod in kube.until(ready, "two operators, two gateways, a head and a worker are ready"):
        name = pod["metadata"]["name"]
        for container in containers(pod):
            command = "id -u; touch /written 2>/dev/null && echo written; grep CapEff /proc/self/status"
            said = kube.kubectl("exec", name, "-n", installed.namespace, "-c", container, "--", "sh", "-c", command)
            assert said.split() == ["1000", "CapEff:", "0000000000000000"], f"{name} {container}: {said}"


def test_no_key_and_no_token_stands_in_any_object_but_its_secret_nor_in_a_log(installed: Release, kube: Kube):
    secrets = [secret.get("data") or {} for secret in kube.objects("Secret", installed.namespace)]
    values = [base64.b64decode(value).decode(errors="replace") for data in secrets for value in data.values()]
    keys_and_tokens = [value for value in values if "\n" not in value and 16 <= len(value) <= 200]
    assert key_of("search") in keys_and_tokens
    texts = [json.dumps(kube.objects(kind)) for kind in KINDS]
    for pod in installed.pods():
        arguments = ("logs", pod["metadata"]["name"], "-n", installed.namespace, "--all-containers", "--tail=-1")
        texts.append(kube.kubectl(*arguments, check=is_ready(pod)))
    assert not any(value in text for value in keys_and_tokens for text in texts)
