"""Engines and conductors are killed with -9 at random under load; every answer and every usage record is judged."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.bad_days import conductor, ready
from tests.builders.load import Load, echo_chats, usage_since
from tests.builders.up import Up, echo, key_of, keys, kill, pool, tenant, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]

MODELS = ("search/left", "search/right")
KILLS = 50
PAUSE_S = (0.1, 1.0)
"""Between two kills, drawn at random; an engine is back after about two seconds, so several are down at a time."""
RATE_PER_S = 6.0
"""What one engine of each model can serve while the others are down."""
KILLS_IN_A_ROW = 5
"""Then answers must come before the next: on a slow machine kills would outrun engines until requests are late."""
MOST_IN_FLIGHT = 60
"""When another engine is killed: on a slow machine requests would wait for their engines until they are late."""
KEYS = {"search": key_of("search")}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    twice = {"min": 2, "max": 2}
    models = [echo(name.partition("/")[2], tokensPerSecond=40, replicas=twice) for name in MODELS]
    running = Up(tmp_path_factory.mktemp("up"), pool(), tenant("search"), keys("search"), *models).start()
    until(lambda: len(ready(running)) == 4, "four engines are ready", explain=running.said)
    yield running
    running.stop()


def test_engines_killed_50_times_at_random_break_only_what_they_had_begun(up, tmp_path):
    with load_of(up, tmp_path, seed=1) as load:
        kill_engines(up, random.Random(1), KILLS, load)
        # A slow machine gets fewer answers through between two kills: the load goes on until there are enough.
        until(lambda: load.succeeded > 100, "more than 100 requests are complete")
    assert load.wrong("ok", "error_event") == [], said_by_gateway(up)
    assert load.outcomes["ok"] > 100
    assert load.outcomes["error_event"] > 10
    until(lambda: len(ready(up)) == 4, "every engine is back", explain=up.said)
    check_usage(up, load)


def test_conductors_killed_under_load_break_nothing_and_restart_no_engine(up, tmp_path):
    until(lambda: len(ready(up)) == 4, "four engines are ready", explain=up.said)
    engines = ready(up)
    with load_of(up, tmp_path, seed=2) as load:
        for _ in range(4):
            kill_conductor(up)
        until(lambda: load.succeeded > 20, "more than 20 requests are complete")
    assert load.wrong("ok") == []
    assert ready(up).keys() == engines.keys()
    check_usage(up, load)


def test_an_engine_that_dies_while_the_conductor_is_away_leaves_the_others_serving_and_comes_back(up, tmp_path):
    until(lambda: len(ready(up)) == 4, "four engines are ready", explain=up.said)
    rng = random.Random(3)
    with load_of(up, tmp_path, seed=3) as load:
        for _ in range(3):
            victim = rng.choice(sorted(ready(up).values(), key=lambda engine: engine.pid))
            kill(up.child("cotenant_serving.conductor").pid)
            kill(victim.pid)
            until(lambda: len(ready(up)) == 4 and victim.instance not in ready(up), "the engine is back")  # noqa: B023
        until(lambda: load.succeeded > 20, "more than 20 requests are complete")
    assert load.wrong("ok", "error_event") == []
    check_usage(up, load)


def load_of(up: Up, folder: Path, *, seed: int) -> Load:
    return Load(echo_chats(up.url, "search", MODELS, rate_per_s=RATE_PER_S, seed=seed), KEYS, folder)


def kill_engines(up: Up, rng: random.Random, count: int, load: Load) -> None:
    """One engine after the other, each at most once, with random pauses."""
    killed: set[str] = set()
    succeeded = 0
    while len(killed) < count:
        time.sleep(rng.uniform(*PAUSE_S))
        until(lambda: load.in_flight <= MOST_IN_FLIGHT, "the load is served", explain=up.said)
        alive = [engine for name, engine in sorted(ready(up).items()) if name not in killed]
        if alive:
            victim = rng.choice(alive)
            killed.add(victim.instance)
            kill(victim.pid)
            if len(killed) % KILLS_IN_A_ROW == 0:
                until(lambda: load.succeeded > succeeded, "answers come between the kills", explain=up.said)  # noqa: B023
                succeeded = load.succeeded


def said_by_gateway(up: Up) -> str:
    return (up.state / "logs" / "gateway.log").read_text(errors="replace")[-5000:]


def kill_conductor(up: Up) -> None:
    """Returns when the next one knows all engines."""
    old = up.child("cotenant_serving.conductor").pid
    kill(old)
    until(lambda: conductor_pid(up) not in (None, old) and len(ready(up)) == 4, "the conductor is back")


def conductor_pid(up: Up) -> int | None:
    running = conductor(up)
    return running.pid if running else None


def check_usage(up: Up, load: Load) -> None:
    """Exactly one record for each request, exact for complete answers, and what was forwarded for broken ones.

    `estimated` also proves that an engine had begun to answer: a request that no engine answered uses nothing.
    """
    records = usage_since(up, load.began_unix_s, len(load.records))
    assert Counter(record["request_id"] for record in records) == Counter(one.request_id for one in load.records)
    by_id = {record["request_id"]: record for record in records}
    for one in load.records:
        record, words = by_id[one.request_id], load.words(one)
        model = load.planned[one.id].model
        assert (record["tenant"], record["model"], record["status"]) == ("search", model, 200)
        counted = (record["outcome"], record["estimated"], record["completion_tokens"])
        if one.outcome == "ok":
            assert counted == ("ok", False, words + 1)
            assert record["prompt_tokens"] == words
        else:
            assert counted == ("upstream_error", True, one.events)
