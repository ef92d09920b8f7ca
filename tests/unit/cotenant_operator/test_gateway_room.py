"""What is written for gateways always has room, and never holds a key that was revoked."""

import hashlib
import random
from dataclasses import dataclass

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cotenant_operator.first_objects import gateway_secret
from cotenant_operator.gateway_pass import newer
from cotenant_operator.gateway_room import Fitted, Room, fitted
from cotenant_serving.contract_gateway import GatewayConfig, GatewayModel, GatewayTenant
from cotenant_serving.packed_config import packed, unpacked

API_SERVER_BYTES = 1 << 20
"""What Kubernetes takes in the values of a Secret."""


@dataclass(frozen=True)
class Sizes:
    tenants: int
    keys: int
    models: int
    conductors: int = 1


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def config_of(sizes: Sizes, *, seed: int = 0, revoked: frozenset[str] = frozenset()) -> GatewayConfig:
    chance = random.Random(seed)
    names = [f"team-{digest(f'{seed} {number}')[:6]}/model-{number:05}" for number in range(sizes.models)]
    models = tuple(GatewayModel(name=name, created=1_795_730_000 + chance.randrange(10**6)) for name in sorted(names))
    tenants = []
    for number in range(sizes.tenants):
        keys = (digest(f"{seed} key {number} {key}") for key in range(sizes.keys))
        tenants.append(
            GatewayTenant(
                name=f"tenant-{number:05}",
                key_sha256=tuple(key for key in keys if key not in revoked),
                models=tuple(sorted(chance.sample(names, min(len(names), 20)))),
            )
        )
    conductors = tuple(f"http://{digest(str(number))}:8700" for number in range(sizes.conductors))
    return GatewayConfig(generation=0, conductors=conductors, tenants=tuple(tenants), models=models)


def keys_in(config: GatewayConfig) -> set[str]:
    return {key for tenant in config.tenants for key in tenant.key_sha256}


def created(config: GatewayConfig) -> dict[str, int]:
    """The later by name is the older."""
    return {tenant.name: 10**6 - number for number, tenant in enumerate(config.tenants)}


def fit(config: GatewayConfig, room: Room) -> Fitted:
    return fitted(config, created(config), room)


SIZES = st.builds(
    Sizes, tenants=st.integers(0, 40), keys=st.integers(0, 5), models=st.integers(0, 80), conductors=st.integers(0, 5)
)
ROOMS = st.builds(Room, packed_bytes=st.integers(500, 12_000), plain_bytes=st.integers(300, 60_000))


@settings(deadline=None, max_examples=150)
@given(sizes=SIZES, room=ROOMS, seed=st.integers(0, 1000), now_s=st.integers(0, 2**40), data=st.data())
def test_a_revoked_key_is_never_written_and_what_is_written_has_room(
    sizes: Sizes, room: Room, seed: int, now_s: int, data: st.DataObject
) -> None:
    before = config_of(sizes, seed=seed)
    revoked = frozenset(data.draw(st.sets(st.sampled_from(sorted(keys_in(before))))) if keys_in(before) else ())
    found = fit(config_of(sizes, seed=seed, revoked=revoked), room)
    written = newer(found.config, before, float(now_s))
    holds = before if written is None else written
    assert not keys_in(holds) & revoked
    if written is not None:
        raw = msgspec.json.encode(written)
        assert len(raw) <= room.plain_bytes
        assert len(packed(raw)) <= room.packed_bytes


@settings(deadline=None, max_examples=60)
@given(sizes=SIZES, room=ROOMS)
def test_nothing_is_lost_without_being_named_and_what_stays_is_as_it_was(sizes: Sizes, room: Room) -> None:
    config = config_of(sizes)
    found = fit(config, room)
    assert {model.name for model in config.models} == {model.name for model in found.config.models} | found.models
    assert {item.name for item in config.tenants} == {item.name for item in found.config.tenants} | found.tenants
    was = {tenant.name: tenant for tenant in config.tenants}
    for tenant in found.config.tenants:
        kept = tuple(name for name in was[tenant.name].models if name not in found.models)
        assert tenant == msgspec.structs.replace(was[tenant.name], models=kept)
    assert not found.tenants or not found.config.models, "keys go only after all models"
    assert found == fit(config, room), "the same again"


def test_what_has_room_is_written_whole() -> None:
    config = config_of(Sizes(tenants=100, keys=2, models=1000))
    found = fit(config, Room())
    assert (found.config, found.models, found.tenants) == (config, frozenset(), frozenset())


def test_the_youngest_models_go_first_and_no_key_does() -> None:
    config = config_of(Sizes(tenants=20, keys=3, models=200))
    found = fit(config, Room(packed_bytes=5_500))
    assert found.models
    assert found.config.models
    ages = {model.name: (model.created, model.name) for model in config.models}
    assert max(ages[model.name] for model in found.config.models) < min(ages[name] for name in found.models)
    assert keys_in(found.config) == keys_in(config)
    more = Room(packed_bytes=6_000)
    assert fit(config, more).models <= found.models


def test_without_room_for_all_keys_the_youngest_tenants_are_closed() -> None:
    config = config_of(Sizes(tenants=50, keys=3, models=10))
    found = fit(config, Room(packed_bytes=4_000))
    assert found.models == {model.name for model in config.models}
    assert found.tenants
    assert found.config.tenants
    assert max(item.name for item in config.tenants if item.name in found.tenants) < min(
        item.name for item in found.config.tenants
    )


def test_a_cluster_that_is_far_too_large_is_still_taken_by_the_api_server() -> None:
    config = config_of(Sizes(tenants=20_000, keys=2, models=2_000))
    found = fit(config, Room())
    assert found.tenants
    secret = gateway_secret("ours", msgspec.json.encode(msgspec.structs.replace(found.config, generation=10**13)))
    (text,) = secret["data"].values()
    assert len(text) * 3 // 4 < API_SERVER_BYTES


def test_the_same_content_is_packed_to_the_same_bytes_and_comes_back() -> None:
    raw = msgspec.json.encode(config_of(Sizes(tenants=10, keys=2, models=10)))
    assert packed(raw) == packed(raw)
    assert unpacked(packed(raw)) == raw
    assert unpacked(raw) == raw, "what was never packed is read as it is"
