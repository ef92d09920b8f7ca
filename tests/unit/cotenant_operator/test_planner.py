"""A plan is made anew when something changed, and no object keeps the others from being planned."""

import asyncio
import base64
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.builders.watched_api import deployment

from cotenant_cache.errors import ModelNotFoundError
from cotenant_cache.source import HubAccess
from cotenant_operator.cluster_errors import InvalidError, NotFoundError
from cotenant_operator.facts_book import AGAIN_S, AT_ONCE, Facts, FactsBook, Question
from cotenant_operator.kinds import POOLS, SECRETS, TENANTS, Key, Kind, Object, key_of
from cotenant_operator.planner import Planner
from cotenant_operator.pool_hubs import NO_HUB
from cotenant_operator.secrets_by_name import Reader, SecretsByName

COMMIT = "0" * 40


class NoSecrets:
    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        raise NotFoundError("none", status=404)


class OrdinarySecrets:
    """An API server that is asked for a name which no path may have as it is."""

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        if not name.isalnum():
            raise InvalidError(f"GET /api/v1/namespaces/ours/secrets/{name}: 400", status=400)
        raise NotFoundError("none", status=404)


class Asked:
    """Answers every question alike, and keeps it."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.news = asyncio.Event()

    def __call__(self, question: Question) -> Facts:
        self.questions.append(question)
        return ModelNotFoundError("there is no such folder")


class KeptSecrets:
    """An API server whose Secrets a test changes."""

    def __init__(self) -> None:
        self.data: dict[str, dict[str, str]] = {}

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        if name not in self.data:
            raise NotFoundError("none", status=404)
        data = {key: base64.b64encode(value.encode()).decode() for key, value in self.data[name].items()}
        return {**SECRETS.new(name, namespace, data=data), "metadata": {"name": name, "namespace": namespace}}


def pool(**hub: Any) -> Object:
    hub = {"endpoint": "https://hub.example", **hub}
    item = POOLS.new(
        "default", spec={"workers": [{"name": "cpu", "device": "cpu", "memory": "8Gi"}], "cache": {"hub": hub}}
    )
    item["metadata"] |= {"uid": "uid-pool", "generation": 1, "resourceVersion": "1"}
    return item


POOL = pool()


def hub_model(name: str, **more: Any) -> Object:
    item = deployment(name, 1, **more)
    item["spec"] = {"model": "hf://org/small", "pool": "default"}
    return item


def by_name(reader: Reader) -> SecretsByName:
    return SecretsByName(reader, "ours", lambda name: None)


def planner(
    *models: Object,
    asked: Asked,
    clock: Callable[[], float] = lambda: 0.0,
    tenants: tuple[Object, ...] = (),
    secrets: SecretsByName | None = None,
    pool: Object | None = None,
) -> Planner:
    objects: dict[Key, Object] = {key_of(item): item for item in models}
    of_tenants: dict[Key, Object] = {key_of(item): item for item in tenants}
    return Planner(
        namespace="ours",
        objects=lambda: (objects, of_tenants, {("", "default"): pool or POOL}),
        secrets=secrets or by_name(NoSecrets()),
        always=(),
        facts=FactsBook(asked, asked.news.set, clock=clock),
        kept=dict,
    )


async def test_nothing_is_planned_twice_unless_something_changed() -> None:
    found = planner(deployment("echo", 1), asked=Asked())
    first = await found.planned()
    assert await found.planned() is first
    found.touch()
    assert await found.planned() is not first


async def test_facts_that_are_not_there_yet_leave_a_model_pending_and_come_by_themselves() -> None:
    asked = Asked()
    found = planner(hub_model("small"), asked=asked)
    pending = (await found.planned()).models["default/small"].refusal
    assert pending is not None
    assert pending.reason == "FactsPending"
    async with asyncio.timeout(20):
        await asked.news.wait()
    found.touch()
    refused = (await found.planned()).models["default/small"].refusal
    assert refused is not None
    assert refused.reason == "ModelNotFound"
    assert asked.questions[0].source == "hf://org/small"
    assert asked.questions[0].access.endpoint == "https://hub.example"


async def test_a_commit_that_a_status_names_is_read_and_not_the_branch_that_may_have_moved() -> None:
    asked = Asked()
    status = {"observedGeneration": 1, "source": f"hf://org/small@{COMMIT}"}
    await planner(hub_model("small", status=status), asked=asked).planned()
    async with asyncio.timeout(20):
        await asked.news.wait()
    assert [question.source for question in asked.questions] == [f"hf://org/small@{COMMIT}"]


async def test_files_that_could_not_be_read_are_read_again_after_a_while() -> None:
    asked, now = Asked(), [0.0]
    found = planner(hub_model("small"), asked=asked, clock=lambda: now[0])
    await found.planned()
    async with asyncio.timeout(20):
        await asked.news.wait()
    assert found.troubled
    found.touch()
    await found.planned()
    assert len(asked.questions) == 1, "not at every look"
    now[0] += AGAIN_S
    found.touch()
    await found.planned()
    async with asyncio.timeout(20):
        while len(asked.questions) < 2:
            await asyncio.sleep(0.01)


async def test_few_files_are_read_at_a_time_and_all_in_the_end() -> None:
    go, lock, now, most = threading.Event(), threading.Lock(), 0, 0

    def read(question: Question) -> Facts:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
        go.wait(20)
        with lock:
            now -= 1
        return ModelNotFoundError(question.source)

    book = FactsBook(read, lambda: None)
    questions = {(str(number), NO_HUB): Question(str(number), HubAccess()) for number in range(3 * AT_ONCE)}
    assert book.of(questions) == {}
    async with asyncio.timeout(20):
        while now < AT_ONCE:
            await asyncio.sleep(0.01)
        go.set()
        while len(book.of(questions)) < len(questions):
            await asyncio.sleep(0.01)
    assert most == AT_ONCE


@pytest.mark.parametrize("name", ["search key", "a/../../pods", "?watch=1", "Upper", "-a"])
async def test_a_tenant_that_names_what_can_be_no_secret_is_a_problem_of_its_own(name: str) -> None:
    tenant = TENANTS.new(
        "search", spec={"namespaces": ["default"], "keys": [{"secretRef": {"name": name, "key": "t"}}]}
    )
    tenant["metadata"] |= {"uid": "uid-search", "generation": 1, "resourceVersion": "1"}
    found = planner(deployment("echo", 1), asked=Asked(), tenants=(tenant,), secrets=by_name(OrdinarySecrets()))
    planned = await found.planned()
    assert planned.models.keys() == {"default/echo"}
    assert "spec.keys[0].secretRef.name: must be lower-case" in planned.problems["Tenant", "", "search"]


async def test_a_model_that_breaks_the_plan_stops_no_other() -> None:
    found = planner(deployment("echo", 1), deployment("poison", 1), asked=Asked())
    first = await found.planned()
    poison = next(model for model in first.manifests.models if model.metadata.name == "poison")
    object.__setattr__(poison.spec, "replicas", None)  # what no schema lets through
    found.touch()
    again = await found.planned()
    assert again.models.keys() == {"default/echo"}
    (problem,) = again.problems.items()
    assert problem[0] == ("ModelDeployment", "default", "poison")
    assert "cannot be planned" in problem[1]


async def test_a_hub_token_that_is_not_there_is_named_with_the_command_until_it_is() -> None:
    asked, kept = Asked(), KeptSecrets()
    secrets = by_name(kept)
    hub = {"secretRef": {"name": "hub", "key": "hf"}}
    found = planner(hub_model("small"), deployment("echo", 1), asked=asked, secrets=secrets, pool=pool(**hub))
    await found.planned()
    async with asyncio.timeout(20):
        await asked.news.wait()

    async def now() -> tuple[str, str]:
        await secrets.look()
        found.touch()
        made = await found.planned()
        refusal = made.models["default/small"].refusal
        assert refusal is not None
        assert made.models["default/echo"].refusal is None
        return made.missing_secrets.get("default", ""), refusal.message

    missing, refused = await now()
    assert missing.startswith("Secret 'hub' (spec.cache.hub.secretRef of GPUPool default) is not in namespace ours")
    assert "kubectl -n ours create secret generic hub --from-file=hf=FILE, the token in FILE" in missing
    assert refused == f"there is no such folder; {missing}", "the hub may have it, for those that have a token"
    kept.data["hub"] = {"other": "hf_0123456789"}
    missing, _ = await now()
    assert "in namespace ours has no key 'hf'" in missing
    assert "kubectl -n ours create secret generic hub --from-file=hf=FILE --dry-run=client" in missing
    assert "hf_0123456789" not in missing
    kept.data["hub"] = {"hf": "hf_0123456789"}
    missing, refused = await now()
    assert (missing, ";" in refused) == ("", False)
