"""Keys that `cotenant key create` makes: what is kept of them, what the gateway gets, and how they end."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cotenant_operator.created_keys import CreatedKey, KeySource, hash_of, key_id, with_created
from cotenant_operator.key_book import KeyBook, KeysError
from cotenant_operator.keys_report import how_to_remove, key_document, key_rows, keys_per_tenant, known_keys
from cotenant_serving.contract_gateway import GatewayConfig, GatewayTenant

NOW_S = 1_000_000.0


def made(tenant: str = "ads", key: str = "ct-one", **fields: object) -> CreatedKey:
    return CreatedKey(**{"tenant": tenant, "sha256": hash_of(key), "created": NOW_S, **fields})  # type: ignore[arg-type]


def config(**keys: tuple[str, ...]) -> GatewayConfig:
    """Tenant → its keys in the files."""
    tenants = (GatewayTenant(name=name, key_sha256=tuple(map(hash_of, own))) for name, own in keys.items())
    return GatewayConfig(generation=1, tenants=tuple(tenants))


def opened(merged: GatewayConfig) -> dict[str, tuple[str, ...]]:
    return {tenant.name: tenant.key_sha256 for tenant in merged.tenants}


def test_a_tenant_has_the_keys_of_the_files_and_the_created_ones() -> None:
    merged, notes = with_created(config(ads=("ct-file",), search=()), [made()], NOW_S)

    assert opened(merged) == {"ads": (hash_of("ct-file"), hash_of("ct-one")), "search": ()}
    assert notes == ()


def test_a_key_of_a_tenant_that_is_gone_opens_nothing() -> None:
    assert opened(with_created(config(ads=()), [made("gone")], NOW_S)[0]) == {"ads": ()}


def test_a_key_ends_when_its_time_is_over() -> None:
    short = made(expires=NOW_S + 10)

    assert opened(with_created(config(ads=()), [short], NOW_S + 9)[0])["ads"] == (short.sha256,)
    assert opened(with_created(config(ads=()), [short], NOW_S + 10)[0])["ads"] == ()


def test_a_key_that_two_tenants_have_works_for_neither() -> None:
    merged, notes = with_created(config(ads=(), search=("ct-one", "ct-own")), [made("ads", "ct-one")], NOW_S)

    assert opened(merged) == {"ads": (), "search": (hash_of("ct-own"),)}
    assert "ads and search" in notes[0]
    assert f"cotenant key revoke {key_id(hash_of('ct-one'))}" in notes[0]


def test_only_the_hash_of_a_key_is_kept_and_only_for_its_owner_to_read(tmp_path: Path) -> None:
    key, kept = KeyBook(tmp_path).create("ads", now_s=NOW_S)

    text = (tmp_path / "keys.json").read_text()
    assert len(key.removeprefix("ct-")) == 43  # 256 bits
    assert key not in text
    assert json.loads(text)["keys"][0]["sha256"] == kept.sha256 == hash_of(key)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


def test_commands_at_the_same_time_lose_no_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda n: KeyBook(tmp_path).create(f"t{n}", now_s=NOW_S)[1].id, range(24)))

    assert {key.id for key in KeyBook(tmp_path).read()} == set(ids)


def test_a_revoked_key_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    book = KeyBook(tmp_path)
    first, second = book.create("ads", now_s=NOW_S)[1], book.create("ads", now_s=NOW_S)[1]

    assert book.revoke(first.id) == first
    assert book.read() == (second,)
    assert book.revoke(first.id) is None


def test_a_key_with_an_end_can_be_prolonged_and_is_swept_out_after_it(tmp_path: Path) -> None:
    book = KeyBook(tmp_path)
    short = book.create("ads", now_s=NOW_S, lives_s=10)[1]
    book.extend(short, NOW_S + 100)

    assert [key.expires for key in book.read()] == [NOW_S + 100]
    kept = book.create("ads", now_s=NOW_S + 101)[1]
    assert book.read() == (kept,)


def test_damaged_or_absent_files_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")

    with pytest.raises(KeysError, match=r"damaged; repair it, or remove it"):
        KeyBook(tmp_path).read()
    with pytest.raises(KeysError, match="run as the user of `up`"):
        KeyBook(tmp_path / "nowhere").create("ads", now_s=NOW_S)
    assert KeyBook(tmp_path / "nowhere").read() == ()


SOURCE = KeySource(id="0123456789ab", tenant="ads", secret="keys", key="ads", place="/etc/models.yaml:7")


def test_the_list_shows_ids_and_sources_and_no_key() -> None:
    known = known_keys(config(ads=("ct-file",)).tenants, [made(), made("gone", "ct-two")], (SOURCE,), NOW_S)

    columns, rows = key_rows(known, wide=True)
    assert columns == ("ID", "TENANT", "SOURCE", "CREATED", "EXPIRES", "PLACE")
    assert rows == [
        ("0123456789ab", "ads", "Secret keys, ads", "-", "never", "/etc/models.yaml:7"),
        (key_id(hash_of("ct-one")), "ads", "key create", "1970-01-12T13:46:40Z", "never", "-"),
        (key_id(hash_of("ct-two")), "gone (gone)", "key create", "1970-01-12T13:46:40Z", "never", "-"),
    ]
    assert keys_per_tenant(known) == {"ads": 2}
    assert all(len(item["id"]) == 12 for item in key_document(known))


def test_a_revoked_key_is_not_listed_though_the_last_run_has_published_it() -> None:
    tenants = config(ads=("ct-file", "ct-revoked")).tenants

    assert [key.id for key in known_keys(tenants, [], (SOURCE,), NOW_S)] == [SOURCE.id]


def test_without_sources_the_keys_of_the_files_are_those_that_were_published_and_not_created() -> None:
    tenants = config(ads=("ct-file", "ct-one")).tenants

    known = known_keys(tenants, [made()], None, NOW_S)

    assert [(key.id, key.source) for key in known] == [
        (key_id(hash_of("ct-file")), "files"),
        (key_id(hash_of("ct-one")), "key create"),
    ]


def test_a_key_of_a_file_cannot_be_revoked_but_its_place_is_named() -> None:
    (known,) = known_keys(config(ads=()).tenants, [], (SOURCE,), NOW_S)

    assert "'Secret keys, ads' at /etc/models.yaml:7; take it out there" in how_to_remove(known)
