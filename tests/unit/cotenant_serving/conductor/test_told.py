"""What clients are told of a model: enough to know what to do, and nothing of who else is on the device."""

import pytest
from tests.builders.conductor import GIB, device, engine, model, refused, world

from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.explain import model_row
from cotenant_serving.conductor.told import for_clients
from cotenant_serving.conductor.world import Failure, ModelMemory, World
from cotenant_serving.contract import ModelStatus, Reason
from cotenant_serving.gateway import holding

SECRET = "ads/secret-launch"
HOLDER = engine(model=SECRET, share=7 * GIB)
HOLDER_BUSY = engine(model=SECRET, share=7 * GIB, running=1)
ASKED = {"search/chat": 1}
FAILED = Failure(reason=Reason.LOAD_FAILED, message="/home/ads/weights/secret-launch.safetensors is damaged")
NEVER_SHOWN = ("secret", "ads/", "ads.", "/home", "10.0.0.1", "r1")


WORLDS = {
    "no room": world(model(), model(SECRET, share=7 * GIB), engines=(HOLDER_BUSY,), demand=ASKED),
    "a victim ends": world(model(), model(SECRET, share=7 * GIB), engines=(HOLDER,), demand=ASKED),
    "the start lease is taken": world(
        model(), model(SECRET), engines=(engine("starting", model=SECRET),), demand=ASKED
    ),
    "an engine starts": world(model(), demand=ASKED),
    "an engine is starting": world(model(), engines=(engine("starting"),), demand=ASKED),
    "an engine loads": world(model(), engines=(engine("loading"),), demand=ASKED),
    "loading failed": world(
        model(),
        demand=ASKED,
        memory={"search/chat": ModelMemory(failed_revision="r1", failure=FAILED, retry_at_s=1010.0)},
    ),
    "refused": world(refused()),
    "no device": world(model(), devices=(device(group="secret-group"),), demand=ASKED),
    "cold": world(model()),
}


@pytest.mark.parametrize("given", WORLDS.values(), ids=WORLDS.keys())
def test_no_client_reads_a_name_that_its_tenant_does_not_see(given: World) -> None:
    assert given.desired is not None
    mine = given.desired.models[0]
    status = next(one for one in decide(given).models if one.model == mine.name)
    row = model_row(status, mine)
    problems = (
        holding.refusal(row.model, row, eta_s=500.0, remaining_s=1.0, unreachable_s=None),
        holding.held_too_long(row.model, row, eta_s=None),
        holding.unready(row.model, row, eta_s=None, unreachable_s=None),
    )
    for problem in filter(None, problems):
        assert problem.status == 503
        assert not [name for name in NEVER_SHOWN if name in problem.message]


def test_its_owner_still_reads_who_holds_the_room() -> None:
    status = next(one for one in decide(WORLDS["no room"]).models if one.model == "search/chat")
    assert "held by ads.secret-launch-r1-0" in status.message


def test_a_client_reads_how_much_the_model_needs() -> None:
    status = next(one for one in decide(WORLDS["no room"]).models if one.model == "search/chat")
    assert for_clients(status, model(share=2 * GIB)) == "needs 2.00 GiB; no device has so much free now"


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.READY, Reason.CONDUCTOR_UNREACHABLE}))
def test_every_reason_of_the_conductor_has_words_for_clients(reason: Reason) -> None:
    assert for_clients(ModelStatus(model="a/a", state="failed", reason=reason), None)
