"""Keys that `cotenant loadtest` makes for the tenants of a run."""

import threading
from pathlib import Path

import msgspec
import pytest

from cotenant_loadtests.refusals import RefusedError
from cotenant_operator.caller import MadeKey
from cotenant_operator.created_keys import hash_of
from cotenant_operator.key_book import KeyBook
from cotenant_operator.run_keys import MADE_BY, KeysOfUp
from cotenant_serving.contract_gateway import GatewayConfig, GatewayTenant

TENANTS = [f"tenant-{number}" for number in range(20)]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    config = GatewayConfig(generation=1, tenants=tuple(GatewayTenant(name=name) for name in TENANTS))
    (tmp_path / "gateway.json").write_bytes(msgspec.json.encode(config))
    return tmp_path


class Maker:
    """Keys of a gateway that takes each at once, but for those of one tenant."""

    def __init__(self, state: Path, refused: str = "") -> None:
        self.state, self.refused, self.now_s = state, refused, 1_000.0

    def __call__(self, tenant: str) -> MadeKey:
        return MadeKey(KeyBook(self.state), tenant, MADE_BY, lambda: self.now_s, lambda *_: tenant != self.refused)


def test_each_tenant_has_a_key_of_its_own_until_the_run_is_over(state: Path) -> None:
    with KeysOfUp(state, Maker(state)).keys(TENANTS) as keys:
        assert sorted(keys) == sorted(TENANTS)
        known = {made.sha256: made for made in KeyBook(state).read()}
        assert {known[hash_of(key)].tenant: tenant for tenant, key in keys.items()} == {one: one for one in TENANTS}
        assert {made.made_by for made in known.values()} == {"cotenant loadtest"}
    assert KeyBook(state).read() == ()


def test_keys_are_revoked_when_the_run_breaks_off(state: Path) -> None:
    with pytest.raises(KeyboardInterrupt), KeysOfUp(state, Maker(state)).keys(TENANTS[:2]):
        raise KeyboardInterrupt
    assert KeyBook(state).read() == ()


def test_keys_are_prolonged_while_the_run_lasts(state: Path) -> None:
    maker = Maker(state)
    with KeysOfUp(state, maker, prolonged_s=0.01).keys(TENANTS[:1]):
        (before,) = KeyBook(state).read()
        assert before.expires is not None
        maker.now_s = before.expires - 1
        waiting, over = threading.Event(), 500
        while (now := KeyBook(state).read()[0].expires) == before.expires and over:
            waiting.wait(0.01)
            over -= 1
        assert now is not None
        assert now > before.expires


def test_one_key_that_cannot_be_made_leaves_none_of_the_others(state: Path) -> None:
    with (
        pytest.raises(RefusedError, match="the gateway does not take a key"),
        KeysOfUp(state, Maker(state, refused=TENANTS[3])).keys(TENANTS),
    ):
        pass
    assert KeyBook(state).read() == ()


def test_a_tenant_that_up_does_not_have_is_named_with_what_to_do(state: Path) -> None:
    with pytest.raises(RefusedError) as caught, KeysOfUp(state, Maker(state)).keys(["tenant-x"]):
        pass

    assert "there is no tenant 'tenant-x'; did you mean 'tenant-" in str(caught.value)
    assert "say in tenants.tenant-x.key where its key is" in str(caught.value)


def test_a_state_directory_without_an_up_has_no_gateway(state: Path) -> None:
    assert KeysOfUp(state).gateway_url() is None
