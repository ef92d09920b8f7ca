"""`cotenant up`, the whole path: real Ray, real engines, real gateway, two tenants, one device."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import openai
import pytest
from tests.builders.calls import read_stream
from tests.builders.load import Load, echo_chats
from tests.builders.up import Up, echo, key_of, keys, model, pool, tenant, until

import cotenant_serving
from cotenant_serving.engine.echo import verify

pytestmark = pytest.mark.integration

CHAT = Path(str(resources.files(cotenant_serving) / "demo_models" / "chat"))
COTENANT = [sys.executable, "-m", "cotenant_operator"]
QUESTION = "What is cotenant and who is it for?"


def documents(*more: dict) -> list[dict]:
    return [
        pool(),
        model("chat", model=f"file://{CHAT}", gpu={"memory": "1536Mi"}, engine={"contextTokens": 512}),
        echo("quick", namespace="ads", concurrency=64),
        echo("slow", namespace="ads", tokensPerSecond=20),
        echo(
            "elastic",
            namespace="ads",
            concurrency=1,
            tokensPerSecond=20,
            replicas={"max": 2, "idleAfter": "3s"},
        ),
        tenant("search"),
        tenant("ads", accepts=[{"namespace": "search", "models": ["*"]}]),
        keys("search", "ads", "late"),
        *more,
    ]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"), *documents()).start()
    yield running
    running.stop()


@pytest.fixture
def client(up: Up) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{up.url}/v1", api_key=key_of("search"), max_retries=0)


@pytest.fixture(scope="module")
def direct() -> str:
    """The answer of transformers, run directly on the same files."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHAT)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.no_grad():
        out = AutoModelForCausalLM.from_pretrained(CHAT).generate(**ids, max_new_tokens=100, do_sample=False)
    return str(tokenizer.decode(out[0][ids["input_ids"].shape[1] :], skip_special_tokens=True))


def ask(client: openai.OpenAI, **options):
    messages = [{"role": "user", "content": QUESTION}]
    return client.chat.completions.create(**{"model": "chat", "messages": messages, "temperature": 0, **options})


def test_openai_python_gets_the_answer_that_transformers_gives(client, direct):
    answer = ask(client, max_tokens=100)
    assert answer.choices[0].message.content == direct
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_the_stream_adds_up_to_the_same_answer_and_ends_with_the_usage(client, direct):
    chunks = list(ask(client, max_tokens=100, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == direct
    assert chunks[-1].usage.completion_tokens > 10


def test_text_completions_and_stop_work(client):
    answer = client.completions.create(model="chat", prompt="cotenant is", max_tokens=30, temperature=0, stop=["."])
    assert "." not in answer.choices[0].text


def test_each_tenant_sees_its_own_models_and_those_it_accepts(up, client):
    assert [found.id for found in client.models.list()] == ["chat"]
    other = openai.OpenAI(base_url=f"{up.url}/v1", api_key=key_of("ads"))
    assert {found.id for found in other.models.list()} == {"quick", "slow", "elastic"}


def test_a_model_of_another_tenant_answers_exactly_as_an_unknown_one(up, client):
    errors = []
    for name in ("quick", "nobody"):
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model=name, messages=[{"role": "user", "content": "x"}])
        errors.append(str(caught.value).replace(name, "NAME"))
    assert errors[0] == errors[1]


@pytest.mark.parametrize(
    ("options", "error", "names"),
    [
        ({"max_tokens": -1}, openai.BadRequestError, "max_tokens"),
        ({"n": 3}, openai.BadRequestError, "n"),
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"max_tokens": 4000}, openai.BadRequestError, "512"),
    ],
)
def test_bad_parameters_are_named(client, options, error, names):
    with pytest.raises(error, match=names):
        ask(client, **options)


def test_a_prompt_over_the_context_is_refused_while_others_stream_on(up, client):
    with up.request("search", "chat", QUESTION, stream=True, temperature=0) as response:
        with pytest.raises(openai.BadRequestError, match="context"):
            client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "word " * 2000}])
        assert read_stream(response).done


def test_a_wrong_key_is_an_authentication_error(up):
    stranger = openai.OpenAI(base_url=f"{up.url}/v1", api_key="ct-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_curl_streams(up):
    body = json.dumps({"model": "quick", "stream": True, "messages": [{"role": "user", "content": "a b c"}]})
    command = ["curl", "-sN", f"{up.url}/v1/chat/completions", "-H", f"x-api-key: {key_of('ads')}", "-d", body]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.rstrip().endswith("data: [DONE]")
    assert "cotenant-usage" not in out


def test_200_first_requests_start_one_engine(up, tmp_path):
    at_once = echo_chats(up.url, "ads", ["quick"], rate_per_s=400, seed=1, duration_s=0.5)
    with Load(at_once, {"ads": key_of("ads")}, tmp_path) as load:
        until(lambda: load.ended, "all have their answers")
    assert load.wrong("ok") == []
    assert len(load.records) == len(load.planned) > 150
    starts = (up.state / "logs" / "conductor.log").read_text().count("starting ads.quick-")
    assert starts == 1


def test_a_client_that_leaves_frees_its_slot_and_its_usage_is_counted(up):
    with up.request("ads", "slow", "word " * 500, stream=True) as response:
        response.readline()
    until(lambda: up.model("ads/slow").running == 0 and up.engine("ads/slow").running == 0, "the slot is free")
    find = lambda: [record for record in up.usage() if record["model"] == "ads/slow"]  # noqa: E731
    record = until(find, "the usage is written")[0]
    assert record["outcome"] == "client_closed"
    assert 0 < record["completion_tokens"] < 400


def test_demand_brings_a_second_engine_and_idle_after_takes_both(up):
    with ThreadPoolExecutor(2) as threads:
        streams = list(threads.map(lambda n: up.stream("ads", "elastic", f"word{n} " * 80), range(2)))
    assert all(stream.done and verify(stream.text) for stream in streams)
    log = (up.state / "logs" / "conductor.log").read_text()
    assert log.count("starting ads.elastic-") == 2
    until(lambda: not up.model("ads/elastic").engines, "both are gone")
    assert up.model("ads/elastic").state == "cold"


def test_an_edit_takes_effect_without_dropping_a_stream(up):
    """A model and a tenant are added, a limit is set, a key is revoked; the open stream goes on."""
    up.text("ads", "slow", "warm up")
    pids = {engine.pid for name in ("ads/slow",) for engine in up.model(name).engines}
    results = []
    reading = threading.Thread(target=lambda: results.append(up.stream("ads", "slow", "word " * 100)))
    reading.start()
    up.write(*documents(echo("new", namespace="late"), tenant("late", limits={"requestsPerMinute": 2})))
    until(lambda: up.chat("late", "new", "hello")[0] == 200, "the new model answers")
    began_s = time.monotonic()
    answers = [up.chat("late", "new", "again")]
    while answers[-1][0] == 200:
        answers.append(up.chat("late", "new", "too many"))
        assert len(answers) <= 3 + (time.monotonic() - began_s) / 30, "one more is let in each 30 s"
    status, answer = answers[-1]
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    up.write(*documents())
    until(lambda: up.chat("late", "new", "gone")[0] == 401, "the key is revoked")
    reading.join()
    assert results[0].done
    assert verify(results[0].text)
    assert {engine.pid for engine in up.model("ads/slow").engines} == pids


def test_a_bad_edit_is_told_and_changes_nothing(up):
    good = up.file.read_text()
    up.file.write_text(good.replace("tokensPerSecond", "tokensPerSeconds"))
    until(lambda: "did you mean 'tokensPerSecond'" in up.said(), "the mistake is told")
    assert "models.yaml:" in up.said()
    assert verify(up.text("ads", "quick", "still here"))
    up.file.write_text(good)


def test_get_models_shows_what_runs(up):
    shown = subprocess.run(
        [*COTENANT, "get", "models", "--state", str(up.state)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "ads/quick" in shown or "quick" in shown


def test_a_second_up_says_who_holds_the_state_directory(up):
    command = [*COTENANT, "up", "-f", str(up.file), "--state", str(up.state), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 2
    assert f"process {up.process.pid}" in second.stderr
    assert "--state" in second.stderr
