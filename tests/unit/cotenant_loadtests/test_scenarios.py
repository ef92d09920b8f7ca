"""The scenarios that come with cotenant fit each other, their models and what they say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cotenant_loadtests.bodies import render
from cotenant_loadtests.planned import Planned
from cotenant_loadtests.reading import read_scenario
from cotenant_loadtests.safety import check_limits, extent_of
from cotenant_loadtests.shipped import shipped_scenarios
from cotenant_loadtests.words import text_of
from cotenant_loadtests.workload import make_plan
from cotenant_operator.manifests import load

ROOT = Path(__file__).parents[3]
SCENARIOS = shipped_scenarios()
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "loadtests" / "models.yaml").read_text()))
MODELS = {item["metadata"]["name"]: item["spec"] for item in DOCUMENTS if item["kind"] == "ModelDeployment"}
TENANTS = {item["metadata"]["name"] for item in DOCUMENTS if item["kind"] == "Tenant"}


def plan_of(name: str, *overrides: str) -> list[Planned]:
    return make_plan(read_scenario(SCENARIOS[name], overrides), SCENARIOS[name].parent)


def test_their_models_are_yaml_that_cotenant_up_takes() -> None:
    read = load([ROOT / "loadtests" / "models.yaml"])
    assert {tenant.metadata.name for tenant in read.tenants} == TENANTS
    assert {model.metadata.name for model in read.models} == set(MODELS)
    assert (TENANTS, len(MODELS)) == ({"search", "mail", "ads", "analytics", "batch"}, 23)


def test_there_are_ten() -> None:
    assert len(SCENARIOS) == 10
    assert {"noisy-neighbour", "cold-start", "many-models", "azure-replay"} <= set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_begins_with_its_question_and_how_to_read_the_answer(name: str) -> None:
    comment = SCENARIOS[name].read_text().partition("name:")[0].splitlines()
    assert comment[0].startswith("# ")
    assert comment[0].endswith("?")
    assert (
        comment[-1] == "# Needs the models of loadtests/models.yaml, served by:  cotenant up -f loadtests/models.yaml"
    )
    assert len(comment) > 6


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_has_what_its_report_and_its_gate_need(name: str) -> None:
    scenario = read_scenario(SCENARIOS[name])
    assert scenario.name == name
    assert scenario.about
    assert scenario.slo
    assert scenario.duration_s <= 200


@pytest.mark.parametrize("name", SCENARIOS)
def test_its_models_and_tenants_are_those_of_models_yaml_and_its_texts_fit_into_them(name: str) -> None:
    for request in plan_of(name):
        assert request.tenant in TENANTS
        spec = MODELS[request.model]
        assert request.check == "echo" or request.api == "embeddings" or request.stream in ("hangs-up", "gives-up")
        words = [len(text_of(message).split()) for message in request.messages]
        if request.api == "embeddings":
            assert spec["task"] == "embed"
            assert max(words) * 4 < spec["engine"]["contextTokens"]  # pieces of words
        else:
            assert spec["task"] == "echo"
            assert sum(words) + (request.max_tokens or 0) < spec["engine"]["contextTokens"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_keeps_to_the_limits_of_a_run(name: str) -> None:
    scenario = read_scenario(SCENARIOS[name])
    check_limits(extent_of(plan_of(name), scenario, lambda request: len(render(request))), scenario.limits)


def test_the_loud_neighbours_ask_for_far_more_than_the_model_gives_and_the_quiet_ones_for_little() -> None:
    """The figures in its comment."""
    engine = MODELS["contended"]["engine"]
    given = engine["concurrency"] * engine["tokensPerSecond"]
    plan = plan_of("noisy-neighbour")
    loud = sum(request.max_tokens or 0 for request in plan if request.tenant in ("analytics", "batch")) / 20
    quiet = sum(request.max_tokens or 0 for request in plan if request.tenant in ("search", "mail")) / 40
    assert given == 200
    assert loud == pytest.approx(500, rel=0.15)
    assert quiet == pytest.approx(30, rel=0.3)


def test_the_steps_end_above_what_the_model_gives() -> None:
    engine = MODELS["contended"]["engine"]
    most = engine["concurrency"] * engine["tokensPerSecond"] / 20
    arrivals = read_scenario(SCENARIOS["capacity-steps"]).streams[0].arrivals
    assert arrivals.process == "steps"
    assert arrivals.rates_per_s[3] < most < arrivals.rates_per_s[4]


def test_the_azure_excerpt_meets_twenty_models_and_five_tenants() -> None:
    plan = plan_of("azure-replay")
    assert len(plan) > 900
    assert {request.model for request in plan} == {f"echo-{number:02}" for number in range(1, 21)}
    assert {request.tenant for request in plan} == TENANTS


def test_a_scenario_can_be_run_for_a_short_time() -> None:
    plan = plan_of("noisy-neighbour", "duration_s=6", "streams.batch.from_s=2", "streams.analytics.from_s=2")
    assert 20 < len(plan) < 200
