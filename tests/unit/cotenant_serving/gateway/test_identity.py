"""Keys, configuration and names of models."""

import os
from pathlib import Path

import msgspec
import pytest
from tests.builders.gateway import config, digest, tenant

from cotenant_serving.contract_gateway import GatewayConfig, GatewayTenant
from cotenant_serving.gateway import catalog
from cotenant_serving.gateway.auth import Keyring, authenticate
from cotenant_serving.gateway.config import ConfigError, index, parse
from cotenant_serving.gateway.config_source import FileSource, Followed
from cotenant_serving.openai_api import RequestError

KEYRING = Keyring([(digest("secret-a"), "a"), (digest("secret-b").upper(), "b")])


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ([(b"authorization", b"Bearer secret-a")], "a"),
        ([(b"authorization", b"bearer  secret-b ")], "b"),
        ([(b"x-api-key", b"secret-a")], "a"),
        ([(b"x-api-key", b"secret-a"), (b"authorization", b"Bearer secret-a")], "a"),
    ],
)
def test_a_key_names_its_tenant(headers, name):
    assert authenticate(headers, KEYRING) == name


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Basic secret-a")],
        [(b"authorization", b"secret-a")],
        [(b"authorization", b"Bearer secret-x")],
        [(b"authorization", b"Bearer \xff\xfe")],
        [(b"authorization", b"Bearer " + digest("secret-a").encode())],
        [(b"authorization", b"Bearer secret-a"), (b"x-api-key", b"secret-b")],
        [(b"authorization", b"Bearer secret-a"), (b"authorization", b"Bearer secret-b")],
    ],
)
def test_everything_else_is_refused_without_repeating_it(headers):
    with pytest.raises(RequestError) as caught:
        authenticate(headers, KEYRING)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrent_requests"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_below_one_makes_the_configuration_unusable(name, value):
    with pytest.raises(ConfigError, match=rf"limits\.{name} of 'search' is {value}; it must be 1 or more"):
        index(config(tenant("search", **{name: value})))


def test_a_key_of_two_tenants_makes_the_configuration_unusable():
    twice = msgspec.structs.replace(tenant("ads"), key_sha256=tenant("search").key_sha256)
    with pytest.raises(ConfigError, match="'search' and 'ads' have the same key"):
        index(config(tenant("search"), twice))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'{"generation":"x"}', b'{"generation":1,"tenants":[{}]}', b"\xff"]
)
def test_a_file_that_is_no_configuration_says_so(raw):
    with pytest.raises(ConfigError, match="not a gateway configuration"):
        parse(raw)


def write(file: Path, value: GatewayConfig) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(value))
    os.replace(temporary, file)


def test_the_file_is_read_again_when_replaced_and_kept_when_broken(tmp_path, caplog):
    file = tmp_path / "gateway.json"
    followed = Followed(FileSource(file))
    assert not followed.poll()
    assert followed.directory is None

    write(file, config(generation=1))
    assert followed.poll()
    assert not followed.poll()
    write(file, config(generation=2))
    assert followed.poll()
    file.write_text("{")
    assert not followed.poll()
    assert followed.directory.config.generation == 2
    assert "is not used" in caplog.text
    file.unlink()
    assert not followed.poll()
    assert followed.directory.config.generation == 2


def test_the_pool_token_follows_its_file(tmp_path, caplog):
    file, token = tmp_path / "gateway.json", tmp_path / "token"
    write(file, config(pool_token_file=str(token)))
    followed = Followed(FileSource(file))
    assert followed.poll()
    assert followed.pool_token == ""

    token.write_text("first\n")
    assert not followed.poll()
    assert followed.pool_token == "first"
    token.write_text("second-one\n")
    followed.poll()
    assert followed.pool_token == "second-one"
    assert "second-one" not in caplog.text


def test_a_pool_token_file_that_is_empty_or_gone_leaves_the_token_as_it_was_and_another_file_does_not(tmp_path):
    file, token = tmp_path / "gateway.json", tmp_path / "token"
    token.write_text("first\n")
    write(file, config(pool_token_file=str(token)))
    followed = Followed(FileSource(file))
    followed.poll()
    token.write_text("\n")
    followed.poll()
    assert followed.pool_token == "first"
    token.unlink()
    followed.poll()
    assert followed.pool_token == "first"
    write(file, config(generation=2, pool_token_file=str(tmp_path / "other")))
    followed.poll()
    assert followed.pool_token == ""


def test_a_bare_name_works_where_it_is_unambiguous():
    view = index(config(tenant(models=("a/x", "b/x", "a/y")), tenant("ads", models=("b/x",)))).tenants
    assert catalog.resolve(view["search"], "y").name == "a/y"
    assert catalog.resolve(view["search"], "b/x").name == "b/x"
    assert catalog.resolve(view["ads"], "x").name == "b/x"
    with pytest.raises(RequestError, match="a/x, b/x") as caught:
        catalog.resolve(view["search"], "x")
    assert caught.value.status == 400
    assert [one["id"] for one in catalog.listing(view["search"])["data"]] == ["a/x", "y", "b/x"]


def test_a_claimed_bare_name_means_its_owner():
    owned = GatewayTenant(name="search", models=("a/x", "b/x"), claims=("b/x",))
    view = index(config(owned)).tenants["search"]

    assert catalog.resolve(view, "x").name == "b/x"
    assert catalog.resolve(view, "a/x").name == "a/x"
    assert [one["id"] for one in catalog.listing(view)["data"]] == ["a/x", "x"]


def test_a_claim_on_a_model_that_is_not_there_means_nothing():
    view = index(config(GatewayTenant(name="search", models=("a/x",), claims=("b/x",)))).tenants["search"]

    assert catalog.resolve(view, "x").name == "a/x"


def test_a_model_that_is_not_visible_is_as_unknown_as_one_that_is_not_there():
    view = index(config(tenant(models=("a/x",)), tenant("ads", models=("b/z",)))).tenants["search"]
    answers = set()
    for name in ("b/z", "b/q", "z", "q", ""):
        with pytest.raises(RequestError) as caught:
            catalog.resolve(view, name)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")
        answers.add(caught.value.message.replace(f"'{name}'", "NAME"))
    assert len(answers) == 1


def test_a_model_that_the_configuration_does_not_describe_is_not_visible():
    view = index(GatewayConfig(generation=1, tenants=(tenant(models=("a/ghost",)),))).tenants["search"]
    assert catalog.listing(view)["data"] == []
