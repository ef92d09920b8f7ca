"""Lists and watches over a real socket: what is kept is what the API server has, whatever happens to a connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.builders.watched_api import GONE, HANG, WatchedApi, bookmark, connected, deployment, event

from cotenant_operator.cluster import Cluster
from cotenant_operator.cluster_errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnreachableError,
)
from cotenant_operator.kinds import MODELS, Object
from cotenant_operator.watching import ABSENT_S, DOUBTS, Watched

pytestmark = pytest.mark.integration


class Pauses:
    """Sleeps that end at once, and are remembered."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def watched(
    cluster: Cluster, *, silence_s: float = 30.0, pauses: Pauses | None = None
) -> AsyncIterator[tuple[Watched, list[tuple[str, str]]]]:
    """It runs meanwhile; with the changes that it told, as (name before, name now)."""
    changes: list[tuple[str, str]] = []

    def changed(before: Object | None, now: Object | None) -> None:
        changes.append(tuple(item["metadata"]["name"] if item else "" for item in (before, now)))  # type: ignore[arg-type]

    found = Watched(cluster, MODELS, changed=changed, silence_s=silence_s, sleep=pauses or Pauses())
    task = asyncio.create_task(found.run())
    try:
        yield found, changes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def names(found: Watched) -> set[str]:
    return {name for _, name in found.objects}


async def test_objects_are_listed_and_then_followed(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists, api.list_version = [[deployment("old", 3), deployment("gone", 4)]], 5
    api.watches = [[event("ADDED", deployment("new", 6)), event("DELETED", deployment("gone", 7)), HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, changes):
        await until(lambda: names(found) == {"old", "new"})
    assert changes == [("", "old"), ("", "gone"), ("", "new"), ("gone", "")]
    assert api.asked[1][2]["resourceVersion"] == "5"
    assert api.asked[1][2]["allowWatchBookmarks"] == "true"
    assert "managedFields" not in found.objects["default", "old"]["metadata"]


async def test_a_watch_that_ends_goes_on_from_the_last_bookmark(tmp_path: Path) -> None:
    api = WatchedApi()
    api.watches = [[event("ADDED", deployment("one", 6)), bookmark(90)], [HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, _):
        await until(lambda: len(api.asked) == 3)
        assert names(found) == {"one"}
    assert [query.get("resourceVersion") for _, _, query in api.asked] == [None, "1", "90"]


async def test_a_place_that_is_too_old_lists_again_and_misses_nothing(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists = [[deployment("stays", 2), deployment("goes", 3)], [deployment("stays", 2), deployment("comes", 40)]]
    api.watches = [[GONE], [HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, changes):
        await until(lambda: names(found) == {"stays", "comes"})
    assert changes == [("", "stays"), ("", "goes"), ("", "comes"), ("goes", "")]


async def test_a_410_instead_of_a_watch_lists_again(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists, api.watches = [[], [deployment("one", 9)]], [410, [HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, _):
        await until(lambda: names(found) == {"one"})


async def test_a_watch_that_falls_silent_is_opened_anew_where_it_stopped(tmp_path: Path) -> None:
    api = WatchedApi()
    api.watches = [[event("ADDED", deployment("one", 6)), HANG], [event("ADDED", deployment("two", 7)), HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster, silence_s=2) as (found, _):
        await until(lambda: names(found) == {"one", "two"})
    assert api.asked[2][2]["resourceVersion"] == "6"


async def test_a_watch_that_does_not_begin_is_opened_anew_long_before_one_is_silent(tmp_path: Path) -> None:
    api = WatchedApi()
    api.watches = [HANG, [event("ADDED", deployment("one", 6)), HANG]]
    async with connected(api, tmp_path) as cluster:
        cluster.open_s = 2
        async with watched(cluster, silence_s=3600) as (found, _):
            await until(lambda: names(found) == {"one"})


async def test_a_server_that_asks_for_time_gets_it(tmp_path: Path) -> None:
    api, pauses = WatchedApi(), Pauses()
    api.lists, api.retry_after = [429, [deployment("one", 2)]], "17"
    async with connected(api, tmp_path) as cluster, watched(cluster, pauses=pauses) as (found, _):
        await until(lambda: names(found) == {"one"})
    assert pauses.seconds[0] >= 17


async def test_failures_in_a_row_are_tried_again_ever_later_and_known_objects_stay(tmp_path: Path) -> None:
    api, pauses = WatchedApi(), Pauses()
    api.lists = [[deployment("one", 2)]]
    api.watches = [500, 500, 500, 500, [event("ADDED", deployment("two", 3)), HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster, pauses=pauses) as (found, _):
        await until(lambda: names(found) == {"one", "two"})
        assert found.problem == ""
    shortest = [0.1, 0.2, 0.4, 0.8]
    assert all(least <= pause <= 2 * least for least, pause in zip(shortest, pauses.seconds, strict=False))


async def test_a_place_that_is_refused_again_and_again_is_given_up(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists = [[deployment("one", 900)], [deployment("two", 2)]]
    api.watches = [*[500] * DOUBTS, [HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, changes):
        await until(lambda: names(found) == {"two"})
    assert changes == [("", "one"), ("", "two"), ("one", "")]


async def test_an_api_server_with_too_much_to_do_is_not_asked_for_lists(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists = [[deployment("one", 2)], 500]
    api.watches = [*[503] * (2 * DOUBTS), [event("ADDED", deployment("two", 3)), HANG]]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, _):
        await until(lambda: names(found) == {"one", "two"})
    assert [query for _, _, query in api.asked if "watch" not in query] == [api.asked[0][2]]


async def test_a_kind_that_is_not_installed_is_looked_for_until_it_is(tmp_path: Path) -> None:
    api, pauses = WatchedApi(), Pauses()
    api.lists = [404]
    async with connected(api, tmp_path) as cluster, watched(cluster, pauses=pauses) as (found, _):
        await until(lambda: found.absent and len(pauses.seconds) > 1)
        assert found.synced
        api.lists = [[deployment("one", 2)]]
        await until(lambda: names(found) == {"one"})
        assert not found.absent
    assert pauses.seconds[:2] == [ABSENT_S, ABSENT_S]


async def test_a_kind_that_is_taken_away_takes_its_objects_along(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists, api.watches = [[deployment("one", 2)], 404], [404]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, changes):
        await until(lambda: found.absent)
    assert changes == [("", "one"), ("one", "")]


async def test_rights_that_are_missing_are_said_and_wanted_again(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists = [403]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, _):
        await until(lambda: "as the test wants it" in found.problem)
        assert not found.synced
        api.lists = [[deployment("one", 2)]]
        await until(lambda: found.synced)


async def test_what_was_just_written_never_hides_what_came_meanwhile(tmp_path: Path) -> None:
    api = WatchedApi()
    api.lists = [[deployment("one", 2)]]
    async with connected(api, tmp_path) as cluster, watched(cluster) as (found, _):
        await until(lambda: names(found) == {"one"})
        before = found.objects["default", "one"]
        found.put(before, {**before, "status": {"written": True}})
        assert found.objects["default", "one"]["status"] == {"written": True}
        found.put(before, {**before, "status": {"late": True}})
        assert found.objects["default", "one"]["status"] == {"written": True}


async def test_an_apply_says_who_we_are_and_takes_only_our_fields(tmp_path: Path) -> None:
    api = WatchedApi()
    async with connected(api, tmp_path) as cluster:
        await cluster.apply(MODELS, deployment("one", 1), subresource="status")
    verb, path, query = api.asked[0]
    assert (verb, path) == ("PATCH", "/apis/cotenant.dev/v1alpha1/namespaces/default/modeldeployments/one/status")
    assert query == {"fieldManager": "cotenant-operator", "force": "true"}
    assert api.headers[0]["Content-Type"] == "application/apply-patch+yaml"
    assert api.headers[0]["User-Agent"] == "cotenant-operator/1.2.3"
    assert api.headers[0]["Authorization"] == "Bearer a-token"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (422, InvalidError),
        (429, UnreachableError),
        (500, UnreachableError),
        (503, UnreachableError),
    ],
)
async def test_every_refusal_has_its_kind_of_error(tmp_path: Path, status: int, error: type[Exception]) -> None:
    api = WatchedApi()
    api.lists = [status]
    async with connected(api, tmp_path) as cluster:
        with pytest.raises(error, match="as the test wants it"):
            await cluster.get(MODELS, "one", "default")
        assert cluster.calls == {("GET", status): 1}


async def test_a_list_of_metadata_asks_the_api_server_for_nothing_else(tmp_path: Path) -> None:
    api = WatchedApi()
    async with connected(api, tmp_path) as cluster:
        await cluster.list(MODELS, "ours", labels="a=b", metadata_only=True)
        await cluster.list(MODELS, "ours")
    accepted = [headers["Accept"] for headers in api.headers]
    assert accepted == ["application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "application/json"]
