from pathlib import Path

import msgspec
import pytest
from tests.builders.load_records import answered, failed, run_of, scenario_of, stream

from cotenant_loadtests.results_file import ResultsFileError, read_results, write_results
from cotenant_loadtests.summary import summarise

DEEP = '{"schema": "cotenant.dev/loadtest-results/v1", "extras": {"x": ' + "[" * 100_000 + "]" * 100_000 + "}}"
RESULTS = summarise(
    scenario_of(
        slo={"ttft_p99_ms": {"blue": 5}},
        streams=[stream(arrivals={"process": "steps", "rates_per_s": [1, 2], "step_s": 5})],
        tenants={"blue": {"key": {"env": "BLUE_KEY"}}},
    ),
    run_of([answered(at_s=1, gaps_ms=[1, 2]), failed("reset", at_s=6)]),
    "http://127.0.0.1:1",
)


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_results(tmp_path / "results.json", RESULTS)
    assert read_results(tmp_path / "results.json") == RESULTS


def test_the_scenario_in_results_is_one_that_runs_again(tmp_path: Path) -> None:
    scenario = scenario_of(**RESULTS.scenario)
    assert scenario.slo == {"ttft_p99_ms": {"blue": 5}}
    assert scenario.streams[0].name == "talk"
    assert scenario.model_dump(mode="json") == RESULTS.scenario


def test_an_unknown_schema_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(msgspec.json.encode({"schema": "cotenant.dev/loadtest-results/v9", "verdict": 7}))
    with pytest.raises(ResultsFileError, match=r"results\.json: its schema is .*v9.*reads .*v1.*use the version"):
        read_results(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"schema": "cotenant.dev/loadtest-results/v1"}', "\xff", DEEP]
)
def test_a_file_that_is_no_results_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultsFileError, match=r"results\.json: "):
        read_results(path)
