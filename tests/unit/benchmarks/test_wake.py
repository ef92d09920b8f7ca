"""How `bench-wake` splits a wake by the lines of the product's logs."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from benchmarks.wake import PHASES, phases, read_log

APP = "search.chat-8ec5f9a7-0"


def in_utc(local: str) -> str:
    """The conductor's log tells UTC, an engine's local time."""
    at = datetime.fromisoformat(local).astimezone(UTC).replace(tzinfo=None)
    return at.isoformat(timespec="milliseconds") + "Z"


CONDUCTOR = "SIGTERM handler is not set because current thread is not the main thread.\n" + json.dumps(
    {"time": in_utc("2026-11-26 12:00:01.100"), "level": "info", "message": f"starting {APP} on 192.0.2.2/cpu/0"},
    separators=(",", ":"),
)
STARTED = f"""\
2026-11-26 11:00:00,000 INFO starting {APP}: process 31, instance 1, port 8899, 192.0.2.2/cpu/0, share 1536 MiB
2026-11-26 11:00:00,900 INFO ready after 0.9 s
2026-11-26 12:00:03,000 INFO starting {APP}: process 32, instance 2, port 8898, 192.0.2.2/cpu/0, share 1536 MiB
2026-11-26 12:00:03,200 INFO waiting for the start lease of the device
"""
LOADED = """\
2026-11-26 12:00:03,300 INFO loading: importing torch and transformers
2026-11-26 12:00:08,300 INFO loading: reading tokenizer
2026-11-26 12:00:08,400 INFO loading: reading 9185304 bytes of weights
2026-11-26 12:00:08,700 INFO loading: warming up
2026-11-26 12:00:08,800 INFO loading: loaded
2026-11-26 12:00:08,900 INFO ready after 5.9 s
"""


def split(tmp_path: Path, engine: str, *, created: float, answered: float) -> dict[str, float]:
    """Phases of a wake at 12:00:01,000; the times are seconds after that."""
    logs = {"conductor": CONDUCTOR, "engine": engine}
    for name, text in logs.items():
        (tmp_path / name).write_text(text)
    lines = {name: read_log(tmp_path / name) for name in logs}
    asked_s = lines["conductor"][0].at_s - 0.1
    return phases(asked_s, asked_s + answered, asked_s + created, lines["conductor"], lines["engine"], APP)


def test_the_phases_of_a_wake_add_up_to_the_whole(tmp_path: Path) -> None:
    taken = split(tmp_path, STARTED + LOADED, created=1.0, answered=8.5)
    assert list(taken) == list(PHASES)
    assert sum(taken.values()) == pytest.approx(8.5)
    assert taken == pytest.approx(
        {
            "decide": 0.1,
            "Ray": 0.9,
            "process": 1.0,
            "lease": 0.3,
            "imports": 5.0,
            "load": 0.4,
            "first step": 0.2,
            "answer": 0.6,
        },
        abs=1e-3,
    )


def test_a_spare_process_of_ray_costs_no_start_of_a_process(tmp_path: Path) -> None:
    taken = split(tmp_path, STARTED + LOADED, created=-60.0, answered=8.5)
    assert (taken["Ray"], taken["process"]) == pytest.approx((1.9, 0.0), abs=1e-3)


def test_an_engine_that_loads_nothing_has_no_such_phases(tmp_path: Path) -> None:
    ready = "2026-11-26 12:00:03,250 INFO ready after 0.2 s\n"
    taken = split(tmp_path, STARTED + ready, created=-60.0, answered=3.0)
    assert list(taken) == ["decide", "Ray", "process", "lease", "answer"]
    assert sum(taken.values()) == pytest.approx(3.0)
