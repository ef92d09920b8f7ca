"""The programs of a real `up` get new tokens while requests run: in three steps, without a restart or a refusal."""

import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders.load import Load, echo_chats
from tests.builders.up import Up, echo, key_of, keys, pool, tenant, until

from cotenant_operator.control import ControlClient

pytestmark = pytest.mark.integration

WAIT_S = 4.0
"""As whoever changes a token waits: several heartbeats of each engine, and looks at its file of the gateway."""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    documents = (pool(), echo("warm"), echo("cold"), tenant("search"), keys("search"))
    running = Up(tmp_path_factory.mktemp("up"), *documents).start()
    yield running
    running.stop()


def ask(up: Up, model: str) -> int:
    return up.chat("search", model, "one two", max_tokens=4)[0]


def put(path: Path, *tokens: str) -> None:
    new = path.with_name("new-token")
    new.touch(mode=0o600)
    new.write_text("\n".join(tokens))
    new.replace(path)


def opens(up: Up, path: str, token: str) -> int:
    request = urllib.request.Request(ControlClient.of_state(up.state).url + path)
    request.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(("name", "path"), [("pool-token", "/v1/table?wait_s=0"), ("control-token", "/v1/status")])
def test_a_token_is_changed_while_requests_run(up: Up, name: str, path: str, tmp_path: Path) -> None:
    file = up.state / "secrets" / name
    old, new = file.read_text().strip(), secrets.token_urlsafe(32)
    scenario = echo_chats(up.url, "search", ["warm"], rate_per_s=40, seed=1, words=(1, 4))
    with Load(scenario, {"search": key_of("search")}, tmp_path) as load:
        until(lambda: load.succeeded > 10, "answers come", explain=up.said)
        for tokens in ((old, new), (new, old), (new,)):
            put(file, *tokens)
            time.sleep(WAIT_S)
        enough = load.succeeded + 40
        until(lambda: load.succeeded > enough, "answers still come", explain=up.said)
    assert load.wrong("ok") == []
    assert up.retries("foreign") == 0, "no engine has refused what the gateway showed"
    assert (opens(up, path, old), opens(up, path, new)) == (401, 200)
    warm = next(model for model in up.status().models if model.model == "search/warm")
    assert warm.ready_engines == 1, "its heartbeats are taken"


def test_after_that_a_cold_model_wakes_and_an_edit_takes_effect(up: Up) -> None:
    assert ask(up, "cold") == 200
    up.write(pool(), echo("warm"), echo("later"), tenant("search"), keys("search"))
    until(lambda: ask(up, "later") == 200, "the new model answers", explain=up.said)
