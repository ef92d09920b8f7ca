"""Engines and conductors are killed with -9 at random under load; every answer and every usage record is judged."""

import random
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.builders.load import Load, Outcome, usage_since
from tests.builders.up import Up, echo, keys, kill, pool, tenant, until

from cotenant_operator.control import ControlError
from cotenant_serving.contract import EngineStatus

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

MODELS = ("search/left", "search/right")
KILLS = 50
PAUSE_S = (0.1, 1.0)
"""Between two kills, drawn at random; an engine is back after about two seconds, so several are down at a time."""
CLIENTS = 10


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    twice = {"min": 2, "max": 2}
    models = [echo(name.partition("/")[2], tokensPerSecond=40, replicas=twice) for name in MODELS]
    running = Up(tmp_path_factory.mktemp("up"), pool(), tenant("search"), keys("search"), *models).start()
    until(lambda: len(ready(running)) == 4, "four engines are ready", explain=running.said)
    yield running
    running.stop()


def test_engines_killed_50_times_at_random_break_only_what_they_had_begun(up):
    with Load(up, "search", MODELS, clients=CLIENTS, seed=1) as load:
        kill_engines(up, random.Random(1), KILLS)
        # A slow machine gets fewer answers through between two kills: the load goes on until there are enough.
        until(lambda: load.verdicts()["complete"] > 100, "more than 100 requests are complete")
    verdicts = load.verdicts()
    assert set(verdicts) == {"complete", "broken"}, verdicts
    assert verdicts["complete"] > 100
    assert verdicts["broken"] > 10
    until(lambda: len(ready(up)) == 4, "every engine is back", explain=up.said)
    check_usage(usage_since(up, load.began, load.at()), load.outcomes)


def test_conductors_killed_under_load_break_nothing_and_restart_no_engine(up):
    until(lambda: len(ready(up)) == 4, "four engines are ready", explain=up.said)
    engines = ready(up)
    with Load(up, "search", MODELS, clients=CLIENTS, seed=2) as load:
        for _ in range(4):
            kill_conductor(up)
    assert set(load.verdicts()) == {"complete"}, load.verdicts()
    assert load.at() > 20
    assert ready(up).keys() == engines.keys()
    check_usage(usage_since(up, load.began, load.at()), load.outcomes)


def test_an_engine_that_dies_while_the_conductor_is_away_leaves_the_others_serving_and_comes_back(up):
    until(lambda: len(ready(up)) == 4, "four engines are ready", explain=up.said)
    rng = random.Random(3)
    with Load(up, "search", MODELS, clients=CLIENTS, seed=3) as load:
        for _ in range(3):
            victim = rng.choice(sorted(ready(up).values(), key=lambda engine: engine.pid))
            kill(up.child("cotenant_serving.conductor").pid)
            kill(victim.pid)
            until(lambda: len(ready(up)) == 4 and victim.instance not in ready(up), "the engine is back")  # noqa: B023
    assert set(load.verdicts()) <= {"complete", "broken"}, load.verdicts()
    assert load.verdicts()["complete"] > 20
    check_usage(usage_since(up, load.began, load.at()), load.outcomes)


def kill_engines(up: Up, rng: random.Random, count: int) -> None:
    """One engine after the other, each at most once, with random pauses; waits only where there is none to kill."""
    killed: set[str] = set()
    while len(killed) < count:
        time.sleep(rng.uniform(*PAUSE_S))
        alive = [engine for name, engine in sorted(ready(up).items()) if name not in killed]
        if alive:
            victim = rng.choice(alive)
            killed.add(victim.instance)
            kill(victim.pid)


def kill_conductor(up: Up) -> None:
    """Returns when the next one knows all engines."""
    old = up.child("cotenant_serving.conductor").pid
    kill(old)
    until(lambda: running_conductor(up) not in (None, old) and len(ready(up)) == 4, "the conductor is back")


def running_conductor(up: Up) -> int | None:
    try:
        return up.child("cotenant_serving.conductor").pid
    except StopIteration:
        return None


def ready(up: Up) -> dict[str, EngineStatus]:
    """instance → engine; empty while no conductor answers."""
    try:
        models = up.status().models
    except ControlError:
        return {}
    return {engine.instance: engine for model in models for engine in model.engines if engine.state == "ready"}


def check_usage(records: list[dict], outcomes: list[Outcome]) -> None:
    """Exactly one record for each request, exact for complete answers, and what was forwarded for broken ones.

    `estimated` also proves that an engine had begun to answer: a request that no engine answered uses nothing.
    """
    assert Counter(record["request_id"] for record in records) == Counter(one.request_id for one in outcomes)
    by_id = {record["request_id"]: record for record in records}
    for one in outcomes:
        record, question = by_id[one.request_id], one.question
        assert (record["tenant"], record["model"], record["status"]) == ("search", question.model, 200)
        counted = (record["outcome"], record["estimated"], record["completion_tokens"])
        if one.verdict == "complete":
            assert counted == ("ok", False, question.tokens)
            assert record["prompt_tokens"] == len(question.words)
        else:
            assert counted == ("upstream_error", True, one.events)
