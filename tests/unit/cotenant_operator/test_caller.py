"""In whose name `chat` and `embed` call, and with which key."""

from pathlib import Path

import pytest

from cotenant_operator.caller import Caller, choose_caller, given_key, made_key
from cotenant_operator.created_keys import hash_of
from cotenant_operator.failure import Failure, FlagError
from cotenant_operator.key_book import KeyBook
from cotenant_serving.contract_gateway import GatewayConfig, GatewayModel, GatewayTenant

CONFIG = GatewayConfig(
    generation=1,
    tenants=(
        GatewayTenant(name="search", models=("search/chat", "search/mail")),
        GatewayTenant(name="ads", models=("ads/mail", "search/chat")),
        GatewayTenant(name="idle"),
    ),
    models=tuple(
        GatewayModel(name=name, task="echo") for name in ("search/chat", "search/mail", "ads/mail", "hr/dark")
    ),
)


@pytest.mark.parametrize(
    ("model", "tenant", "caller"),
    [
        ("ads/mail", None, Caller("ads", "ads/mail")),
        ("chat", "ads", Caller("ads", "search/chat")),
        ("mail", "search", Caller("search", "search/mail")),
    ],
)
def test_the_one_tenant_that_sees_the_model_calls_or_the_one_that_is_named(
    model: str, tenant: str | None, caller: Caller
) -> None:
    assert choose_caller(CONFIG, model, tenant) == caller


@pytest.mark.parametrize(
    ("model", "tenant", "message"),
    [
        ("chat", None, "several tenants see search/chat: ads, search; say which one calls with --tenant"),
        ("mail", None, "'mail' is ambiguous; say one of: ads/mail, search/mail"),
        ("dark", None, "no tenant sees hr/dark; add a tenant to its spec.tenants"),
        ("chat", "idle", "tenant 'idle' does not see search/chat"),
        ("chat", "serch", "there is no tenant 'serch'; did you mean 'search'"),
        ("chta", None, "there is no model 'chta'; did you mean 'search/chat'"),
    ],
)
def test_what_cannot_be_decided_says_how_to_decide_it(model: str, tenant: str | None, message: str) -> None:
    with pytest.raises(Failure, match=message):
        choose_caller(CONFIG, model, tenant)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_made_key_is_listed_with_its_maker_and_ends_with_the_command(tmp_path: Path) -> None:
    clock = Clock()
    with made_key(tmp_path, "ads", "cotenant chat", clock) as key:
        (kept,) = KeyBook(tmp_path).read()
        assert (kept.tenant, kept.made_by, kept.expires) == ("ads", "cotenant chat", clock.now_s + 900)
        assert key.now() not in (tmp_path / "keys.json").read_text()
    assert KeyBook(tmp_path).read() == ()


def test_a_key_in_use_is_prolonged(tmp_path: Path) -> None:
    clock = Clock()
    with made_key(tmp_path, "ads", "cotenant chat", clock) as key:
        value, (kept,) = key.now(), KeyBook(tmp_path).read()
        clock.now_s += 400
        assert key.now() == value
        assert KeyBook(tmp_path).read() == (kept,)  # more than half is left
        clock.now_s += 100
        assert key.now() == value
        assert KeyBook(tmp_path).read()[0].expires == clock.now_s + 900


@pytest.mark.parametrize("ended", ["expired", "revoked"])
def test_a_key_that_ended_meanwhile_is_made_anew(tmp_path: Path, ended: str) -> None:
    clock, book = Clock(), KeyBook(tmp_path)
    with made_key(tmp_path, "ads", "cotenant chat", clock) as key:
        value, (kept,) = key.now(), book.read()
        clock.now_s += 2000 if ended == "expired" else 600
        if ended == "revoked":
            book.revoke(kept.id)
        assert key.now() != value
        assert [item.id for item in book.read()] == [hash_of(key.now())[:12]]
    assert book.read() == ()


def test_a_key_that_is_made_when_ctrl_c_comes_is_revoked(tmp_path: Path) -> None:
    book, seen = KeyBook(tmp_path), []

    def interrupted(state: Path, key: str, digest: str) -> bool:
        seen.extend(item.sha256 for item in book.read())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), made_key(tmp_path, "ads", "cotenant chat", Clock(), interrupted):
        pass
    assert len(seen) == 1
    assert book.read() == ()


def test_a_given_key_comes_from_the_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("ct-file\n")

    found = given_key(file, {"COTENANT_API_KEY": "ct-environment"})
    assert found is not None
    assert found.now() == "ct-file"
    from_environment = given_key(None, {"COTENANT_API_KEY": " ct-environment "})
    assert from_environment is not None
    assert from_environment.now() == "ct-environment"
    assert given_key(None, {"COTENANT_API_KEY": ""}) is None


@pytest.mark.parametrize("content", [b"", b"  \n", b"two keys", b"\xff\xfe", "schlüssel".encode()])
def test_a_file_without_a_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)

    with pytest.raises(FlagError, match="holds no key") as caught:
        given_key(file, {})
    assert "two keys" not in str(caught.value)
