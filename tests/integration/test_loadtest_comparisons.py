"""The commands beside `run` against servers whose behaviour is exactly known.

What was found is asserted with room for a busy machine, and never that its runs were valid.
"""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from tests.builders.pages import answering_with, page

from cotenant_loadtests.capacity import Search, find_capacity
from cotenant_loadtests.cli import make_app
from cotenant_loadtests.coldness import Gateway
from cotenant_loadtests.extras import ColdStarts, Comparison, FairnessFound, Soak
from cotenant_loadtests.measuring import Measuring
from cotenant_loadtests.results import Results
from cotenant_loadtests.setting_up import Choices, Loaded
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.variants import at_factor

pytestmark = pytest.mark.integration

EITHER = (0, 2)
"""Passed, or not valid on a busy machine."""


@contextmanager
def serving(**behaviour: float) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.builders.reference_server", "--behaviour", json.dumps(behaviour)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()


@pytest.fixture(scope="module")
def steady() -> Iterator[str]:
    """First token after 20 ms, then one each 6 ms."""
    with serving(ttft_ms=20, itl_ms=6) as url:
        yield url


def stream(name: str, rate_per_s: float, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "tenant": name,
        "model": "echo",
        "arrivals": {"process": "constant", "rate_per_s": rate_per_s},
        "prompt": {"tokens": 4},
        "output": {"tokens": 6},
        **fields,
    }


def write(folder: Path, *streams: dict[str, Any], **fields: Any) -> str:
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump({"name": "small", "duration_s": 0.5, "streams": list(streams), **fields}))
    return str(path)


def loadtest(*arguments: str, out: Path) -> tuple[int, Results]:
    """Exit code, and what was written."""
    code = make_app()([*arguments, "--out", str(out)], standalone_mode=False)
    for name in ("report.html", "junit.xml"):
        assert (out / name).stat().st_size > 0
    return code, msgspec.json.decode((out / "results.json").read_bytes(), type=Results)


def test_a_server_twice_as_slow_for_each_token_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = write(tmp_path, stream("search", 30))
    with serving(ttft_ms=20, itl_ms=30) as steady, serving(ttft_ms=20, itl_ms=60) as slow:
        code, results = loadtest("compare", steady, slow, "--scenario", scenario, out=tmp_path / "out")

    found = msgspec.convert(results.extras["compare"], Comparison)
    tpot = next(one for one in found.metrics if one.metric == "tpot_p50_ms")
    assert tpot.difference == "higher"
    assert tpot.ratio == pytest.approx(2.0, rel=0.2)
    assert found.order == ("ab", "ba", "ab", "ba", "ab", "ba")
    assert code in EITHER
    shown = capsys.readouterr()
    assert re.search(r"tpot_p50_ms .* B is worse", shown.out)
    assert "round 6 of 6, A: 15 requests" in shown.err


def test_what_is_checked_is_dialled(tmp_path: Path) -> None:
    """By name it would be another host, or none."""
    with serving(ttft_ms=1) as url:
        scenario = Scenario.model_validate(
            {
                "name": "moving",
                "target": {"url": url.replace("127.0.0.1", "moving.invalid")},
                "duration_s": 1.0,
                "streams": [stream("search", 10)],
            }
        )
        names = {"moving.invalid": ("127.0.0.1",)}
        loaded = Loaded(scenario, tmp_path, Choices(scenario=""), resolve=names.__getitem__)
        runs = Measuring(loaded=loaded, keys={}, folder=tmp_path, stop=threading.Event(), quiet=True)
        assert {record.outcome for record in runs.run(scenario).output.records} == {"ok"}


def test_the_capacity_of_a_server_that_does_one_thing_at_a_time_is_found(tmp_path: Path) -> None:
    """20 ms each is 50 a second; above it the line grows, and the SLO of 400 ms is missed from 60 a second on."""
    with serving(service_ms=20) as url:
        scenario = Scenario.model_validate(
            {
                "name": "line",
                "target": {"url": url},
                "duration_s": 2.0,
                "slo": {"ttft_p99_ms": 400},
                "streams": [stream("search", 10)],
            }
        )
        loaded = Loaded(scenario, tmp_path, Choices(scenario=""))
        runs = Measuring(loaded=loaded, keys={}, folder=tmp_path, stop=threading.Event())

        def measure(factor: float, number: int) -> Results:
            """Judged by the SLO alone: on a busy machine runs may not be valid."""
            results = runs.results(at_factor(scenario, factor))
            kept = all(slo.passed for slo in results.slo)
            return msgspec.structs.replace(results, verdict="passed" if kept else "missed")

        search = Search(scenario_per_s=10.0, from_per_s=15.0, to_per_s=None, within=0.4, repeats=1)
        for _ in range(3):  # a busy machine may miss the SLO at the first rate already
            found, _ = find_capacity(search, measure)
            if found.kept_per_s is not None:
                break

    assert found.kept_per_s is not None
    assert found.missed_per_s is not None
    assert found.kept_per_s <= 65
    assert found.missed_per_s <= 120
    assert found.missed[0].slo == "ttft_p99_ms"
    assert "requests/s kept the SLOs" in found.sentence


def test_find_capacity_tells_every_rate_that_it_tried(
    steady: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = write(tmp_path, stream("search", 10), slo={"ttft_p99_ms": 1.0})

    code, results = loadtest("find-capacity", scenario, "--url", steady, "--repeats", "1", out=tmp_path / "out")

    tried = results.extras["find-capacity"]["tried"]
    assert [one["rate_per_s"] for one in tried] == [10.0]
    assert code in (1, 2)  # no server answers within a millisecond
    assert "10.00 requests/s: " in capsys.readouterr().err


def test_what_others_cost_a_light_tenant_is_found(tmp_path: Path) -> None:
    """The loud one asks for 150 % of what the server can do, so a line grows to half a second."""
    scenario = write(tmp_path, stream("loud", 150), stream("quiet", 10), duration_s=1.0)
    with serving(service_ms=10) as url:
        code, results = loadtest("fairness", scenario, "--url", url, out=tmp_path / "out")

    found = msgspec.convert(results.extras["fairness"], FairnessFound)
    (quiet,) = found.light
    assert (quiet.tenant, quiet.requests) == ("quiet", 10)
    assert quiet.ratio_p50 is not None
    assert quiet.ratio_p50 > 2
    assert sum(found.tenants[0].completion_tokens) == 150 * 6
    assert code in EITHER


def test_zero_to_first_token_is_measured_with_its_phases(steady: str, tmp_path: Path) -> None:
    scenario = write(tmp_path, stream("search", 10))

    code, results = loadtest(
        "coldstart", scenario, "--url", steady, "--times", "2", "--idle-s", "0.05", out=tmp_path / "out"
    )

    found = msgspec.convert(results.extras["coldstart"], ColdStarts)
    assert [wake.outcome for wake in found.wakes] == ["ok", "ok"]
    assert found.models[0].first_token_ms.count == 2
    assert all(wake.first_token_ms is not None and wake.first_token_ms >= 19.5 for wake in found.wakes)
    assert "first byte" in [phase.name for phase in found.models[0].phases]
    assert results.total.scheduled == 2
    assert code in EITHER


def test_a_cotenant_gateway_tells_which_models_are_cold() -> None:
    told_by_it = 'cotenant_engines{model="a/warm"} 2.0\ncotenant_engines{model="a/cold"} 0.0\n'

    with answering_with(lambda number: page("# TYPE cotenant_engines gauge\n" + told_by_it)) as pages:
        target = {"name": "x", "target": {"url": pages.url}, "streams": [stream("search", 1)]}
        gateway = Gateway(Scenario.model_validate(target))
        told = [gateway.engines(model) for model in ("warm", "a/cold", "other")]

    assert told == [2.0, 0.0, None]
    assert [head.split()[:2] for head in pages.asked] == [[b"GET", b"/metrics"]] * 3
    assert gateway.engines("warm") is None  # it has gone


@pytest.mark.parametrize("option", [["--idle-s", "0.05"], ["--patience-s", "1"]], ids=lambda option: option[0])
def test_a_model_that_never_gets_cold_is_not_measured_and_the_option_that_helps_is_named(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = '# TYPE cotenant_engines gauge\ncotenant_engines{model="a/echo"} 1.0\n'
    with answering_with(lambda number: page(engines)) as pages:
        scenario = write(tmp_path, stream("search", 10), target={"url": pages.url})
        code, results = loadtest("coldstart", scenario, *option, out=tmp_path / "out")

    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not valid: ")]
    assert line.startswith("not valid: model echo did not get cold for wake 1: ")
    assert option[0] in line
    assert (code, results.interrupted, results.total.scheduled) == (2, False, 0)
    assert len(results.validity.reasons) == 1


def test_a_page_that_drips_does_not_hold_up_a_wish_to_stop() -> None:
    done = threading.Event()

    def dripping(number: int) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
        while not done.wait(0.05):
            yield b"a"

    with answering_with(dripping) as pages:
        target = {"name": "x", "target": {"url": pages.url}, "streams": [stream("search", 1)]}
        began_s = time.monotonic()
        told = Gateway(Scenario.model_validate(target)).engines("echo")
        took_s = time.monotonic() - began_s
        done.set()

    assert told is None
    assert took_s < 4  # 1.5 s on a machine that does nothing else


@pytest.mark.parametrize("where", ["header", "comment"])
def test_phases_that_a_server_tells_are_drawn_as_it_tells_them(where: str, tmp_path: Path) -> None:
    timing = "start;dur=0.02, load;dur=0.03"
    text = 'data: {"model": "echo", "choices": [{"delta": {"content": "hello"}}]}\n\ndata: [DONE]\n\n'
    head = ["content-type: text/event-stream", *([f"server-timing: {timing}"] if where == "header" else [])]
    body = text if where == "header" else f": waiting\n\n: server-timing {timing}\n\n{text}"
    scenario = write(tmp_path, stream("search", 10, check="none"))

    def answer(number: int) -> Iterator[bytes]:
        time.sleep(0.005)  # it takes longer than the phases that it tells
        yield from page(body, "200 OK", *head)

    with answering_with(answer) as pages:
        _, results = loadtest(
            "coldstart", scenario, "--url", pages.url, "--times", "1", "--idle-s", "0", out=tmp_path / "out"
        )

    found = msgspec.convert(results.extras["coldstart"], ColdStarts)
    phases = {phase.name: phase.to_ms - phase.from_ms for phase in found.wakes[0].phases}
    assert found.phases_by == "server"
    assert (phases["start"], phases["load"]) == (pytest.approx(0.02), pytest.approx(0.03))
    assert "first token" in phases


def test_a_server_that_does_not_tell_is_asked_for_a_time_without_requests(
    steady: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = write(tmp_path, stream("search", 10))

    assert make_app()(["coldstart", scenario, "--url", steady], standalone_mode=False) == 3
    assert "say with --idle-s after how many seconds" in capsys.readouterr().err


def test_a_soak_repeats_the_scenario_and_looks_for_drift(steady: str, tmp_path: Path) -> None:
    scenario = write(tmp_path, stream("search", 20), duration_s=0.3)

    code, results = loadtest("soak", scenario, "--url", steady, "--hours", "0.001", out=tmp_path / "out")

    found = msgspec.convert(results.extras["soak"], Soak)
    assert found.segments
    assert all(segment.requests == 6 and segment.tool_rss_bytes > 0 for segment in found.segments)
    assert [one.from_s for one in found.segments] == sorted(one.from_s for one in found.segments)
    assert {drift.metric for drift in found.drifts} >= {"ttft_p50_ms", "tool_rss_bytes"}
    assert not found.interrupted
    assert code in EITHER


def test_ctrl_c_ends_a_soak_with_what_is_whole(steady: str, tmp_path: Path) -> None:
    scenario, out = write(tmp_path, stream("search", 20), duration_s=0.3), tmp_path / "out"
    command = [sys.executable, "-m", "cotenant_loadtests", "soak", scenario, "--url", steady]
    with subprocess.Popen(
        [*command, "--hours", "1", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as soaking:
        assert soaking.stderr is not None
        assert any(line.startswith("segment 1: ") for line in soaking.stderr)
        soaking.send_signal(signal.SIGINT)
        shown, _ = soaking.communicate(timeout=30)

    found = msgspec.json.decode((out / "results.json").read_bytes(), type=Results)
    segments = msgspec.convert(found.extras["soak"], Soak).segments
    assert soaking.returncode == 130
    assert "interrupted" in shown
    assert segments
    assert found.interrupted
