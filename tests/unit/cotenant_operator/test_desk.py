"""From files to orders: what an edit changes, what it leaves, and what is told once."""

import threading

import msgspec
import pytest
import yaml
from tests.builders.up import echo, key_of, keys, model, pool, tenant, until

from cotenant_cache.disk import Volume
from cotenant_cache.errors import HubUnreachableError
from cotenant_operator import desk, model_facts
from cotenant_operator.created_keys import hash_of
from cotenant_operator.desk import Desk
from cotenant_operator.key_book import KeyBook, read_sources
from cotenant_operator.manifests import ManifestErrors
from cotenant_operator.state_dir import StateDir
from cotenant_serving.contract_gateway import GatewayConfig


class Bench:
    def __init__(self, folder) -> None:
        self.file = folder / "models.yaml"
        self.state = StateDir(folder / "state")
        self.state.acquire()
        self.book = KeyBook(self.state.path)
        self.desk = Desk([self.file], self.state, conductor_port=1)

    def write(self, *documents) -> None:
        self.file.write_text(yaml.safe_dump_all(documents))

    def published(self) -> GatewayConfig:
        return msgspec.json.decode(self.state.gateway_config.read_bytes(), type=GatewayConfig)


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.state.release()
    made.state.remove_ray_temp()


BASE = (pool(), tenant("search"), keys("search"))


def test_an_untouched_file_gives_no_news(bench):
    bench.write(*BASE, echo("a"))
    orders = bench.desk.read()
    assert bench.desk.look(orders) is None


def test_an_edit_of_a_tenant_leaves_the_desired_state_alone(bench):
    bench.write(*BASE, echo("a"))
    orders = bench.desk.read()
    bench.write(pool(), tenant("search", limits={"requestsPerMinute": 7}), keys("search"), echo("a"))
    news = bench.desk.look(orders)
    assert news.desired is orders.desired
    assert news.gateway.tenants[0].limits.requests_per_minute == 7


def test_a_new_model_has_a_higher_generation(bench):
    bench.write(*BASE, echo("a"))
    orders = bench.desk.read()
    bench.write(*BASE, echo("a"), echo("b"))
    news = bench.desk.look(orders)
    assert news.desired.generation >= orders.desired.generation
    assert [model.name for model in news.desired.models] == ["search/a", "search/b"]


def test_a_bad_edit_is_told_once_and_changes_nothing(bench):
    bench.write(*BASE, echo("a"))
    orders = bench.desk.read()
    bench.file.write_text("kind: [")
    news = bench.desk.look(orders)
    assert news.desired is orders.desired
    assert "not applied" in news.notes[0]
    assert bench.desk.look(news) is None


def test_the_key_is_hashed_before_it_is_published(bench):
    bench.write(*BASE, echo("a"))
    bench.desk.publish(bench.desk.read())
    text = bench.state.gateway_config.read_text()
    assert key_of("search") not in text
    assert len(bench.published().tenants[0].key_sha256[0]) == 64
    assert oct(bench.state.gateway_config.stat().st_mode)[-3:] == "600"


def test_files_without_a_tenant_get_one_with_a_private_key(bench):
    bench.write(pool(), echo("a"))
    orders = bench.desk.read()
    assert [found.name for found in orders.gateway.tenants] == ["default"]
    assert orders.gateway.tenants[0].models == ("search/a",)
    key = bench.state.secret("default-key")
    assert any(str(key) in note for note in orders.notes)
    assert oct(key.stat().st_mode)[-3:] == "600"


def test_two_pools_are_refused_on_one_machine(bench):
    other = {**pool(), "metadata": {"name": "other"}}
    bench.write(pool(), other, echo("a"))
    with pytest.raises(ManifestErrors, match="one machine runs one GPUPool"):
        bench.desk.read()


def test_an_edited_pool_asks_for_a_restart_and_the_rest_is_applied(bench):
    bench.write(*BASE, echo("a"))
    orders = bench.desk.read()
    bigger = pool({"name": "cpu", "device": "cpu", "memory": "7Gi"})
    bench.write(bigger, tenant("search"), keys("search"), echo("a"), echo("b"))
    news = bench.desk.look(orders)
    assert "restart `cotenant up`" in news.notes[0]
    assert news.desired.groups == orders.desired.groups
    assert len(news.desired.models) == 2


def test_the_hub_is_asked_in_the_background_and_once(bench, monkeypatch):
    asked, answered = [], threading.Event()

    def answer(source, cache_dir, access):
        asked.append(source)
        assert answered.wait(10)
        raise HubUnreachableError(f"{source}: no network; connect")

    monkeypatch.setattr(model_facts, "read_facts", answer)
    documents = (*BASE, model("far", model="hf://owner/name"), echo("near"))
    bench.write(*documents)
    assert reasons(bench.desk.read()) == ["FactsPending", None]
    answered.set()
    until(lambda: reasons(bench.desk.read()) == ["HubUnreachable", None], "the hub's answer is used")
    assert asked == ["hf://owner/name"]


def reasons(orders):
    return [found.refused for found in orders.desired.models]


def test_generations_rise_even_when_the_clock_goes_back(bench, monkeypatch):
    bench.write(*BASE, echo("a"))
    first = bench.desk.read()
    monkeypatch.setattr(desk.time, "time", lambda: 1.0)
    assert bench.desk.read().desired.generation == first.desired.generation + 1


def hashes(orders) -> dict[str, tuple[str, ...]]:
    return {tenant.name: tenant.key_sha256 for tenant in orders.gateway.tenants}


def test_a_created_key_reaches_the_gateway_and_leaves_it_when_it_is_revoked(bench):
    bench.write(*BASE, echo("a"))
    orders = bench.desk.read()
    _, made = bench.book.create("search", now_s=0.0)
    with_key = bench.desk.look(orders)
    assert hashes(with_key)["search"] == (hash_of(key_of("search")), made.sha256)
    assert with_key.gateway.generation > orders.gateway.generation
    assert with_key.desired is orders.desired
    assert bench.desk.look(with_key) is None
    bench.book.revoke(made.id)
    assert hashes(bench.desk.look(with_key)) == hashes(orders)


def test_keys_of_an_earlier_run_work_from_the_start(bench):
    bench.write(*BASE, echo("a"))
    _, made = bench.book.create("search", now_s=0.0)
    assert made.sha256 in hashes(bench.desk.read())["search"]


def test_a_mistake_in_the_files_keeps_no_revoked_key_alive(bench):
    bench.write(*BASE, echo("a"))
    _, made = bench.book.create("search", now_s=0.0)
    orders = bench.desk.read()
    bench.file.write_text("kind: [")
    broken = bench.desk.look(orders)
    bench.book.revoke(made.id)
    assert made.sha256 not in hashes(bench.desk.look(broken))["search"]


def test_an_edit_of_a_file_keeps_the_created_keys(bench):
    bench.write(*BASE, echo("a"))
    _, made = bench.book.create("search", now_s=0.0)
    orders = bench.desk.read()
    bench.write(pool(), tenant("search"), tenant("ads"), keys("search", "ads"), echo("a"))
    news = bench.desk.look(orders)
    assert made.sha256 in hashes(news)["search"]
    assert set(hashes(news)) == {"ads", "search"}


def test_a_damaged_key_file_is_told_once_and_changes_nothing(bench):
    bench.write(*BASE, echo("a"))
    bench.book.create("search", now_s=0.0)
    orders = bench.desk.read()
    bench.book.path.write_text("{")
    news = bench.desk.look(orders)
    assert "keys.json is damaged" in news.notes[0]
    assert hashes(news) == hashes(orders)
    assert bench.desk.look(news) is None


def test_where_the_keys_of_the_files_stand_is_published_without_the_keys(bench):
    bench.write(*BASE, echo("a"))
    bench.desk.publish(bench.desk.read())
    (source,) = read_sources(bench.state.path)
    assert (source.tenant, source.secret, source.key) == ("search", "keys", "search")
    assert source.place.startswith(f"{bench.file}:")
    assert key_of("search") not in (bench.state.path / "key-sources.json").read_text()


def test_the_key_of_the_tenant_that_up_makes_has_its_file_as_its_place(bench):
    bench.write(pool(), echo("a"))
    bench.desk.publish(bench.desk.read())
    assert [source.place for source in read_sources(bench.state.path)] == [str(bench.state.secret("default-key"))]


def test_the_pools_cache_size_is_the_budget_of_every_instance_on_the_machine(bench, tmp_path):
    sized = pool()
    sized["spec"]["cache"] = {"size": "10Gi"}
    bench.write(sized, tenant("search"), keys("search"), echo("a"))
    bench.desk.publish(bench.desk.read())
    assert Volume(bench.state.cache).budget() == 10 * 2**30
    again = Desk([bench.file], bench.state, conductor_port=1)
    bench.write(*BASE, echo("a"))
    again.publish(again.read())
    assert Volume(bench.state.cache).budget() is None
