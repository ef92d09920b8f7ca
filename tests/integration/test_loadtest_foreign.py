"""Load tests of programs that are not ours: vllm-router and LiteLLM's proxy, each before the reference server."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from tests.builders import foreign
from tests.builders.foreign import LITELLM_KEY, MODEL

from cotenant_loadtests.reading import read_scenario
from cotenant_loadtests.results import Results
from cotenant_loadtests.running import run_plan
from cotenant_loadtests.summary import summarise
from cotenant_loadtests.workload import make_plan

pytestmark = pytest.mark.integration
TOKENS = 12
KEYS = {"search": LITELLM_KEY, "ads": LITELLM_KEY}
SHAPES = {
    "chat-streamed": {"api": "chat"},
    "chat-whole": {"api": "chat", "streamed": False},
    "completions-streamed": {"api": "completions"},
    "completions-whole": {"api": "completions", "streamed": False},
    "embeddings": {"api": "embeddings", "output": None, "streamed": False},
}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with foreign.reference_server() as url:
        yield url


@pytest.fixture(scope="module")
def vllm_router(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with foreign.vllm_router(server, tmp_path_factory.mktemp("vllm-router")) as url:
        yield url


@pytest.fixture(scope="module")
def litellm(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with foreign.litellm(server, tmp_path_factory.mktemp("litellm")) as url:
        yield url


def load(url: str, folder: Path, *names: str, keys: Mapping[str, str] = KEYS) -> Results:
    """Half a second of each of these shapes of requests, by two tenants."""
    streams = [
        {
            "name": name,
            "tenant": ["search", "ads"],
            "model": MODEL,
            "arrivals": {"process": "constant", "rate_per_s": 20},
            "prompt": {"tokens": 9},
            "output": {"tokens": TOKENS},
            "check": "shape" if name == "embeddings" else "echo",
        }
        | SHAPES[name]
        for name in names
    ]
    slo = {"success_rate": 1.0, "ttft_p99_ms": {"search": 60_000, "ads": 0.001}}
    path = folder / "scenario.yaml"
    path.write_text(
        yaml.safe_dump({"name": "foreign", "target": {"url": url}, "duration_s": 0.5, "slo": slo, "streams": streams})
    )
    scenario = read_scenario(path)
    plan = make_plan(scenario, folder)
    return summarise(scenario, run_plan(scenario, plan, keys, folder=folder), url)


def check_all_is_well(results: Results, requests: int, tokens: int) -> None:
    assert (results.total.errors, results.errors) == ({}, ())
    assert results.total.succeeded == results.total.scheduled == requests
    assert results.total.completion_tokens == tokens
    gate = {(one.slo, one.where): one.passed for one in results.slo}
    assert gate == {("success_rate", "*"): True, ("ttft_p99_ms", "search"): True, ("ttft_p99_ms", "ads"): False}


def test_every_api_through_vllm_router_is_whole_counted_and_gated(vllm_router: str, tmp_path: Path) -> None:
    results = load(vllm_router, tmp_path, *SHAPES)
    check_all_is_well(results, requests=50, tokens=40 * TOKENS)


def test_every_api_through_litellm_is_whole_counted_and_gated(litellm: str, tmp_path: Path) -> None:
    results = load(litellm, tmp_path, *SHAPES)
    check_all_is_well(results, requests=50, tokens=40 * TOKENS)


def test_a_key_that_litellm_does_not_know_is_counted_as_what_it_answers(litellm: str, tmp_path: Path) -> None:
    results = load(litellm, tmp_path, "chat-streamed", keys={"search": "sk-unknown", "ads": LITELLM_KEY})
    groups = {group.tenant: group for group in results.tenants}
    assert groups["ads"].failed == 0
    assert groups["search"].errors == {"http_error": groups["search"].scheduled}
    assert "sk-unknown" not in repr(results)
