"""The start lease of a device: one holder, kept by heartbeats, re-asserted after a restart."""

from dataclasses import dataclass

import msgspec
import pytest
from tests.builders.conductor import args, beat, spec

from cotenant_serving.conductor.leases import Leases


@dataclass
class Asking:
    leases: Leases

    def ask(self, name: str, now_s: float, *, state: str = "waiting", holds: bool = False) -> bool:
        told = beat(args(spec(f"x/{name}")), state=state, holds_lease=holds, instance=name)
        return self.leases.answer(told, now_s)


@pytest.fixture
def asking() -> Asking:
    return Asking(Leases(now_s=0.0, ttl_s=3.0, grace_s=1.5))


def test_one_engine_at_a_time_may_load(asking):
    assert asking.ask("a", 2.0)
    assert not asking.ask("b", 2.1)


def test_the_lease_is_free_when_its_holder_is_ready(asking):
    asking.ask("a", 2.0)
    asking.ask("a", 2.5, state="ready")
    assert asking.ask("b", 2.6)


def test_a_dead_holder_loses_it_after_its_time_to_live(asking):
    asking.ask("a", 2.0)
    assert not asking.ask("b", 4.9)
    assert asking.ask("b", 5.1)


def test_heartbeats_keep_it(asking):
    asking.ask("a", 2.0)
    for now_s in (4.0, 6.0, 8.0):
        assert asking.ask("a", now_s, state="loading", holds=True)
    assert not asking.ask("b", 10.0)


def test_nothing_is_granted_just_after_a_restart_but_a_holder_re_asserts(asking):
    assert not asking.ask("b", 0.2)
    assert asking.ask("a", 0.5, state="loading", holds=True)
    assert not asking.ask("b", 2.0)


def test_another_device_has_a_lease_of_its_own(asking):
    asking.ask("a", 2.0)
    told = beat(args(spec("x/b")), state="waiting", instance="b")
    assert asking.leases.answer(msgspec.structs.replace(told, device_id="10.0.0.1/cpu/1"), 2.1)
