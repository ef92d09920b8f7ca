"""The phases until an engine began to answer follow each other and add up to the time that there was."""

import pytest

from cotenant_serving.gateway.timing import server_timing


@pytest.mark.parametrize(
    ("load_s", "said"),
    [
        (None, "queue;dur=2500.0, engine;dur=20.0"),
        (2.0, "start;dur=500.0, load;dur=2000.0, engine;dur=20.0"),
        (0.0, "start;dur=2500.0, load;dur=0.0, engine;dur=20.0"),
        (60.0, "start;dur=0.0, load;dur=2500.0, engine;dur=20.0"),
    ],
    ids=["warm", "cold", "cold, of unknown load time", "cold, and already loading when the request came"],
)
def test_a_wait_is_for_a_slot_or_for_a_wake(load_s: float | None, said: str) -> None:
    assert server_timing(2.5, load_s, 0.02) == said.encode()
