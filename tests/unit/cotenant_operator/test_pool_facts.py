"""What models of a hub are is known to a pool by its own hub and token alone."""

import asyncio
import base64
import threading
from typing import Any

import pytest
from tests.builders.operator import facts
from tests.builders.watched_api import deployment

from cotenant_cache.errors import HubUnreachableError, ModelNotFoundError
from cotenant_operator import planner
from cotenant_operator.actions import Actions, Apply, Remove
from cotenant_operator.cluster_errors import NotFoundError
from cotenant_operator.facts_book import Facts, FactsBook, Question
from cotenant_operator.kinds import CONFIG_MAPS, POOLS, SECRETS, Key, Kind, Object, key_of
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.planned import ModelPlan
from cotenant_operator.planner import Planned, Planner
from cotenant_operator.pool_pass import PoolInput, decide
from cotenant_operator.pool_world import ConductorSeen, PoolWorld
from cotenant_operator.roll_world import Roll, Told
from cotenant_operator.secrets_by_name import SecretsByName
from cotenant_serving.contract import Desired, PoolStatus
from cotenant_serving.packed_config import unpacked


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first plan waits for as long as this machine needs."""
    monkeypatch.setattr(planner, "FIRST_S", 60.0)


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
    """Show models whose branches are at `head` to those alone who have the token. Keep what they are asked."""

    def __init__(self) -> None:
        self.head, self.down = NEW, False
        self.open = threading.Event()
        self.open.set()
        self.asked: list[Question] = []

    def __call__(self, question: Question) -> Facts:
        self.asked.append(question)
        self.open.wait(60)
        if self.down:
            return HubUnreachableError("the hub does not answer")
        if question.access.token != TOKEN:
            return ModelNotFoundError(f"there is no {question.source}, or not for this token")
        repo, _, commit = question.source.partition("@")
        return facts(source=f"{repo}@{commit or self.head}", fingerprint=commit or self.head)


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

    def __init__(self, *objects: Object, hubs: Hubs, kept: tuple[Object, ...] = ()) -> None:
        self.kept = {key_of(item): item for item in kept}
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
            kept=lambda: self.kept,
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


CLUSTER = "b-0123abcd"
NAMES = {kind: f"cotenant-{kind}-b" for kind in ("cache", "facts")}


def passed(planned: Planned, objects: dict[Key, Object], kept: dict[str, Object], told: Desired | None) -> Actions:
    """A pass over pool `b`, with these ConfigMaps, and a conductor that was told that."""
    conductor = ConductorSeen(PoolStatus(pool="b", epoch="e", generation=7, models=(), reconciled=True), desired=told)
    given = PoolInput(
        name="b",
        pool=planned.pools["b"],
        pool_object=B,
        models={name: item for name, item in planned.models.items() if item.pool == "b"},
        objects=objects,
        facts=planned.kept["b"],
        plan=planned.plan.pool("b"),
        world=PoolWorld(
            preload=kept.get(NAMES["cache"]),
            facts=kept.get(NAMES["facts"]),
            conductors={CLUSTER: conductor},
            now_s=1_795_730_000.0,
        ),
        settings=OperatorSettings(namespace="ours"),
    )
    roll = Roll(CLUSTER, "Settled", told={CLUSTER: Told()}, routed=(CLUSTER,))
    return decide(given, lambda *_: roll)


def config_maps(actions: Actions) -> dict[str, Object]:
    """Those that the pass writes."""
    wanted = (item.item for item in actions.writes if isinstance(item, Apply) and item.kind is CONFIG_MAPS)
    return {item["metadata"]["name"]: item for item in wanted}


async def last_leader(hubs: Hubs, *objects: Object) -> tuple[dict[str, Object], Desired]:
    """What it has left: the ConfigMaps of pool `b`, and what it told the conductor."""
    stage = Stage(*objects, hubs=hubs)
    await stage.settled()
    actions = passed(await stage.planned(), stage.objects["ModelDeployment"], {}, None)
    hubs.asked.clear()
    return config_maps(actions), actions.puts[0].desired


def pinned(commit: str, *, generation: int = 1, **more: Any) -> Object:
    return model("b", generation=generation, status={"observedGeneration": 1, "source": f"{SOURCE}@{commit}"}, **more)


async def next_leader(hubs: Hubs, *objects: Object, kept: dict[str, Object]) -> tuple[Stage, Planned]:
    """Its first plan."""
    stage = Stage(*objects, hubs=hubs, kept=(kept[NAMES["facts"]],))
    stage.planner.begin()
    return stage, await stage.planner.planned()


async def test_a_new_operator_without_a_hub_plans_as_the_last_one_did_and_changes_nothing() -> None:
    hubs = Hubs()
    kept, told = await last_leader(hubs, model("b"), B)
    hubs.down = True
    stage, planned = await next_leader(hubs, pinned(NEW), B, kept=kept)
    actions = passed(planned, stage.objects["ModelDeployment"], kept, told)

    assert told.models[0].engine is not None
    assert reason(planned.models["team-b/chat"]) == "accepted"
    assert (config_maps(actions), actions.puts) == ({}, ())
    assert SOURCE in kept[NAMES["cache"]]["data"]["preload.json"]
    assert hubs.asked == []


@pytest.mark.parametrize("edited", [pinned(NEW, generation=2), model("b")])
async def test_an_edit_that_nobody_has_seen_yet_moves_no_branch(edited: Object) -> None:
    hubs = Hubs()
    kept, _ = await last_leader(hubs, model("b"), B)
    hubs.head = OLD
    _, planned = await next_leader(hubs, edited, B, kept=kept)

    made = planned.models["team-b/chat"].engine
    assert made is not None
    assert made.source == f"{SOURCE}@{NEW}"


async def test_a_model_that_was_not_kept_waits_for_its_hub_and_no_other_does() -> None:
    hubs = Hubs()
    kept, _ = await last_leader(hubs, model("b"), B)
    hubs.down = True
    other = model("b", name="other")
    other["spec"]["model"] = "hf://corp/other"
    _, planned = await next_leader(hubs, pinned(NEW), other, B, kept=kept)

    assert {name: reason(item) for name, item in planned.models.items()} == {
        "team-b/chat": "accepted",
        "team-b/other": "HubUnreachable",
    }


async def test_a_commit_that_a_status_names_wins_over_what_was_kept() -> None:
    hubs = Hubs()
    kept, _ = await last_leader(hubs, model("b"), B)
    _, planned = await next_leader(hubs, pinned(OLD), B, kept=kept)

    assert [question.source for question in hubs.asked] == [f"{SOURCE}@{OLD}"]
    assert reason(planned.models["team-b/chat"]) == "accepted"


async def test_who_led_before_goes_on_from_what_the_last_leader_knew_and_not_from_what_it_knew_itself() -> None:
    hubs = Hubs()
    first = Stage(model("b"), B, hubs=hubs)
    await first.settled()
    hubs.head = OLD
    kept, _ = await last_leader(hubs, model("b"), B)
    first.kept = {key_of(item): item for item in kept.values()}
    first.planner.begin()

    made = (await first.planner.planned()).models["team-b/chat"].engine
    assert made is not None
    assert made.source == f"{SOURCE}@{OLD}"


async def test_what_was_kept_for_one_pool_is_shown_to_none_with_another_token() -> None:
    hubs = Hubs()
    kept, _ = await last_leader(hubs, model("b"), B)
    of_b = kept[NAMES["facts"]]
    of_a = {**of_b, "metadata": {**of_b["metadata"], "name": "cotenant-facts-a"}}
    _, planned = await next_leader(hubs, model("a"), A, kept={NAMES["facts"]: of_a})
    assert reason(planned.models["team-a/chat"]) == "ModelNotFound"
    assert planned.kept == {"a": b""}

    hubs.down = True
    without = pool("b")
    _, planned = await next_leader(hubs, pinned(NEW), without, kept=kept)
    assert reason(planned.models["team-b/chat"]) == "HubUnreachable", "its Secret was taken away meanwhile"


async def test_what_cannot_be_read_is_asked_for_again_and_said(caplog: pytest.LogCaptureFixture) -> None:
    hubs = Hubs()
    kept, _ = await last_leader(hubs, model("b"), B)
    damaged = {**kept[NAMES["facts"]], "binaryData": {"facts.json.gz": "AAAA"}}
    _, planned = await next_leader(hubs, pinned(NEW), B, kept={NAMES["facts"]: damaged})

    assert reason(planned.models["team-b/chat"]) == "accepted"
    assert "ConfigMap cotenant-facts-b cannot be read, hubs are asked again" in caplog.text


async def test_a_hub_that_hangs_holds_up_the_first_plan_no_longer_than_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(planner, "FIRST_S", 0.05)
    hubs = Hubs()
    kept, _ = await last_leader(hubs, model("b"), B)
    hubs.open.clear()
    other = model("b", name="other")
    other["spec"]["model"] = "hf://corp/other"
    try:
        stage, planned = await next_leader(hubs, pinned(NEW), other, B, kept=kept)
        assert {name: reason(item) for name, item in planned.models.items()} == {
            "team-b/chat": "accepted",
            "team-b/other": "FactsPending",
        }
    finally:
        hubs.open.set()
    assert {reason(item) for item in (await stage.settled()).values()} == {"accepted"}


async def test_what_is_kept_follows_the_models_that_there_are() -> None:
    hubs = Hubs()
    kept, told = await last_leader(hubs, model("b"), B)
    stage, planned = await next_leader(hubs, pinned(NEW), B, kept=kept)
    live = {**kept[NAMES["facts"]], "metadata": {**kept[NAMES["facts"]]["metadata"], "uid": "uid-facts"}}
    stage.objects["ModelDeployment"].clear()
    actions = passed(await stage.planned(), {}, {**kept, NAMES["facts"]: live}, told)

    assert [item.name for item in actions.writes if isinstance(item, Remove)] == [NAMES["facts"]]
    assert SOURCE in str(unpacked_facts(live))
    spoiled = {**kept, NAMES["facts"]: {**live, "binaryData": {}}}
    again = config_maps(passed(planned, {}, spoiled, told))[NAMES["facts"]]
    assert again["binaryData"] == live["binaryData"], "somebody else's edit is put right"


def unpacked_facts(item: Object) -> bytes:
    return unpacked(base64.b64decode(item["binaryData"]["facts.json.gz"]))
