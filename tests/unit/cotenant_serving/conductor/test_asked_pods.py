"""Pods that are asked for: as many as wanted, and none that nobody remembers, whatever Ray does in between."""

import threading

import pytest

from cotenant_serving.conductor.asked_pods import AskedPods


class Ray:
    """Keeps what was asked for and not taken back."""

    def __init__(self) -> None:
        self.made = 0
        self.pending: dict[int, str] = {}
        self.came: set[int] = set()
        self.fails_at = 0
        """The number of the call that fails; 0: none."""
        self.calls = 0
        self.go = threading.Event()
        self.go.set()
        self.hangs = threading.Event()
        """Somebody is in a call that does not end."""

    def ask(self, group: str) -> int:
        self._call()
        self.made += 1
        self.pending[self.made] = group
        return self.made

    def take_back(self, asked: int) -> None:
        self._call()
        self.pending.pop(asked, None)

    def waits(self, asked: int) -> bool:
        self._call()
        return asked in self.pending and asked not in self.came

    def groups(self) -> list[str]:
        return sorted(self.pending.values())

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the GCS does not answer")
        if not self.go.is_set():
            self.hangs.set()
            assert self.go.wait(20)


def asking(ray: Ray) -> AskedPods:
    return AskedPods(ray.ask, ray.take_back, ray.waits)


def test_as_many_are_asked_for_as_wanted_and_the_same_again_asks_for_nothing() -> None:
    ray = Ray()
    pods = asking(ray)
    for _ in range(2):
        pods.set({"cpu": 2, "mig": 1})
        assert (ray.groups(), ray.made) == (["cpu", "cpu", "mig"], 3)
    pods.set({"mig": 1})
    assert (ray.groups(), ray.made) == (["mig"], 3)
    pods.set({})
    assert ray.groups() == []


def test_one_that_got_its_device_is_taken_back_and_asked_for_anew_only_if_one_more_is_wanted() -> None:
    ray = Ray()
    pods = asking(ray)
    pods.set({"cpu": 2})
    ray.came.add(1)
    pods.set({"cpu": 1})
    assert list(ray.pending) == [2]
    ray.came.add(2)
    pods.set({"cpu": 1})
    assert list(ray.pending) == [3]


@pytest.mark.parametrize("fails_at", range(1, 12))
def test_a_call_that_fails_anywhere_leaves_nothing_behind(fails_at: int) -> None:
    ray = Ray()
    pods = asking(ray)
    ray.fails_at = fails_at
    for wanted in ({"cpu": 3}, {"cpu": 1, "mig": 2}, {"cpu": 2, "mig": 1}):
        try:
            pods.set(wanted)
        except RuntimeError:
            pods.set(wanted)
        assert ray.groups() == sorted(group for group, count in wanted.items() for _ in range(count))
    pods.set({})
    assert ray.groups() == []


def test_a_call_that_hangs_while_the_next_one_comes_asks_for_nothing_twice() -> None:
    ray = Ray()
    pods = asking(ray)
    ray.go.clear()
    threads = [threading.Thread(target=pods.set, args=({"cpu": 1},)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert ray.hangs.wait(20)
    ray.go.set()
    for thread in threads:
        thread.join(20)
    assert ray.groups() == ["cpu"]
    pods.set({})
    assert ray.groups() == []
