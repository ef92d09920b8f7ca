"""The loop around the decision, with a programmable Serve and a clock that tests move."""

import asyncio

import pytest
from tests.builders.conductor import beat, desired, device, group, model, pod

from cotenant_serving.conductor.conductor import Conductor, Settings, StaleGenerationError
from cotenant_serving.conductor.observed import App, Observed
from cotenant_serving.conductor.store import Store
from cotenant_serving.contract import Reason
from cotenant_serving.contract_gateway import Demand, ModelDemand


class FakeServe:
    """Serve as the conductor sees it: what was asked of it, and what it answers."""

    def __init__(self) -> None:
        self.running: dict[str, App] = {}
        self.started = []
        self.deleted = []
        self.asked = {}
        self.there = (device(),)
        self.broken = False

    def devices(self, groups):
        return self.there if groups else ()

    def apps(self):
        if self.broken:
            raise ConnectionError("the controller is gone")
        return dict(self.running)

    def start(self, args, node, group):
        self.started.append(args)
        self.running[args.app] = App("running")

    def ask(self, pods):
        self.asked = dict(pods)

    def delete(self, app):
        self.deleted.append(app)
        self.running[app] = App("deleting")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Bench:
    def __init__(self, folder) -> None:
        self.folder, self.clock, self.serve = folder, Clock(), FakeServe()
        self.restart()

    def restart(self, **options) -> None:
        """A new conductor process on the same disk and the same Serve."""
        settings = Settings(url="http://127.0.0.1:1", pool_token_file="pool-token", **options)
        self.conductor = Conductor(Store(self.folder), settings, clock=self.clock)
        self.conductor._driver = self.serve

    def ask(self, count: int = 1, name: str = "search/chat") -> None:
        self.conductor.demanded(Demand(gateway="g", models={name: ModelDemand(queued=count)}))

    def say(self, args, **what) -> None:
        self.conductor.heard(beat(args, **what))

    async def warm(self):
        """One model with one ready engine; returns its args."""
        self.conductor.set_desired(desired(model()))
        self.ask()
        await self.conductor.step()
        self.say(self.serve.started[0])
        await self.conductor.step()
        return self.serve.started[0]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_200_first_requests_start_one_engine(bench):
    bench.conductor.set_desired(desired(model()))
    for count in (1, 50, 200):
        bench.ask(count)
        await bench.conductor.step()
    assert len(bench.serve.started) == 1


async def test_engines_are_told_the_longest_request_that_they_let_finish_when_they_end(bench):
    bench.restart(request_timeout_s=1800.0)
    assert (await bench.warm()).request_timeout_s == 1800


async def test_a_ready_engine_is_in_the_table(bench):
    args = await bench.warm()
    assert [row.model for row in bench.conductor.table.engines] == ["search/chat"]
    assert args.share_bytes == 2 * 1024**3


async def test_the_table_waits_until_running_engines_were_heard_after_a_restart(bench):
    args = await bench.warm()
    bench.restart()
    await bench.conductor.step()
    assert bench.conductor.table.sequence == 0
    bench.say(args)
    await bench.conductor.step()
    assert len(bench.conductor.table.engines) == 1


async def test_a_restarted_conductor_starts_and_deletes_nothing(bench):
    await bench.warm()
    bench.restart()
    for _ in range(10):
        bench.clock.now_s += 1
        await bench.conductor.step()
    assert len(bench.serve.started) == 1
    assert bench.serve.deleted == []


async def test_a_conductor_without_state_adopts_what_runs_and_deletes_nothing(bench, tmp_path):
    args = await bench.warm()
    for file in tmp_path.iterdir():
        file.unlink()
    bench.restart()
    bench.say(args)
    bench.clock.now_s += 5
    await bench.conductor.step()
    assert len(bench.conductor.table.engines) == 1
    assert bench.serve.deleted == []


async def test_an_app_that_serve_is_ending_already_is_not_asked_to_and_its_engine_is_gone(bench):
    """Serve took the call before, and its answer was lost; or the conductor before this one made it."""
    args = await bench.warm()
    bench.serve.running[args.app] = App("deleting")
    bench.conductor.set_desired(desired(generation=2))
    await bench.conductor.step()
    assert bench.serve.deleted == []
    assert bench.conductor.table.engines == ()
    assert bench.conductor.table.gone == (f"i-{args.app}",)


async def test_the_failure_of_an_engine_that_serve_is_ending_already_counts_once(bench):
    args = await bench.warm()
    bench.serve.running[args.app] = App("deleting")
    bench.say(args, state="failed", reason=Reason.LOAD_FAILED, message="no such file")
    for _ in range(3):
        await bench.conductor.step()
    assert bench.conductor._decision.memory["search/chat"].failures == 1


async def test_a_full_disk_keeps_no_engine_from_starting_or_from_the_table(bench):
    placements = bench.folder / "placements.new"
    placements.mkdir()  # nothing can be written there
    args = await bench.warm()
    assert len(bench.conductor.table.engines) == 1
    assert not (bench.folder / "placements.json").exists()
    placements.rmdir()
    await bench.conductor.step()
    assert args.app in Store(bench.folder).placements()


async def test_an_engine_that_goes_silent_leaves_the_table_and_may_come_back(bench):
    args = await bench.warm()
    bench.clock.now_s += 4
    await bench.conductor.step()
    assert bench.conductor.table.engines == ()
    assert bench.conductor.table.gone == bench.conductor.table.silent == (f"i-{args.app}",)
    bench.say(args)
    await bench.conductor.step()
    assert len(bench.conductor.table.engines) == 1
    assert bench.conductor.table.gone == bench.conductor.table.silent == ()


async def test_an_engine_that_was_silent_when_serve_replaced_it_still_counts_as_silent(bench):
    """It was killed, or its node is lost: what it had begun has no end that anybody would hear of."""
    args = await bench.warm()
    bench.clock.now_s += 4
    await bench.conductor.step()
    bench.say(args, instance="second")
    await bench.conductor.step()
    assert [row.instance for row in bench.conductor.table.engines] == ["second"]
    assert bench.conductor.table.gone == bench.conductor.table.silent == (f"i-{args.app}",)


async def test_a_restarted_engine_is_another_instance(bench):
    args = await bench.warm()
    bench.say(args, instance="second")
    await bench.conductor.step()
    assert [row.instance for row in bench.conductor.table.engines] == ["second"]
    assert bench.conductor.table.gone == (f"i-{args.app}",)
    assert bench.conductor.table.silent == ()


async def test_an_engine_that_reports_a_failure_is_deleted_and_named(bench):
    args = await bench.warm()
    bench.say(args, state="failed", reason=Reason.MEMORY_EXCEEDED, message="used 3 GiB of a share of 2 GiB")
    await bench.conductor.step()
    assert bench.serve.deleted == [args.app]
    shown = bench.conductor.status().models[0]
    assert (shown.state, shown.reason) == ("failed", Reason.MEMORY_EXCEEDED)


async def test_late_heartbeats_of_a_deleted_engine_do_not_count_for_the_next_one(bench):
    args = await bench.warm()
    bench.say(args, state="failed", reason=Reason.LOAD_FAILED, message="no")
    await bench.conductor.step()
    del bench.serve.running[args.app]
    bench.clock.now_s += 2
    bench.ask(2)
    await bench.conductor.step()
    assert [a.app for a in bench.serve.started] == [args.app, args.app]
    bench.say(args)  # the process before, once more
    await bench.conductor.step()
    assert bench.conductor.table.engines == ()


async def test_an_app_that_serve_gave_up_is_failed_with_its_message(bench):
    bench.conductor.set_desired(desired(model(min_engines=1)))
    await bench.conductor.step()
    app = bench.serve.started[0].app
    bench.serve.running[app] = App("failed", "The replica died: segmentation fault")
    await bench.conductor.step()
    shown = bench.conductor.status().models[0]
    assert (shown.state, shown.reason) == ("failed", Reason.ENGINE_DIED)
    assert "segmentation fault" in shown.message


async def test_demand_of_a_silent_gateway_ends(bench):
    bench.conductor.set_desired(desired(model(idle_after_s=1.0)))
    bench.ask()
    bench.clock.now_s += 10
    decision = await bench.conductor.step()
    assert decision.starts == ()


async def test_an_older_generation_is_refused(bench):
    bench.conductor.set_desired(desired(model(), generation=5))
    with pytest.raises(StaleGenerationError, match="4 is older than 5"):
        bench.conductor.set_desired(desired(generation=4))


async def test_the_long_poll_answers_when_the_table_changes(bench):
    args = await bench.warm()
    seen = bench.conductor.table
    poll = asyncio.create_task(bench.conductor.table_after(seen.epoch, seen.sequence, 30))
    bench.say(args, state="draining")
    await bench.conductor.step()
    news = await poll
    assert news is not None
    assert news.engines == ()
    assert await bench.conductor.table_after(news.epoch, news.sequence, 0.01) is None


async def test_a_short_silence_of_serve_is_survived(bench):
    await bench.warm()
    bench.serve.broken = True
    loop = asyncio.create_task(bench.conductor.run(bench.serve))
    await asyncio.sleep(0.05)
    assert not loop.done()
    bench.clock.now_s += 60
    bench.conductor._kick.set()
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(loop, 10)


async def test_the_desired_state_survives_on_disk(bench, tmp_path):
    await bench.warm()
    assert Store(tmp_path).desired() == desired(model())
    assert list(Store(tmp_path).placements()) == ["search.chat-r1-0"]
    (tmp_path / "desired.json").write_bytes(b"{torn")
    assert Store(tmp_path).desired() is None
    assert oct((tmp_path / "placements.json").stat().st_mode)[-3:] == "600"


async def test_a_delete_that_serve_refused_comes_again(bench):
    args = await bench.warm()
    bench.say(args, state="failed", reason=Reason.LOAD_FAILED, message="no")
    refuse, bench.serve.delete = bench.serve.delete, broken_delete
    await bench.conductor.step()
    bench.serve.delete = refuse
    assert bench.serve.deleted == []
    await bench.conductor.step()
    assert bench.serve.deleted == [args.app]


def broken_delete(app):
    raise ConnectionError("the controller restarts")


async def test_an_engine_that_never_speaks_is_given_up_and_frees_its_device(bench):
    bench.conductor.set_desired(desired(model(min_engines=1)))
    await bench.conductor.step()
    bench.clock.now_s += 121
    await bench.conductor.step()
    assert bench.serve.deleted == [bench.serve.started[0].app]
    assert "not been heard of" in bench.conductor.status().models[0].message


async def test_running_counts_alone_do_not_make_a_new_table(bench):
    args = await bench.warm()
    before = bench.conductor.table.sequence
    bench.say(args, running=3)
    await bench.conductor.step()
    assert bench.conductor.table.sequence == before


async def test_a_pod_is_asked_for_until_it_brings_its_device(bench):
    bench.serve.there = ()
    bench.conductor.set_desired(desired(model(), groups=(group(most=2),)))
    bench.ask()
    await bench.conductor.step()
    assert bench.serve.asked == {"cpu": 1}
    assert bench.conductor.status().groups[0].reason is Reason.POD_PENDING
    bench.serve.there = (pod(),)
    await bench.conductor.step()
    assert bench.serve.asked == {}
    assert [args.device_id for args in bench.serve.started] == [pod().id]


async def test_a_pod_that_does_not_come_is_told_after_the_set_time(bench):
    bench.serve.there = ()
    bench.conductor.set_desired(desired(model(min_engines=1), groups=(group(most=2),)))
    for _ in range(3):
        await bench.conductor.step()
        bench.clock.now_s += 61
    assert bench.conductor.status().groups[0].pending_s == 122.0
    assert bench.conductor.table.models[0].reason is Reason.NO_NODE
    assert bench.serve.asked == {"cpu": 1}


async def test_a_request_to_the_autoscaler_that_failed_comes_again(bench):
    bench.serve.there = ()
    bench.conductor.set_desired(desired(model(min_engines=1), groups=(group(most=2),)))
    ask, bench.serve.ask = bench.serve.ask, broken_delete
    await bench.conductor.step()
    bench.serve.ask = ask
    await bench.conductor.step()
    assert bench.serve.asked == {"cpu": 1}


async def test_the_status_counts_requests_engines_and_devices(bench):
    args = await bench.warm()
    bench.say(args, running=3, node="node-7", pod="pool-worker-x")
    await bench.conductor.step()
    shown = bench.conductor.status()
    assert (shown.engines, shown.busy_engines, shown.in_flight, shown.reconciled) == (1, 1, 3, True)
    where = shown.devices[0]
    assert (where.engines, where.running, where.node, where.pod) == (1, 3, "node-7", "pod-1")
    engine = shown.models[0].engines[0]
    assert (engine.node, engine.pod) == ("node-7", "pool-worker-x")
    assert shown.models[0].load_s == 5.0


async def test_the_status_names_pods_from_which_engines_speak_once_it_has_listened_for_a_minute(bench):
    args = await bench.warm()
    bench.say(args, pod="a")
    assert bench.conductor.status().pods_with_engines is None
    bench.clock.now_s += 61
    bench.say(args, pod="a")
    bench.conductor.heard(beat(args, app="of-nobody", pod="b"))
    assert bench.conductor.status().pods_with_engines == ("a", "b")
    bench.clock.now_s += 30
    bench.say(args, pod="a", state="draining")
    bench.clock.now_s += 31
    assert bench.conductor.status().pods_with_engines == ("a",)
    bench.restart()
    await bench.conductor.step()
    assert bench.conductor.status().pods_with_engines is None


async def test_time_in_which_a_conductor_stood_still_makes_no_pod_silent(bench):
    observed = Observed({}, now_s=0.0)
    observed.heard(beat(await bench.warm(), pod="a"), 70.0)
    observed.overslept(100.0, 180.0)
    assert observed.pods_with_engines(180.0) == ("a",)
    early = Observed({}, now_s=0.0)
    early.overslept(100.0, 110.0)
    assert early.pods_with_engines(110.0) is None, "it has listened for ten seconds of these"


async def test_an_engine_that_ends_counts_until_serve_has_forgotten_it(bench):
    args = await bench.warm()
    bench.conductor.set_desired(desired(generation=2))
    await bench.conductor.step()
    assert bench.conductor.status().engines == 1
    del bench.serve.running[args.app]
    await bench.conductor.step()
    assert bench.conductor.status().engines == 0


async def test_a_draining_cluster_speaks_only_for_the_models_that_it_still_serves(bench):
    await bench.warm()
    bench.conductor.set_desired(desired(model(), model("search/cold"), generation=2, draining=True))
    await bench.conductor.step()
    assert [row.model for row in bench.conductor.table.models] == ["search/chat"]
    assert bench.conductor.status().draining


async def test_a_conductor_that_stood_still_takes_nobody_for_silent(bench):
    """Heartbeats of the time in which it was stopped wait in its socket; they are heard after the pass that comes."""
    args = await bench.warm()

    async def stopped() -> None:
        bench.clock.now_s += 60

    bench.conductor._kick.set()
    await asyncio.gather(bench.conductor._wait(), stopped())
    await bench.conductor.step()
    assert [row.model for row in bench.conductor.table.engines] == ["search/chat"]
    bench.clock.now_s += 4
    await bench.conductor.step()
    assert bench.conductor.table.engines == ()
    assert args.app not in bench.serve.deleted


async def test_a_conductor_on_a_new_disk_counts_the_engines_that_run_as_those_that_are_desired(bench, tmp_path):
    """The head's pod, and its disk with it, was lost; engines and Serve's state were not."""
    args = await bench.warm()
    for file in tmp_path.iterdir():
        file.unlink()
    bench.restart()
    bench.say(args)
    await bench.conductor.step()
    bench.conductor.set_desired(desired(model(min_engines=1), generation=9))
    bench.say(args)
    await bench.conductor.step()
    assert bench.conductor.status().models[0].state == "ready"
    assert (len(bench.serve.started), bench.serve.deleted) == (1, [])


async def test_a_conductor_on_a_new_disk_that_is_told_what_is_desired_waits_for_the_engines_that_run(bench, tmp_path):
    """Running an app again that exists would restart its engine."""
    args = await bench.warm()
    for file in tmp_path.iterdir():
        file.unlink()
    bench.restart()
    bench.conductor.set_desired(desired(model(min_engines=1), generation=9))
    for _ in range(5):
        await bench.conductor.step()
        bench.clock.now_s += 1
    bench.say(args)
    await bench.conductor.step()
    assert bench.conductor.status().models[0].state == "ready"
    assert (len(bench.serve.started), bench.serve.deleted) == (1, [])


async def test_an_app_that_nobody_speaks_for_keeps_its_name_and_goes_in_the_end(bench, tmp_path):
    args = await bench.warm()
    for file in tmp_path.iterdir():
        file.unlink()
    bench.restart()
    bench.conductor.set_desired(desired(model(min_engines=1), generation=9))
    await bench.conductor.step()
    bench.clock.now_s += 11
    await bench.conductor.step()
    assert [one.app for one in bench.serve.started] == [args.app, "search.chat-r1-1"]
    bench.say(bench.serve.started[1])
    bench.clock.now_s += 50
    await bench.conductor.step()
    assert bench.serve.deleted == [args.app]


async def test_what_is_desired_while_serve_is_looked_at_counts_from_the_next_pass(bench):
    """Its groups' devices were not looked for yet: they would all seem to have left."""
    args = await bench.warm()
    bench.restart()
    bench.conductor._desired = None
    look = bench.serve.devices

    def devices(groups):
        bench.conductor.set_desired(desired(model(min_engines=1), generation=2, groups=(group(most=2),)))
        return look(groups)

    bench.serve.devices = devices
    await bench.conductor.step()
    assert (bench.serve.deleted, bench.serve.asked) == ([], {})
    bench.serve.devices = look
    bench.say(args)
    await bench.conductor.step()
    assert bench.conductor.status().models[0].state == "ready"
    assert (len(bench.serve.started), bench.serve.deleted, bench.serve.asked) == (1, [], {})
