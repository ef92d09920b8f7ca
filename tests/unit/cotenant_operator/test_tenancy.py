from dataclasses import replace

import pytest
from tests.builders.operator import KEY, model, secret, tenant, world

from cotenant_operator.objects import World
from cotenant_operator.plan import Plan, plan
from cotenant_operator.spec import ModelDeployment


def seen_by(result: Plan) -> dict[str, tuple[str, ...]]:
    return {item.name: item.models for item in result.tenants}


def plan_of(given: World) -> Plan:
    return plan(given, {})


def keys_of(result: Plan) -> dict[str, int]:
    return {item.name: len(item.secret_keys) for item in result.tenants}


def echo(name: str = "m", namespace: str = "search", **spec: object) -> ModelDeployment:
    return model(name, namespace=namespace, task="echo", **spec)


SEARCH = tenant("search", namespaces=("search",))
ADS = tenant("ads", namespaces=("ads",))
SECRETS = (secret("search", "s" * 40), secret("ads", "a" * 40))


def test_a_model_is_seen_by_the_tenants_of_its_namespace() -> None:
    assert seen_by(plan_of(world(echo(), SEARCH, ADS, *SECRETS))) == {"search": ("search/m",), "ads": ()}


def test_a_listed_tenant_of_another_namespace_must_accept() -> None:
    result = plan_of(world(echo(tenants=["search", "ads"]), SEARCH, ADS, *SECRETS))

    assert seen_by(result) == {"search": ("search/m",), "ads": ()}
    assert "'ads' is not bound to namespace 'search' and does not accept 'm'" in result.warnings[0]


@pytest.mark.parametrize("models", [["*"], ["m"], ["x", "m"]])
def test_an_accepted_model_is_seen(models: list[str]) -> None:
    accepting = tenant("ads", namespaces=("ads",), accepts=[{"namespace": "search", "models": models}])
    result = plan_of(world(echo(tenants=["ads"]), SEARCH, accepting, *SECRETS))

    assert seen_by(result) == {"search": (), "ads": ("search/m",)}
    assert not result.warnings


def test_accepting_alone_shows_nothing() -> None:
    accepting = tenant("ads", namespaces=("ads",), accepts=[{"namespace": "search", "models": ["*"]}])

    assert seen_by(plan_of(world(echo(), SEARCH, accepting, *SECRETS)))["ads"] == ()


def test_a_mistyped_tenant_is_named_with_its_near_match() -> None:
    result = plan_of(world(echo(tenants=["serach"]), SEARCH, *SECRETS))

    assert "there is no tenant 'serach'; did you mean 'search'?" in result.warnings[0]


def test_a_model_that_nobody_sees_is_warned_about() -> None:
    assert "so nobody sees other/m" in plan_of(world(echo(namespace="other"), SEARCH, *SECRETS)).warnings[0]


def test_a_missing_secret_takes_only_its_tenants_key() -> None:
    result = plan_of(world(SEARCH, ADS, SECRETS[1]))

    assert keys_of(result) == {"search": 0, "ads": 1}
    assert result.errors == (
        "Tenant search: tenant 'search': Secret 'search-key' is in none of the files; "
        "add it (Secrets there: ads-key)",
    )


def test_a_missing_key_names_those_that_are_there() -> None:
    wrong = tenant("search", keys=[{"secretRef": {"name": "search-key", "key": "tokn"}}])
    result = plan_of(world(wrong, SECRETS[0]))

    assert "Secret 'search-key' has no key 'tokn'; it has: token" in result.errors[0]


def test_a_key_of_two_tenants_works_for_neither() -> None:
    result = plan_of(world(SEARCH, ADS, secret("search", KEY), secret("ads", KEY + "\n")))

    assert keys_of(result) == {"search": 0, "ads": 0}
    assert "tenants ads and search have the same key" in result.errors[0]
    assert KEY not in str(result)


@pytest.mark.parametrize("key", ["", "  ", "two words of a key", "schlüssel-schlüssel-schlüssel-1234"])
def test_keys_no_header_can_carry_are_refused(key: str) -> None:
    result = plan_of(world(SEARCH, secret("search", key)))

    assert keys_of(result) == {"search": 0}
    assert "openssl rand" in result.errors[0]


@pytest.mark.parametrize("key", ["short", "change-me-0123456789abcdef0123456789abcdef"])
def test_keys_that_can_be_guessed_are_warned_about(key: str) -> None:
    result = plan_of(world(SEARCH, secret("search", key)))

    assert keys_of(result) == {"search": 1}
    assert "can be guessed" in result.warnings[0]
    assert key not in result.warnings[0]


def test_secrets_of_other_namespaces_are_not_read() -> None:
    assert plan_of(world(SEARCH, secret("search", KEY, namespace="ads"))).errors


def test_the_system_namespace_wins() -> None:
    given = world(SEARCH, secret("search", "d" * 40), secret("search", "y" * 40, namespace="cotenant-system"))
    found = given.manifests.secret("search-key")

    assert found is not None
    assert found.metadata.namespace == "cotenant-system"


BOTH = tenant("search", namespaces=("search", "ads"))
OLDER, NEWER = "2026-11-26T10:00:00Z", "2026-11-26T10:00:01Z"


def in_a_cluster(given: World, **created: str) -> World:
    """`search_m="…"`: when search/m was made."""
    times = {("ModelDeployment", *name.split("_")): at for name, at in created.items()}
    return replace(given, manifests=replace(given.manifests, created=times, namespace="cotenant-system"))


@pytest.mark.parametrize(
    ("created", "owner", "newcomer"),
    [
        ({"search_m": OLDER, "ads_m": NEWER}, "search/m", "ads/m"),
        ({"search_m": NEWER, "ads_m": OLDER}, "ads/m", "search/m"),
        ({"search_m": OLDER, "ads_m": OLDER}, "ads/m", "search/m"),
    ],
)
def test_a_bare_name_stays_with_the_model_that_had_it_first(
    created: dict[str, str], owner: str, newcomer: str
) -> None:
    result = plan_of(in_a_cluster(world(echo(), echo(namespace="ads"), BOTH, SECRETS[0]), **created))

    assert result.tenants[0].claims == (owner,)
    assert {item.name: item.name_taken_for for item in result.models} == {owner: (), newcomer: ("search",)}
    assert all(item.engine is not None for item in result.models)


def test_who_sees_one_of_two_models_of_a_name_has_the_name_for_it() -> None:
    result = plan_of(in_a_cluster(world(echo(), echo(namespace="ads"), SEARCH, ADS), search_m=OLDER, ads_m=NEWER))

    assert [item.claims for item in result.tenants] == [(), ()]
    assert [item.name_taken_for for item in result.models] == [(), ()]


def test_models_of_files_claim_no_name() -> None:
    result = plan_of(world(echo(), echo(namespace="ads"), BOTH, SECRETS[0]))

    assert result.tenants[0].claims == ()


def test_in_a_cluster_only_secrets_of_the_operators_namespace_are_keys() -> None:
    elsewhere = secret("search", "s" * 40, namespace="search")
    result = plan_of(in_a_cluster(world(echo(), SEARCH, elsewhere)))

    (problem,) = result.tenants[0].key_problems
    assert problem.reason == "KeyMissing"
    assert "is not in namespace cotenant-system" in problem.message
    assert "kubectl -n cotenant-system create secret generic search-key --from-literal=token=" in problem.message


def test_each_tenant_is_told_what_is_wrong_with_its_keys() -> None:
    keyless = tenant("free", namespaces=(), keys=[])
    result = plan_of(world(echo(), SEARCH, ADS, keyless, secret("search", KEY), secret("ads", KEY)))

    said = {item.name: [problem.reason for problem in item.key_problems] for item in result.tenants}
    assert said == {"search": ["KeyShared"], "ads": ["KeyShared"], "free": ["NoKeys"]}
    assert not any(KEY in repr(item) for item in result.tenants)
