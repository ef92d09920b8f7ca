"""Plans that the benchmarks of the product make by hand."""

import json

from benchmarks.loading import at_once, by_callers, scenario

from cotenant_loadtests.bodies import render, request_path


def test_prompts_of_token_ids_are_sent_as_they_are_and_all_at_once() -> None:
    plan = at_once("llama", [[1, 2], [3]], max_tokens=8)
    assert [request.at_s for request in plan] == [0.0, 0.0]
    assert request_path(plan[0]) == "/v1/completions"
    assert json.loads(render(plan[1])) == {
        "model": "llama",
        "prompt": [3],
        "max_tokens": 8,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_each_caller_asks_again_when_it_is_answered() -> None:
    plan = by_callers("bert", ["a", "b", "c", "d", "e"], callers=2)
    waits = [(request.at_s, request.after) for request in plan]
    assert waits == [(0, None), (0, None), (None, 0), (None, 1), (None, 2)]
    assert [json.loads(render(request))["input"] for request in plan] == [["a"], ["b"], ["c"], ["d"], ["e"]]


def test_the_scenario_waits_for_slow_models() -> None:
    assert scenario("http://127.0.0.1:1").duration_s == 600
