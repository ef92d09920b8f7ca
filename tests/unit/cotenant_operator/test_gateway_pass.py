"""What gateways are told: all of it, above what they know, and only when it changed."""

import base64
from dataclasses import replace
from typing import Any

import msgspec
from tests.builders.gateway_plan import KEY, planned, pool, secret, tenant, whole_bytes
from tests.builders.watched_api import deployment

from cotenant_operator.cluster_manifests import ManifestReader
from cotenant_operator.gateway_pass import (
    GatewayInput,
    changed_pools,
    fitting_config,
    newer,
    said_left_out,
    tenant_statuses,
)
from cotenant_operator.gateway_room import Fitted, Room
from cotenant_operator.kinds import SECRETS
from cotenant_operator.planner import secret_names
from cotenant_serving.contract_gateway import GatewayConfig

NOW_S = 1_795_730_000.0
ALL_FIT = Fitted(GatewayConfig(generation=0), packed_bytes=0)


def new_config(given: GatewayInput) -> GatewayConfig | None:
    return newer(fitting_config(given, Room()).config, given.published, given.now_s)


def given(**more: Any) -> GatewayInput:
    values: dict[str, Any] = {
        "planned": planned([tenant()], [secret(token=KEY)]),
        "routes": {"default": ("http://one",)},
        "gateways": 2,
        "published": None,
        "now_s": NOW_S,
    }
    return GatewayInput(**{**values, **more})


def test_a_tenant_is_known_by_the_hash_of_its_key_and_by_nothing_else() -> None:
    config = new_config(given())
    assert config is not None
    assert KEY not in msgspec.json.encode(config).decode()
    (found,) = config.tenants
    assert (found.name, len(found.key_sha256), found.models) == ("search", 1, ("default/echo",))
    assert (config.gateways, config.conductors) == (2, ("http://one",))
    assert config.models[0].created == 1795730400, "when the ModelDeployment was created"


def test_what_stands_there_already_is_not_published_again() -> None:
    config = new_config(given())
    assert new_config(given(published=config, now_s=NOW_S + 60)) is None


def test_a_change_gets_a_higher_generation_also_when_the_clock_went_back() -> None:
    config = new_config(given())
    assert config is not None
    changed = new_config(given(published=config, gateways=3, now_s=NOW_S - 3600))
    assert changed is not None
    assert changed.generation == config.generation + 1


def test_an_operator_that_just_began_takes_no_conductor_away() -> None:
    config = new_config(given(routes={"default": ("http://one",), "other": ("http://two",)}))
    fresh = given(published=config, routes={"default": None, "other": None})
    assert new_config(fresh) is None
    known = new_config(replace(fresh, routes={"default": ("http://one",), "other": ()}))
    assert known is not None
    assert known.conductors == ("http://one",)


def test_a_gateway_that_none_is_ready_of_still_divides_by_one() -> None:
    config = new_config(given(gateways=0))
    assert config is not None
    assert config.gateways == 1


def test_a_secret_that_lacks_the_key_is_said_in_the_tenants_status() -> None:
    tenants = {("", "search"): tenant(key="other")}
    found = tenant_statuses(planned([tenant(key="other")], [secret(token=KEY)]), tenants, NOW_S, ALL_FIT)
    ready = next(item for item in found[0].status["conditions"] if item["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "KeyMissing")
    assert "has no key 'other'" in ready["message"]
    assert KEY not in str(found)


def test_a_status_of_a_tenant_is_written_once() -> None:
    plans = planned([tenant()], [secret(token=KEY)])
    (first,) = tenant_statuses(plans, {("", "search"): tenant()}, NOW_S, ALL_FIT)
    again = {("", "search"): {**tenant(), "status": first.status}}
    assert tenant_statuses(plans, again, NOW_S + 60, ALL_FIT) == ()


def test_only_the_secrets_that_objects_name_are_read() -> None:
    reader = ManifestReader("ours")
    hub = {"secretRef": {"name": "hub", "key": "token"}}
    item = pool()
    item["spec"]["cache"] = {"hub": hub}
    names = secret_names(reader.tenants({("", "search"): tenant()}), reader.pools({("", "default"): item}))
    assert names == {"search-key", "hub"}


def test_a_pool_is_looked_at_again_when_its_secret_comes_or_goes() -> None:
    before = planned([tenant()], [])
    lacks = replace(before, missing_secrets={"default": "Secret 'hub' is not in namespace ours"})
    assert changed_pools(before, lacks, ["default", "other"]) == ["default"]
    assert changed_pools(lacks, before, ["default", "other"]) == ["default"]
    assert changed_pools(lacks, replace(lacks), ["default", "other"]) == []


def test_a_secret_that_is_no_text_and_has_a_long_name_harms_nobody() -> None:
    odd = SECRETS.new("x" * 200 + ".y", "ours", data={"token": base64.b64encode(b"\xff\xfe").decode()})
    config = new_config(given(planned=planned([tenant()], [odd, secret(token=KEY)])))
    assert config is not None
    assert len(config.tenants[0].key_sha256) == 1


def test_without_room_models_go_before_keys_and_statuses_say_so() -> None:
    whole = fitting_config(given(), Room())
    narrow = fitting_config(given(), Room(packed_bytes=10_000, plain_bytes=whole_bytes(whole.config) - 1))
    assert (narrow.models, narrow.tenants) == ({"default/echo"}, frozenset())
    assert [len(item.key_sha256) for item in narrow.config.tenants] == [1]
    assert narrow.config.tenants[0].models == ()
    plans = planned([tenant()], [secret(token=KEY)])
    (said,) = tenant_statuses(plans, {("", "search"): tenant()}, NOW_S, narrow)
    ready = next(item for item in said.status["conditions"] if item["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "Ready")
    assert ready["message"] == "1 key, 1 model, of which gateways have no room for 1; each of them says so"


def test_a_tenant_without_room_says_that_its_keys_do_not_work() -> None:
    narrow = fitting_config(given(), Room(packed_bytes=10_000, plain_bytes=1))
    assert narrow.tenants == {"search"}
    (said,) = tenant_statuses(planned([tenant()], [secret(token=KEY)]), {("", "search"): tenant()}, NOW_S, narrow)
    ready = next(item for item in said.status["conditions"] if item["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "GatewaysFull")
    assert "its keys do not work" in ready["message"]


def test_an_operator_that_just_began_knows_from_statuses_what_was_left_out() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "GatewaysFull", "message": ""}
    left_out = {**deployment("echo", 1), "status": {"conditions": [condition]}}
    models = {("default", "echo"): left_out, ("default", "other"): deployment("other", 1)}
    assert said_left_out(models) == {"default/echo"}
