"""What cannot be measured is refused before anything is sent or made."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cotenant_loadtests.cli import make_app

NOBODY = "http://127.0.0.1:9"


def written(folder: Path, **fields: Any) -> str:
    stream = {
        "name": "search",
        "tenant": "search",
        "model": "echo",
        "arrivals": {"process": "constant", "rate_per_s": 10},
        "prompt": {"tokens": 4},
        "output": {"tokens": 6},
    }
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump({"name": "small", "duration_s": 10, "streams": [stream], **fields}))
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", NOBODY, NOBODY], "say with --scenario what shall be sent there"),
        (["compare", NOBODY, NOBODY, "--scenario", "none.yaml"], "none.yaml"),
        (
            ["compare", NOBODY, "http://192.0.2.1", "--scenario", "SCENARIO"],
            "192.0.2.1 is not this machine; if you may put load on it, say --i-may-load-this 192.0.2.1",
        ),
        (
            ["compare", NOBODY, NOBODY, "--scenario", "SCENARIO", "--i-may-load-this", "else.example"],
            "the targets are 127.0.0.1 and 127.0.0.1, not that",
        ),
        (
            ["compare", NOBODY, NOBODY, "--scenario", "SCENARIO", "--fail-if", "speed > 1"],
            "such as 'ttft_p99_ms > 1.1'",
        ),
        (
            ["compare", NOBODY, NOBODY, "--scenario", "SCENARIO", "--rounds", "2", "--fail-if", "ttft_p99_ms > 1"],
            "2 rounds are too few",
        ),
        (["find-capacity", "SCENARIO"], "--set 'slo={ttft_p99_ms: 500, success_rate: 0.99}'"),
        (["find-capacity", "SCENARIO", "--from", "9", "--to", "3"], "--from 9 is above --to 3"),
        (["fairness", "SCENARIO"], "fairness is between two or more"),
        (["coldstart", "SCENARIO", "--model", "other"], "the plan has no such model; it has echo"),
        (
            ["soak", "SCENARIO", "--hours", "5", "--set", "limits.duration_s=7200"],
            "more than limits.duration_s of 7,200; take fewer, or say --set limits.duration_s=18000",
        ),
        (["soak", "SCENARIO", "--hours", "8", "--set", "limits.requests=1000"], "--hours 8: about 288,000 requests"),
        (["soak", "SCENARIO", "--hours", "1", "--set", "limits.requests=1000"], "say --set limits.requests=36000"),
        (["soak", "SCENARIO", "--url", "http://192.0.2.1", "--hours", "1"], "say --i-may-load-this 192.0.2.1"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_to_do(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario, out = written(tmp_path), tmp_path / "out"
    given = [scenario if word == "SCENARIO" else word for word in arguments]

    code = make_app()([*given, "--out", str(out)], standalone_mode=False)

    assert code == 3
    assert says in capsys.readouterr().err
    assert not out.exists()


def test_tenants_that_offer_the_same_are_no_case_of_light_and_heavy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = yaml.safe_load(Path(written(tmp_path)).read_text())["streams"][0]
    scenario = written(tmp_path, streams=[stream, {**stream, "name": "ads", "tenant": "ads"}])

    assert make_app()(["fairness", scenario], standalone_mode=False) == 3
    assert "all tenants offer the same number of tokens; name one with --light" in capsys.readouterr().err
