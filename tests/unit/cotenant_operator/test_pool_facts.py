"""What models of a hub are is known to a pool by its own hub and token alone."""

import asyncio
import base64
from typing import Any

from tests.builders.operator import facts
from tests.builders.watched_api import deployment

from cotenant_cache.errors import HubUnreachableError, ModelNotFoundError
from cotenant_operator.cluster_errors import NotFoundError
from cotenant_operator.facts_book import Facts, FactsBook, Question
from cotenant_operator.kinds import POOLS, SECRETS, Key, Kind, Object, key_of
from cotenant_operator.planned import ModelPlan
from cotenant_operator.planner import Planned, Planner
from cotenant_operator.secrets_by_name import SecretsByName

SOURCE, TOKEN = "hf://corp/private", "hf_of_team_b"
OLD, NEW = "1" * 40, "2" * 40


class Secrets:
    """An API server that has the Secret `b`, and a token in it."""

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        if name != "b":
            raise NotFoundError("none", status=404)
        data = {"token": base64.b64encode(TOKEN.encode()).decode()}
        return {**SECRETS.new(name, namespace, data=data), "metadata": {"name": name, "namespace": namespace}}


class Hubs:
    """Show `corp/private`, whose branch is at `head`, to those alone who have the token. Keep what they are asked."""

    def __init__(self) -> None:
        self.head, self.down = NEW, False
        self.asked: list[Question] = []

    def __call__(self, question: Question) -> Facts:
        self.asked.append(question)
        if self.down:
            return HubUnreachableError("the hub does not answer")
        if question.access.token != TOKEN:
            return ModelNotFoundError(f"there is no {question.source}, or not for this token")
        commit = question.source.partition("@")[2] or self.head
        return facts(source=f"{SOURCE}@{commit}", fingerprint=commit)


def pool(name: str, **cache: Any) -> Object:
    workers = [{"name": "cpu", "device": "cpu", "memory": "8Gi"}]
    item = POOLS.new(name, spec={"namespaces": [f"team-{name}"], "workers": workers, "cache": cache})
    item["metadata"] |= {"uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
    return item


def model(team: str, *, name: str = "chat", of: str = "", **more: Any) -> Object:
    item = deployment(name, 1, namespace=f"team-{team}", **more)
    item["spec"] = {"model": SOURCE, "pool": of or team}
    return item


A = pool("a")
B = pool("b", hub={"secretRef": {"name": "b", "key": "token"}})


class Stage:
    """A planner over these objects, which a test may change."""

    def __init__(self, *objects: Object, hubs: Hubs) -> None:
        self.objects: dict[str, dict[Key, Object]] = {"ModelDeployment": {}, "GPUPool": {}}
        for item in objects:
            self.objects[item["kind"]][key_of(item)] = item
        self.news = asyncio.Event()
        self.planner = Planner(
            namespace="ours",
            objects=lambda: (self.objects["ModelDeployment"], {}, self.objects["GPUPool"]),
            secrets=SecretsByName(Secrets(), "ours", lambda name: None),
            always=(),
            facts=FactsBook(hubs, self.news.set),
        )

    async def planned(self) -> Planned:
        self.planner.touch()
        return await self.planner.planned()

    async def settled(self) -> dict[str, ModelPlan]:
        """Once all that is read has been read."""
        async with asyncio.timeout(60):
            while True:
                models = (await self.planned()).models
                if not any(_pending(made) for made in models.values()):
                    return dict(models)
                await self.news.wait()
                self.news.clear()


def _pending(made: ModelPlan) -> bool:
    return made.refusal is not None and made.refusal.reason == "FactsPending"


def reason(made: ModelPlan) -> str:
    return str(made.refusal.reason) if made.refusal else "accepted"


async def test_a_pool_without_a_token_neither_hides_a_model_from_another_pool_nor_sees_it_by_its_token() -> None:
    hubs = Hubs()
    made = await Stage(model("a"), model("b"), A, B, hubs=hubs).settled()

    assert {name: reason(item) for name, item in made.items()} == {
        "team-a/chat": "ModelNotFound",
        "team-b/chat": "accepted",
    }
    assert sorted(question.access.token for question in hubs.asked) == ["", TOKEN], "each pool asks once"


async def test_pools_of_one_hub_and_one_secret_ask_once_and_others_once_each() -> None:
    hubs = Hubs()
    mirror = pool("c", hub={"endpoint": "https://mirror.example", "secretRef": {"name": "b", "key": "token"}})
    same = pool("d", hub={"secretRef": {"name": "b", "key": "token"}})
    made = await Stage(model("b"), model("c"), model("d"), B, mirror, same, hubs=hubs).settled()

    assert {reason(item) for item in made.values()} == {"accepted"}
    assert sorted(question.access.endpoint for question in hubs.asked) == [
        "https://huggingface.co",
        "https://mirror.example",
    ]


async def test_each_pool_keeps_to_the_commit_that_its_own_models_were_pinned_to() -> None:
    mirror = pool("c", hub={"endpoint": "https://mirror.example", "secretRef": {"name": "b", "key": "token"}})
    old = model("b", status={"observedGeneration": 1, "source": f"{SOURCE}@{OLD}"})
    made = await Stage(old, model("c"), B, mirror, hubs=Hubs()).settled()

    found = {name: item.engine.source for name, item in made.items() if item.engine is not None}
    assert found == {"team-b/chat": f"{SOURCE}@{OLD}", "team-c/chat": f"{SOURCE}@{NEW}"}


async def test_whoever_may_not_use_a_pool_has_nothing_read_with_its_token() -> None:
    hubs = Hubs()
    made = await Stage(model("a", of="b"), model("b", of="nowhere"), A, B, hubs=hubs).settled()

    assert {name: reason(item) for name, item in made.items()} == {
        "team-a/chat": "NotAllowed",
        "team-b/chat": "PoolNotFound",
    }
    assert hubs.asked == []


async def test_a_folder_is_read_once_for_all_pools() -> None:
    hubs = Hubs()
    models = [model("a"), model("b")]
    for item in models:
        item["spec"]["model"] = "file:///models/small"
    await Stage(*models, A, B, hubs=hubs).settled()

    assert [question.source for question in hubs.asked] == ["file:///models/small"]
