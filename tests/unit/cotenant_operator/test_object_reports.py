"""What `get` and `explain` make of objects, pods' logs included: only their status counts."""

from typing import Any

import pytest
from tests.builders.cluster_objects import NOW_S, pool, said, thing, worker

from cotenant_operator.cluster_errors import ClusterError, ConflictError, ForbiddenError, InvalidError, NotFoundError
from cotenant_operator.kube_refusals import MissingRightError, missing_right, refusal, who_grants
from cotenant_operator.object_explanation import explain_object, state_of
from cotenant_operator.object_reports import model_object_rows, pool_object_rows, tenant_object_rows
from cotenant_operator.pod_logs import last_of_each, last_runs, last_words, lines_of
from cotenant_operator.tenant_keys import adding, removing

APP, OLDER = "a.chat-0a1b2c3d-0", "a.chat-00000000-0"


def model(**status: Any) -> dict[str, Any]:
    return thing("ModelDeployment", "chat", "a", spec={"pool": "default"}, status=status)


def cells(table: tuple[tuple[str, ...], list[tuple[str, ...]]]) -> list[dict[str, str]]:
    columns, rows = table
    return [dict(zip(columns, row, strict=True)) for row in rows]


def test_a_model_without_any_status_is_unknown_not_an_error() -> None:
    (row,) = cells(model_object_rows([model()], now_s=NOW_S, wide=True))
    assert (row["READY"], row["REASON"], row["REPLICAS"], row["AGE"]) == ("Unknown", "NotSeenYet", "-", "10m")
    assert "no operator has looked at it" in explain_object(model(), now_s=NOW_S)[0]
    assert state_of(model()) == "unknown"


def test_a_pool_shows_each_device_with_what_is_free() -> None:
    devices = [{"id": "ip/shared/0", "group": "shared", "memory": "80Gi", "reserved": "12Gi", "engines": 1}]
    (row,) = cells(pool_object_rows([pool(worker(), status={"devices": devices})], wide=True))
    assert (row["DEVICE"], row["MEMORY"], row["FREE"], row["ENGINES"]) == ("ip/shared/0", "80Gi", "68Gi", "1")
    (bare,) = cells(pool_object_rows([pool(worker())], wide=True))
    assert (bare["DEVICE"], bare["FREE"]) == ("-", "-")


def test_a_tenant_shows_its_limits_and_counts_but_no_key() -> None:
    keys = [{"secretRef": {"name": "s", "key": "k"}}]
    spec = {"namespaces": ["a"], "limits": {"requestsPerMinute": 60}, "keys": keys}
    status = {"keys": 1, "models": 2, "conditions": [said("Ready", "True", "Ready", "1 key, 2 models")]}
    (row,) = cells(tenant_object_rows([thing("Tenant", "search", spec=spec, status=status)], wide=True))
    assert (row["KEYS"], row["MODELS"], row["REQUESTS/MIN"], row["TOKENS/MIN"]) == ("1", "2", "60", "unlimited")


def test_explain_says_once_what_several_conditions_say_and_what_is_outdated() -> None:
    conditions = [
        said("Accepted", "True", "Fits", "gets 12 GiB"),
        said("Placed", "False", "NoRoom", "all is taken"),
        said("Loaded", "False", "NoRoom", "all is taken"),
        said("Ready", "False", "NoRoom", "all is taken"),
    ]
    item = model(conditions=conditions, observedGeneration=1, revision="1", targetRevision="2")
    item["metadata"]["generation"] = 2
    lines = explain_object(item, now_s=NOW_S, wide=True)
    assert lines[0] == "a/chat: not ready (NoRoom): all is taken"
    assert "  edited since: this is about generation 1, its YAML is at 2" in lines
    assert "  revision 1 serves, 2 is on its way" in lines
    assert "  Accepted: True (Fits) for 1m: gets 12 GiB" in lines
    assert "  Placed, Loaded, Ready: False for 1m" in lines


def raw(second: int, app: str, text: str) -> bytes:
    return f"2026-11-26T10:00:{second:02}.5Z [{app}] 2026-11-26 10:00:{second:02},000 INFO {text}\n".encode()


def test_lines_of_other_models_and_of_ray_are_left_out_also_where_names_begin_alike() -> None:
    pod = [
        raw(1, APP, "mine"),
        raw(2, "a.chat-x-0a1b2c3d-0", "of a/chat-x"),
        raw(3, "b.chat-0a1b2c3d-0", "of another namespace"),
        b"2026-11-26T10:00:04.5Z (raylet) [a.chat] not an engine\n",
        b"no time at all\n",
        f"2026-11-26T10:00:05.5Z [{APP}]   File x, line 1\n".encode(),
    ]
    found = [line for _, line in lines_of(pod, "a/chat")]
    assert [line.text.partition("INFO ")[2] or line.text for line in found] == ["mine", "  File x, line 1"]
    assert found[1].time == found[0].time


def test_only_the_last_run_of_the_newest_revision_is_shown() -> None:
    start = "starting app: process 1, instance {}, port 8800"
    pod = [
        raw(1, APP, start.format("a1")),
        raw(2, APP, "first"),
        raw(3, OLDER, start.format("b1")),
        raw(4, APP, start.format("a2")),
        raw(5, APP, "second"),
        raw(6, OLDER, "late words of the old revision"),
    ]
    lines = [line for _, line in lines_of(pod, "a/chat")]
    assert [line.text[-6:] for line in last_runs(lines)] == ["t 8800", "second"]
    assert [line.text[-6:] for line in last_of_each(lines, 1)] == ["second", "vision"]
    assert last_runs([]) == []


def test_last_words_are_the_state_and_the_newest_events() -> None:
    events = [
        thing("Event", str(number), "a", reason="Placed", message=f"number {number}", eventTime=None)
        for number in range(9)
    ]
    lines = last_words(model(conditions=[said("Ready", "False", "LoadFailed", "out of memory")]), events, now_s=NOW_S)
    assert lines[0] == "a/chat: Ready is False (LoadFailed): out of memory"
    assert len(lines) == 6
    assert lines[-1] == "event 10m ago, Normal Placed: number 8"


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("GET", "/api/v1/nodes", "list nodes"),
        ("GET", "/api/v1/pods", "list pods in all namespaces"),
        ("GET", "/api/v1/namespaces/x/pods/p/log", "get pods/log in namespace x"),
        ("POST", "/api/v1/namespaces/x/secrets", "create secrets in namespace x"),
        ("PATCH", "/apis/cotenant.dev/v1alpha1/tenants/t", "patch tenants.cotenant.dev"),
        ("GET", "/apis/apps/v1/namespaces/x/deployments", "list deployments in namespace x"),
        ("GET", "/version", "get /version"),
    ],
)
def test_a_refused_request_is_told_as_the_right_that_is_lacking(method: str, path: str, right: str) -> None:
    assert missing_right(method, path) == right
    assert isinstance(refusal(403, method, path, b"{}", "here"), MissingRightError)


def test_who_can_grant_a_right_depends_on_the_kind() -> None:
    assert "--clusterrole view" in who_grants("/apis/cotenant.dev/v1alpha1/namespaces/a/modeldeployments")
    assert "clusterrolebinding" in who_grants("/apis/cotenant.dev/v1alpha1/gpupools")
    assert "administrator in namespace x" in who_grants("/api/v1/namespaces/x/pods")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, ForbiddenError), (404, NotFoundError), (409, ConflictError), (422, InvalidError), (500, ClusterError)],
)
def test_other_refusals_keep_the_servers_words(status: int, kind: type[ClusterError]) -> None:
    error = refusal(status, "GET", "/api/v1/nodes", b'{"message": "its words"}', "here")
    assert type(error) is kind
    assert "its words" in str(error) or status == 401


def test_keys_are_added_and_taken_away_only_while_the_tenant_is_the_one_that_was_read() -> None:
    keys = [{"secretRef": {"name": name, "key": "token"}} for name in ("one", "two", "one")]
    tenant = thing("Tenant", "t", spec={"keys": keys})
    tenant["metadata"]["resourceVersion"] = "7"
    unchanged = {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    assert [step["path"] for step in removing(tenant, {("one", "token")})[1:]] == ["/spec/keys/2", "/spec/keys/0"]
    assert adding(tenant, "new")[0] == unchanged
    assert adding(tenant, "new")[1]["path"] == "/spec/keys/-"
    assert adding(thing("Tenant", "t", spec={}), "new")[1]["path"] == "/spec/keys"
