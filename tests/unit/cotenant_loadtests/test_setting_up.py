import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders.load_records import stream

from cotenant_loadtests.keys import NoLocalKeys
from cotenant_loadtests.plan_file import write_plan
from cotenant_loadtests.problems import ScenarioError
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.setting_up import Choices, Loaded, check, load, make_folder, plan_of, with_plan_of_file


class UpHere:
    def gateway_url(self) -> str | None:
        return "http://127.0.0.1:18080"

    def keys(self, tenants: Sequence[str]) -> AbstractContextManager[Mapping[str, str]]:
        return contextlib.nullcontext({})


def written(folder: Path, **fields: object) -> str:
    file = folder / "scenario.yaml"
    file.write_text(yaml.safe_dump({"name": "x", "duration_s": 5, "streams": [stream()], **fields}))
    return str(file)


def test_a_target_that_the_scenario_does_not_name_is_the_gateway_that_runs_here(tmp_path: Path) -> None:
    scenario = written(tmp_path)

    assert load(Choices(scenario=scenario), UpHere()).scenario.target.url == "http://127.0.0.1:18080"
    assert load(Choices(scenario=scenario), NoLocalKeys()).scenario.target.url == "http://127.0.0.1:8080"


def test_a_target_that_is_named_is_meant(tmp_path: Path) -> None:
    scenario = written(tmp_path, target={"url": "http://127.0.0.1:8080"})
    other = Choices(scenario=scenario, url="http://127.0.0.1:7")

    assert load(Choices(scenario=scenario), UpHere()).scenario.target.url == "http://127.0.0.1:8080"
    assert load(other, UpHere()).scenario.target.url == "http://127.0.0.1:7"


def test_options_of_their_own_win_over_settings(tmp_path: Path) -> None:
    settings = ["seed=3", "duration_s=7", "target.url=http://127.0.0.1:1"]
    choices = Choices(scenario=written(tmp_path), settings=settings, seed=4, processes=2, url="http://127.0.0.1:2")

    scenario = load(choices, NoLocalKeys()).scenario

    assert (scenario.seed, scenario.duration_s, scenario.processes) == (4, 7, 2)
    assert scenario.target.url == "http://127.0.0.1:2"


def test_all_runs_of_a_command_dial_the_addresses_that_were_checked(tmp_path: Path) -> None:
    loaded = load(Choices(scenario=written(tmp_path, target={"url": "http://localhost:1"})), NoLocalKeys())
    another = replace(loaded, scenario=loaded.scenario.model_copy(update={"seed": 2}))

    assert another.resolve("localhost") is loaded.resolve("localhost")


def test_a_certificate_stands_beside_the_scenario(tmp_path: Path) -> None:
    choices = Choices(scenario=written(tmp_path, target={"url": "https://127.0.0.1", "ca_file": "ca.pem"}))

    assert load(choices, NoLocalKeys()).scenario.target.ca_file == str(tmp_path / "ca.pem")


def test_a_plan_without_a_request_is_refused(tmp_path: Path) -> None:
    loaded = load(Choices(scenario=written(tmp_path)), NoLocalKeys())

    with pytest.raises(RefusedError, match="the plan has no request"):
        check(loaded, [])


@pytest.mark.parametrize("duration_s", [3, 60])
def test_a_plan_of_another_length_is_refused_since_it_would_be_cut_or_thinned(
    tmp_path: Path, duration_s: int
) -> None:
    loaded = load(Choices(scenario=written(tmp_path)), NoLocalKeys())
    write_plan(tmp_path / "plan.jsonl", loaded.scenario, plan_of(loaded))
    other = load(Choices(scenario=written(tmp_path), settings=[f"duration_s={duration_s}"]), NoLocalKeys())

    with pytest.raises(RefusedError) as caught:
        with_plan_of_file(other, tmp_path / "plan.jsonl")

    assert str(caught.value) == (
        f"{tmp_path}/plan.jsonl: the plan lasts 5 s, the scenario {duration_s} s; "
        "say --set duration_s=5, or plan again"
    )


def test_a_plan_of_a_file_keeps_the_seed_that_it_was_drawn_from(tmp_path: Path) -> None:
    loaded = load(Choices(scenario=written(tmp_path), seed=7), NoLocalKeys())
    plan = plan_of(loaded)
    write_plan(tmp_path / "plan.jsonl", loaded.scenario, plan)

    again, read = with_plan_of_file(
        load(Choices(scenario=written(tmp_path), seed=99), NoLocalKeys()), tmp_path / "plan.jsonl"
    )

    assert (again.scenario.seed, read) == (7, plan)


def of_trace(folder: Path, duration_s: float) -> Loaded:
    """Requests at 0 and 3 s."""
    (folder / "t.csv").write_text("time_s,prompt_tokens,output_tokens\n0,1,1\n3,1,1\n")
    arrivals = {"process": "trace", "file": "t.csv", "format": "csv"}
    file = written(folder, streams=[stream(arrivals=arrivals)], duration_s=duration_s)
    return load(Choices(scenario=file), NoLocalKeys())


def test_a_trace_that_covers_less_than_half_of_its_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"the last request of its trace comes at 3 s of 600 s, and rates count"):
        plan_of(of_trace(tmp_path, 600))


@pytest.mark.parametrize(("duration_s", "told"), [(5, True), (4, True), (3.1, False)])
def test_a_trace_that_ends_before_its_stream_is_told(
    tmp_path: Path, duration_s: float, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(plan_of(of_trace(tmp_path, duration_s))) == 2
    assert ("and rates count the silence after it; lower duration_s" in capsys.readouterr().err) == told


def test_what_a_plan_is_going_to_send_is_told_in_a_sentence(tmp_path: Path) -> None:
    arrivals = {"process": "constant", "rate_per_s": 2}
    loaded = load(Choices(scenario=written(tmp_path, streams=[stream(arrivals=arrivals)])), NoLocalKeys())

    said = check(loaded, plan_of(loaded)).sentence("http://127.0.0.1:8080")

    assert said.startswith("sending 10 requests to http://127.0.0.1:8080 within 5 s: at most 2 in a second, 10 conn")
    assert said.endswith(" kB")


def test_a_folder_is_made_for_each_run_and_named_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert make_folder(None, "noisy").name.startswith("loadtest-noisy-2")
    assert make_folder(tmp_path / "a" / "b", "noisy").is_dir()


@pytest.mark.parametrize("there", ["results.json", "requests.parquet", "run-abcdefgh/0.plan.jsonl"])
def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(tmp_path: Path, there: str) -> None:
    file = tmp_path / there
    file.parent.mkdir(exist_ok=True)
    file.write_text("of an earlier run")

    with pytest.raises(RefusedError, match=r"holds a run already .*; give another folder, or remove that one"):
        make_folder(tmp_path, "noisy")

    assert file.read_text() == "of an earlier run"


def test_a_folder_with_other_things_in_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")

    assert make_folder(tmp_path, "noisy") == tmp_path


def test_what_is_wrong_is_named_as_it_was_typed(tmp_path: Path) -> None:
    def refusal(**choices: Any) -> str:
        def read() -> None:
            loaded = load(Choices(scenario=written(tmp_path), **choices), NoLocalKeys())
            check(loaded, plan_of(loaded))

        with pytest.raises((ScenarioError, RefusedError)) as caught:
            read()
        return str(caught.value)

    assert refusal(settings=["target.url=5"]).startswith("--set target.url: must be text")
    assert refusal(processes=10**9).startswith("--processes: 1000000000 is more than 64")
    assert refusal(url="").startswith("--url: is no http or https URL with a host; write it like")


def test_a_stream_that_sends_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = stream(name="silent", arrivals={"process": "poisson", "rate_per_s": 1e-300})

    plan_of(load(Choices(scenario=written(tmp_path, streams=[stream(), silent])), NoLocalKeys()))

    assert capsys.readouterr().err == ("stream silent has no request in this plan; raise its rate, or duration_s\n")
