"""Words that move all the time, made to move seldom: a status is written once for each."""

import itertools
import random

import pytest
from tests.builders import observed as see
from tests.builders.operator import SOURCE, facts, model, pool, world
from tests.golden import conditions as shown

from cotenant_operator.explanation import explain
from cotenant_operator.neighbours import steady
from cotenant_operator.object_status import model_status
from cotenant_operator.objects import World
from cotenant_operator.plan import plan
from cotenant_serving.conductor.told import fetching
from cotenant_serving.contract import Fetch, Reason

GB = 10**9


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("its weights must be fetched: 8.0 GB, about 5 s", "its weights must be fetched: 8.0 GB, about 5 s"),
        ("about 15 s", "about 20 s"),
        ("about 40 s", "about 1 min"),
        ("about 120 s", "about 2 min"),
        ("about 12 min", "about 20 min"),
        ("about 1440 min", "more than 600 min"),
        ("asked for 47 s ago; then about 35 s", "asked for over 30 s ago; then about 1 min"),
        ("did not come in 120 s", "did not come in over 120 s"),
        ("3.1 of 8.0 GB, about 40 s", "2.4 of 8.0 GB, about 1 min"),
        ("0.0 of 8.0 GB", "0.0 of 8.0 GB"),
        ("8.0 of 8.0 GB", "8.0 of 8.0 GB"),
        ("799 of 800 MB", "720 of 800 MB"),
        ("0 of 0 MB", "0 of 0 MB"),
        ("reading weights: 456 of 1000 bytes at 1.23 GB/s 46 %", "reading weights: 400 of 1000 bytes 40 %"),
        ("needs 4.00 GiB, 1.00 GiB of 8.00 GiB free", "needs 4.00 GiB, 1.00 GiB of 8.00 GiB free"),
    ],
)
def test_what_moves_is_shown_in_steps(said: str, expected: str) -> None:
    assert steady(said) == expected


def test_a_whole_download_writes_the_status_some_thirty_times_and_not_at_every_look() -> None:
    """100 GB at about 100 MB/s, looked at every 2 s; the rate moves by a tenth from look to look."""
    item = model("chat", namespace="search", gpu={"memory": "4Gi"})
    objects = World(world(item, pool(see.SHARED, see.MIG)).manifests, {SOURCE: facts()})
    (planned,) = plan(objects, {}).models
    drawn, statuses = random.Random(8), []
    for second in range(0, 1000, 2):
        rate = 0.1 * GB * drawn.uniform(0.95, 1.05)
        fetch = Fetch(done_bytes=second * GB // 10, total_bytes=100 * GB, bytes_per_s=rate)
        engine = see.engine(state="loading", stage="fetching", fetch=fetch, progress=second / 1000)
        seen = see.seen(state="waking", reason=Reason.LOADING, message=fetching(fetch), engines=(engine,))
        given = {"generation": 1, "previous": statuses[-1] if statuses else None, "now": shown.NOW, "url": shown.URL}
        statuses.append(model_status(planned, see.pool_seen(seen), **given))
    written = 1 + sum(before != after for before, after in itertools.pairwise(statuses))
    assert written <= 40
    assert "over" not in repr(statuses)
    assert "about 20 min" in repr(statuses[0])


def test_the_time_after_a_device_has_come_is_not_sold_as_all_of_it() -> None:
    words = "  answers in about 90 s after its device has come, by what loads have taken"
    assert words in explain(see.seen(state="waking", reason=Reason.POD_PENDING, eta_s=87.0))
