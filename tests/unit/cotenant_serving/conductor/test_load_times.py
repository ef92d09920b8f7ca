"""What loads have taken, and when a model that wakes will answer."""

from dataclasses import replace

import pytest
from tests.builders.conductor import args, beat, engine, model, pod, spec, world

from cotenant_serving.conductor.cached import NodeCache
from cotenant_serving.conductor.decide import decide
from cotenant_serving.conductor.explain import model_row
from cotenant_serving.conductor.load_times import LoadTimes, ModelLoads
from cotenant_serving.conductor.observed import App, Observed
from cotenant_serving.conductor.world import ModelMemory, World
from cotenant_serving.contract import Fetch, Heartbeat, ModelStatus, WeightsLoad
from cotenant_serving.gateway import holding

GB = 10**9
NAME, SOURCE = "search/chat", "hf://org/chat@" + "a" * 40
ASKED = {NAME: 1}
RATES = LoadTimes(
    bytes_per_s={"download": 0.1 * GB, "disk": GB, "memory": 4 * GB},
    rest_s=6.0,
    models={NAME: ModelLoads(read_bytes=8 * GB, rest_s=5.0, read_from="disk")},
)
CHAT = model(source=SOURCE, weights=8 * GB)
HERE, NOT_HERE = NodeCache(frozenset({SOURCE})), NodeCache()


def ready(load: WeightsLoad | None, *, name: str = NAME, load_s: float = 30.0) -> Heartbeat:
    return beat(args(spec(name)), load=load, load_s=load_s)


def status(given: World) -> ModelStatus:
    return next(one for one in decide(given).models if one.model == NAME)


# What is learned.


def test_each_rung_has_a_rate_of_its_own() -> None:
    times = LoadTimes()
    times = times.learned(ready(WeightsLoad(fetched_bytes=8 * GB, fetched_s=80, read_bytes=8 * GB, read_s=2)))
    times = times.learned(ready(WeightsLoad(read_bytes=8 * GB, read_s=8, read_from="disk")))
    times = times.learned(ready(WeightsLoad(read_bytes=8 * GB, read_s=1, read_from="memory")))
    assert times.bytes_per_s["download"] == 0.1 * GB
    assert GB <= times.bytes_per_s["disk"] < 4 * GB
    assert times.bytes_per_s["memory"] == 8 * GB


def test_a_rate_follows_what_loads_take_lately() -> None:
    times = LoadTimes(bytes_per_s={"disk": float(GB)})
    for _ in range(12):
        times = times.learned(ready(WeightsLoad(read_bytes=8 * GB, read_s=2)))
    assert times.bytes_per_s["disk"] == pytest.approx(4 * GB, rel=0.02)


def test_small_models_teach_no_rate_and_still_their_own_start() -> None:
    times = LoadTimes().learned(ready(WeightsLoad(read_bytes=10**6, read_s=1.0), load_s=9.0))
    assert times.bytes_per_s == {}
    assert times.models[NAME].rest_s == 8.0


def test_what_neither_fetching_nor_reading_took_is_the_models_own() -> None:
    load = WeightsLoad(fetched_bytes=8 * GB, fetched_s=80, read_bytes=8 * GB, read_s=4)
    assert LoadTimes().learned(ready(load, load_s=90.0)).models[NAME].rest_s == 6.0


def test_an_engine_without_weights_teaches_nothing() -> None:
    assert LoadTimes().learned(ready(None)) == LoadTimes()


def test_each_load_counts_once_however_often_its_engine_speaks() -> None:
    observed = Observed({}, now_s=0.0)
    observed.started(args(spec()), 0.0)
    observed.heard(ready(WeightsLoad(read_bytes=GB, read_s=1)), 1.0)
    once = observed.loads
    for _ in range(5):
        observed.heard(ready(WeightsLoad(read_bytes=GB, read_s=1)), 1.0)
    assert observed.loads is once
    assert once.bytes_per_s == {"disk": GB}


def test_a_conductor_that_begins_anew_learns_from_the_engines_that_run() -> None:
    observed = Observed({}, now_s=0.0)
    told = ready(WeightsLoad(read_bytes=GB, read_s=1))
    observed.heard(told, 1.0)
    observed.reconcile({told.app: App("running")}, 2.0)
    assert observed.loads.bytes_per_s == {"disk": GB}


# What is expected.


def test_a_load_from_disk_takes_its_read_and_the_models_own_time() -> None:
    assert RATES.expected_s(NAME, 8 * GB) == 5 + 8


def test_a_download_comes_on_top_and_is_read_from_memory_then() -> None:
    assert RATES.expected_s(NAME, 8 * GB, download=True) == 5 + 80 + 2


def test_a_model_that_was_read_from_memory_will_be_again() -> None:
    warm = replace(RATES, models={NAME: ModelLoads(read_bytes=8 * GB, rest_s=5.0, read_from="memory")})
    assert warm.expected_s(NAME, 8 * GB) == 5 + 2


def test_a_model_that_never_ran_starts_as_others_do() -> None:
    assert RATES.expected_s("b/new", 2 * GB) == 6 + 2
    assert RATES.expected_s("b/new", 2 * GB, download=True) == 6 + 20 + 0.5
    assert RATES.expected_s("b/new", 0) is None


def test_a_rate_that_nobody_has_seen_promises_nothing() -> None:
    unknown = LoadTimes(rest_s=6.0, bytes_per_s={"disk": float(GB)})
    assert unknown.expected_s(NAME, 8 * GB, download=True) is None
    assert unknown.expected_s(NAME, 8 * GB) == 14


# When a model answers.


def eta(*, caches: dict[str, NodeCache] | None = None, loads: LoadTimes = RATES, **told: object) -> float | None:
    there = () if not told else (engine("loading", on=pod(1), source=SOURCE, weights=8 * GB, **told),)  # type: ignore[arg-type]
    given = world(CHAT, devices=(pod(1),), engines=there, caches=caches, loads=loads)
    return model_row(status(given)).eta_s


def test_a_cold_model_on_disk_is_expected_after_its_load() -> None:
    assert eta(caches={pod(1).node: HERE}) == 15


def test_a_cold_model_that_no_node_has_is_expected_after_its_download_too() -> None:
    assert eta(caches={pod(1).node: NOT_HERE}) == 90


def test_where_no_cache_answers_a_model_counts_as_on_disk() -> None:
    assert eta() == 15


def test_an_engine_that_fetches_is_expected_when_the_fetch_and_its_load_are_done() -> None:
    fetch = Fetch(done_bytes=3_100_000_000, total_bytes=8 * GB, bytes_per_s=0.1225 * GB)
    assert fetch.eta_s == pytest.approx(40)
    assert eta(age_s=30.0, fetch=fetch, load=WeightsLoad(fetched_bytes=GB, fetched_s=25)) == 55


def test_a_fetch_that_stalls_has_no_eta() -> None:
    assert eta(age_s=30.0, fetch=Fetch(done_bytes=1, total_bytes=8 * GB)) is None


def test_the_first_load_of_all_is_expected_when_its_fetch_is_done() -> None:
    fetch = Fetch(done_bytes=4 * GB, total_bytes=8 * GB, bytes_per_s=0.1 * GB)
    assert eta(loads=LoadTimes(), fetch=fetch) == 40


def test_after_a_fetch_only_what_passed_besides_counts() -> None:
    load = WeightsLoad(fetched_bytes=8 * GB, fetched_s=80)
    assert eta(age_s=83.0, load=load) == 10


def test_without_rates_the_measured_load_is_what_is_expected() -> None:
    given = world(CHAT, devices=(pod(1),), memory={NAME: ModelMemory(load_s=33.0)})
    assert model_row(status(given)).eta_s == 35


def test_the_time_of_a_load_from_disk_is_not_promised_of_a_download() -> None:
    caches = {pod(1).node: NOT_HERE}
    given = world(CHAT, devices=(pod(1),), memory={NAME: ModelMemory(load_s=33.0)}, caches=caches)
    assert model_row(status(given)).eta_s is None


@pytest.mark.parametrize(("cache", "expected_s"), [(HERE, 15), (NOT_HERE, 90)])
def test_an_engine_that_starts_is_expected_by_what_its_own_node_has(cache: NodeCache, expected_s: float) -> None:
    """Another node has the weights, which is of no use to it."""
    one = engine("starting", on=pod(1), source=SOURCE, weights=8 * GB)
    caches = {pod(1).node: cache, pod(2).node: HERE}
    given = world(CHAT, devices=(pod(1), pod(2)), engines=(one,), demand=ASKED, caches=caches, loads=RATES)
    assert model_row(status(given)).eta_s == expected_s


# What is said of it.


def fetching() -> World:
    fetch = Fetch(done_bytes=3_100_000_000, total_bytes=8 * GB, bytes_per_s=0.1225 * GB)
    one = engine("loading", on=pod(1), source=SOURCE, weights=8 * GB, fetch=fetch, state="loading")
    return world(CHAT, devices=(pod(1),), engines=(one,), demand=ASKED, loads=RATES)


def test_its_owner_reads_how_far_the_fetch_is() -> None:
    assert status(fetching()).message == (
        "search.chat-r1-0 on 10.0.1.1/cpu/0: its weights are being fetched: 3.1 of 8.0 GB, about 40 s"
    )


def test_a_client_that_is_refused_reads_it_too_and_when_to_come_back() -> None:
    row = model_row(status(fetching()), CHAT)
    problem = holding.refusal(NAME, row, eta_s=row.eta_s, remaining_s=20.0, unreachable_s=None)
    assert problem is not None
    assert "its weights are being fetched: 3.1 of 8.0 GB, about 40 s. " in problem.message
    assert problem.headers["retry-after"] == "55"


def test_a_client_whose_hold_is_longer_waits() -> None:
    row = model_row(status(fetching()), CHAT)
    assert holding.refusal(NAME, row, eta_s=row.eta_s, remaining_s=60.0, unreachable_s=None) is None


@pytest.mark.parametrize(
    ("cache", "words"), [(HERE, "its weights are on this node"), (NOT_HERE, "its weights must be fetched")]
)
def test_its_owner_reads_of_an_engine_that_starts_where_its_weights_are(cache: NodeCache, words: str) -> None:
    one = engine("starting", on=pod(1), source=SOURCE)
    given = world(CHAT, devices=(pod(1),), engines=(one,), demand=ASKED, caches={pod(1).node: cache})
    assert status(given).message == f"search.chat-r1-0 starts on 10.0.1.1/cpu/0; {words}"
