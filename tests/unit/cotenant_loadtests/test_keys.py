import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from cotenant_loadtests.keys import NoLocalKeys, keys_for, same_server
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.spec import Scenario

KEY = "ct-canary-0123456789"


class LocalUp:
    """A gateway of this machine that makes a key for every tenant."""

    def __init__(self, url: str) -> None:
        self.url, self.asked, self.ended = url, [""], False

    def gateway_url(self) -> str | None:
        return self.url

    @contextlib.contextmanager
    def keys(self, tenants: Sequence[str]) -> Iterator[Mapping[str, str]]:
        self.asked = list(tenants)
        yield {tenant: f"made-for-{tenant}" for tenant in tenants}
        self.ended = True


def scenario(**tenants: dict[str, str]) -> Scenario:
    stream = {"name": "s", "tenant": "search", "model": "m", "arrivals": {"process": "constant", "rate_per_s": 1}}
    return Scenario.model_validate(
        {"name": "x", "streams": [stream], "tenants": {name: {"key": key} for name, key in tenants.items()}}
    )


def refusal(tmp_path: Path, environment: Mapping[str, str] | None = None, **source: str) -> str:
    with (
        pytest.raises(RefusedError) as caught,
        keys_for(scenario(search=source), ["search"], tmp_path, environment or {}, NoLocalKeys()),
    ):
        pass
    return str(caught.value)


def test_a_key_comes_from_a_variable_or_from_a_file_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "ads.key").write_text(f"{KEY}-ads\n")
    given = scenario(search={"env": "SEARCH_KEY"}, ads={"file": "ads.key"})

    with keys_for(given, ["search", "ads"], tmp_path, {"SEARCH_KEY": f" {KEY} "}, NoLocalKeys()) as keys:
        assert keys == {"search": KEY, "ads": f"{KEY}-ads"}


def test_keys_of_tenants_that_send_nothing_are_not_read(tmp_path: Path) -> None:
    with keys_for(scenario(search={"env": "NOT_SET"}), ["ads"], tmp_path, {}, NoLocalKeys()) as keys:
        assert keys == {}


def test_an_unset_variable_is_named_with_its_tenant_and_what_to_do(tmp_path: Path) -> None:
    assert refusal(tmp_path, env="SEARCH_KEY") == (
        "tenants.search.key.env: the variable SEARCH_KEY holds no key; set it, such as by `export SEARCH_KEY=…`"
    )


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    said = refusal(tmp_path, file="search.key")

    assert f"tenants.search.key.file: {tmp_path}/search.key cannot be read: No such file" in said


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "holds no key; it must hold the key and nothing else"),
        (b"two words", "holds what can be no key: line breaks, spaces or characters beyond ASCII"),
        (b"\xff\xfe", "is no text; it must hold the key and nothing else"),
        (b"a\nb", "holds what can be no key: "),
        ("schlüssel".encode(), "holds what can be no key: "),
    ],
)
def test_a_file_that_holds_something_else_is_refused_and_not_quoted(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "search.key").write_bytes(content)

    said = refusal(tmp_path, file="search.key")
    assert why in said
    assert "two words" not in said


@pytest.mark.parametrize("source", [{}, {"env": "A", "file": "b"}])
def test_a_key_has_exactly_one_source(source: dict[str, str], tmp_path: Path) -> None:
    assert "exactly one of env and file" in refusal(tmp_path, **source)


def test_no_error_holds_a_key_that_cannot_stand_in_a_header(tmp_path: Path) -> None:
    assert "secret" not in refusal(tmp_path, {"SEARCH_KEY": "secret\nsecret"}, env="SEARCH_KEY")


def test_tenants_without_a_key_get_one_made_while_the_run_lasts(tmp_path: Path) -> None:
    up = LocalUp("http://127.0.0.1:8080")

    with keys_for(scenario(search={"env": "K"}), ["ads", "search"], tmp_path, {"K": KEY}, up) as keys:
        assert keys == {"search": KEY, "ads": "made-for-ads"}
        assert (up.asked, up.ended) == (["ads"], False)
    assert up.ended


def test_another_target_gets_no_key_of_this_machine(tmp_path: Path) -> None:
    up = LocalUp("http://127.0.0.1:9999")

    with keys_for(scenario(), ["search"], tmp_path, {}, up) as keys:
        assert keys == {}
    assert up.asked == [""]


@pytest.mark.parametrize(
    ("url", "other", "same"),
    [
        ("http://localhost:8080", "http://127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "http://0.0.0.0:8080", True),
        ("http://127.0.0.1:8081", "http://127.0.0.1:8080", False),
        ("https://127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("http://example.org:8080", "http://127.0.0.1:8080", False),
        ("http://127.0.0.1:8080", None, False),
    ],
)
def test_a_server_is_scheme_host_and_port(url: str, other: str | None, same: bool) -> None:
    assert same_server(url, other) is same
