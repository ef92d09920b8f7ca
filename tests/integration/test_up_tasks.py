"""`cotenant up` with models whose files say what they are for, and with some that are broken."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.builders.archives import parts, write_archive
from tests.builders.text_models import Direct, make_bert, write_json, write_sentence_files
from tests.builders.up import Up, key_of, keys, model, pool, tenant

pytestmark = pytest.mark.integration

COTENANT = [sys.executable, "-m", "cotenant_operator"]
MEAN = {"pooling_mode_mean_tokens": True}


def sentence_model(folder: Path, **pooling: bool) -> Path:
    make_bert(folder)
    write_sentence_files(folder, pooling or MEAN, normalize=True, length={"max_seq_length": 48})
    return folder


def hollow(folder: Path) -> Path:
    """A model whose config.json asks for one layer more than the weights have: only a load finds that out."""
    config = json.loads((make_bert(folder) / "config.json").read_text())
    write_json(folder / "config.json", {**config, "num_hidden_layers": 3})
    return folder


def without_weights(folder: Path) -> Path:
    (sentence_model(folder) / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    sentence_model(folder / "vectors")
    write_archive(folder / "double" / "double.pt2", parts())  # x → x + x
    sentence_model(folder / "odd", pooling_mode_magic=True)
    without_weights(folder / "empty")
    hollow(folder / "hollow")
    return folder


@pytest.fixture(scope="module")
def up(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    documents = [
        model(name, model=f"file://{models / name}") for name in ("vectors", "double", "odd", "empty", "hollow")
    ]
    documents.append(model("asked", model=f"file://{models / 'vectors'}", task="rerank"))
    running = Up(tmp_path_factory.mktemp("up"), pool(), *documents, tenant("search"), keys("search")).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(up: Up) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{up.url}/v1", api_key=key_of("search"), max_retries=0) as opened:
        yield opened


def post(up: Up, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=150)
    headers = {"authorization": f"Bearer {key_of('search')}", "content-type": "application/json"}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def said(up: Up, *arguments: str) -> str:
    command = [*COTENANT, *arguments, "--state", str(up.state)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_folder_without_a_task_is_woken_and_answers_with_vectors(
    up: Up, client: openai.OpenAI, models: Path
) -> None:
    import torch

    texts = ["a short text", "and a somewhat longer one"]
    answer = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    direct = Direct(models / "vectors")

    for text, found in zip(texts, answer.data, strict=True):
        expected = torch.nn.functional.normalize(direct.hidden(text).mean(dim=0), dim=0)
        assert torch.allclose(torch.tensor(found.embedding), expected, atol=1e-4)
    assert answer.usage.prompt_tokens == sum(direct.tokens(text) for text in texts)


def test_the_context_is_what_the_files_say(up: Up) -> None:
    status, answer = post(up, "/v1/embeddings", {"model": "vectors", "input": "word " * 40})

    assert status == 400
    assert "48" in answer["error"]["message"]


def test_an_archive_alone_is_a_model(up: Up) -> None:
    data = [float(number) for number in range(8)]
    given = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": data}
    status, answer = post(up, "/v2/models/double/infer", {"inputs": [given]})

    assert (status, answer["outputs"][0]["data"]) == (200, [2 * number for number in data])


@pytest.mark.parametrize("name", ["vectors", "double"])
def test_an_engine_stays_inside_the_share_that_the_estimate_gave_it(up: Up, name: str) -> None:
    up.wait_for(f"search/{name}", "ready")
    engine = up.engine(f"search/{name}")

    assert 0 < engine.used_bytes < engine.share_bytes


@pytest.mark.parametrize(
    ("name", "reason", "why"),
    [
        ("odd", "UnsupportedArchitecture", "1_Pooling/config.json asks for the pooling pooling_mode_magic"),
        ("empty", "FileMissing", "has no model.safetensors"),
        ("asked", "UnsupportedArchitecture", "spec.task is rerank, and BertModel is for embed"),
    ],
)
def test_a_broken_model_says_why_before_anything_starts(up: Up, name: str, reason: str, why: str) -> None:
    status, answer = post(up, "/v1/embeddings", {"model": name, "input": "x"})

    assert (status, answer["error"]["code"]) == ((400, "wrong_task") if name == "asked" else (503, "model_failed"))
    row = next(line for line in said(up, "get", "models").splitlines() if line.startswith(f"search/{name}"))
    assert reason in row
    assert why in row
    assert why in said(up, "explain", "model", name)


def test_a_model_whose_weights_lack_tensors_says_so_after_its_first_load(up: Up) -> None:
    status, answer = post(up, "/v1/embeddings", {"model": "hollow", "input": "x"})

    assert (status, answer["error"]["code"]) == (503, "model_failed")
    assert "CorruptWeights" in answer["error"]["message"]
    assert "encoder.layer.2." in said(up, "explain", "model", "hollow")
