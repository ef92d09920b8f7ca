"""The embed engine on tiny random models: equal to transformers run directly, over real HTTP with real clients."""

import asyncio
import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from tests.builders.engine import RunningEngine, fake_conductor, make_tiny_llama, running_engine, text_args
from tests.builders.text_models import HIDDEN, POISON, Direct, make_bert, make_roberta, write_sentence_files
from tests.builders.whole_path import Gateway, gateway_before

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError, UnaryRequest
from cotenant_serving.engine.embed import EmbedEngine

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's, transformers' and gevent's own
]

TEXTS = ["a", "the quick brown fox", "jumps over", "b c d e f", "lazy dogs " * 5, "zz"]
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT in the files of sentence-transformers: mean and max, a linear layer, unit length, 48 tokens, a prompt."""
    folder = make_bert(tmp_path_factory.mktemp("models") / "bert", poisoned=True, is_matryoshka=True)
    write_sentence_files(
        folder,
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True, "pooling_mode_cls_token": False},
        dense=(2 * HIDDEN, 24),
        normalize=True,
        length={"max_seq_length": 48, "do_lower_case": True},
        prompts={"prompts": {"query": "q "}, "default_prompt_name": "query", "__version__": {}},
    )
    return folder


@pytest.fixture(scope="module")
def engine(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    args = text_args("embed", model, slots=64, batch_wait_s=0.02)
    with fake_conductor() as conductor, running_engine(args, tmp_path_factory.mktemp("engine"), conductor) as running:
        yield running


@pytest.fixture(scope="module")
def direct(model: Path) -> "Sentences":
    return Sentences(model)


class Sentences(Direct):
    """The maths of the fixture's files, written out."""

    def vector(self, text: str | Sequence[int]) -> np.ndarray:
        import torch
        from safetensors.torch import load_file

        hidden = self.hidden("q " + text.lower() if isinstance(text, str) else text)
        pooled = torch.cat([hidden.max(dim=0).values, hidden.mean(dim=0)])
        layer = load_file(Path(self.model.name_or_path) / "2_Dense" / "model.safetensors")
        vector = torch.tanh(layer["linear.weight"] @ pooled + layer["linear.bias"])
        return (vector / vector.norm()).numpy()


@pytest.fixture(scope="module")
def gateway(engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_before(engine, tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key, max_retries=0) as made:
        yield made


def embed(engine: RunningEngine, **body: Any) -> Any:
    return engine.request("POST", "/v1/embeddings", {"model": "m"} | body)


def test_openais_client_gets_what_transformers_computes(client: openai.OpenAI, direct: Sentences) -> None:
    answer = client.embeddings.create(model="embed", input=TEXTS)  # as base64, which is that client's default
    assert [item.index for item in answer.data] == list(range(len(TEXTS)))
    for item, text in zip(answer.data, TEXTS, strict=True):
        np.testing.assert_allclose(item.embedding, direct.vector(text), **CLOSE)
    assert answer.usage.prompt_tokens == sum(direct.tokens("q " + text) for text in TEXTS)


def test_numbers_base64_and_a_single_text_are_the_same_vector(client: openai.OpenAI, engine: RunningEngine) -> None:
    many = client.embeddings.create(model="embed", input=TEXTS, encoding_format="float")
    one = embed(engine, input=TEXTS[4], encoding_format="base64").json["data"][0]["embedding"]
    decoded = np.frombuffer(base64.b64decode(one), dtype="<f4")
    np.testing.assert_allclose(decoded, many.data[4].embedding, **CLOSE)
    assert np.linalg.norm(decoded) == pytest.approx(1.0, abs=1e-5)


def test_token_ids_are_taken_as_they_are(client: openai.OpenAI, direct: Sentences) -> None:
    ids = [[2, 5, 6, 3], [7] * 20, [9]]
    answer = client.embeddings.create(model="embed", input=ids)
    for item, given in zip(answer.data, ids, strict=True):
        np.testing.assert_allclose(item.embedding, direct.vector(given), **CLOSE)
    assert answer.usage.prompt_tokens == 25


def test_fewer_dimensions_are_the_first_ones_of_unit_length_again(client: openai.OpenAI, direct: Sentences) -> None:
    answer = client.embeddings.create(model="embed", input=TEXTS[1], dimensions=7)
    cut = direct.vector(TEXTS[1])[:7]
    np.testing.assert_allclose(answer.data[0].embedding, cut / np.linalg.norm(cut), **CLOSE)


def test_callers_at_once_get_their_own_vectors(engine: RunningEngine, direct: Sentences) -> None:
    texts = [f"caller {'x' * (index % 9)} {chr(97 + index % 26)}" for index in range(32)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: embed(engine, input=text), texts))
    for answer, text in zip(answers, texts, strict=True):
        assert answer.headers["x-cotenant-usage"].startswith('{"prompt_tokens":')
        np.testing.assert_allclose(answer.json["data"][0]["embedding"], direct.vector(text), **CLOSE)


def test_one_bad_text_fails_its_request_and_no_neighbour(engine: RunningEngine, direct: Sentences) -> None:
    texts = ["good", f"some {POISON} here", "fine", "well"] * 4
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(lambda text: embed(engine, input=[text, "beside it"]), texts))
    for answer, text in zip(answers, texts, strict=True):
        if POISON in text:
            assert (answer.status, answer.json["error"]["code"]) == (500, "computation_failed")
            assert "Input 0" in answer.json["error"]["message"]
        else:
            np.testing.assert_allclose(answer.json["data"][0]["embedding"], direct.vector(text), **CLOSE)
    assert engine.state().running == 0


def test_texts_beyond_the_limit_are_refused_or_cut_as_the_request_says(
    engine: RunningEngine, direct: Sentences
) -> None:
    long = "abcdefghij" * 8
    refused = embed(engine, input=["short", long])
    assert refused.status == 400
    error = refused.json["error"]
    assert (error["param"], error["code"]) == ("input[1]", "context_length_exceeded")
    assert "83 tokens" in error["message"]
    assert "48" in error["message"]
    for wanted, kept in ((-1, 48), (20, 20)):
        answer = embed(engine, input=long, truncate_prompt_tokens=wanted)
        assert answer.json["usage"]["prompt_tokens"] == kept
        ids = direct.tokenizer("q " + long, truncation=True, max_length=kept)["input_ids"]
        np.testing.assert_allclose(answer.json["data"][0]["embedding"], direct.vector(ids), **CLOSE)
    ids = [5] * 60
    assert embed(engine, input=ids).json["error"]["param"] == "input"
    answer = embed(engine, input=ids, truncate_prompt_tokens=10)
    np.testing.assert_allclose(answer.json["data"][0]["embedding"], direct.vector(ids[:10]), **CLOSE)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": [[1, 10**6]]}, "input[0]", "ids are 0 to"),
        ({"input": "x", "dimensions": 25}, "dimensions", "1 to 24"),
        ({"input": "x", "truncate_prompt_tokens": 2}, "truncate_prompt_tokens", "adds 2 tokens"),
        ({"input": "x", "truncate_prompt_tokens": 49}, "truncate_prompt_tokens", "at most 48"),
        ({"input": []}, "input", ""),
        ({"input": ["x", ""]}, "input[1]", ""),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format", ""),
        ({"input": "x", "made_up": 1}, "made_up", ""),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(
    engine: RunningEngine, body: dict[str, Any], param: str, words: str
) -> None:
    answer = embed(engine, **body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert words in answer.json["error"]["message"]


def test_curl_is_enough(gateway: Gateway, direct: Sentences) -> None:
    body = json.dumps({"model": "team/embed", "input": "by hand"})
    command = [
        "curl",
        "-sS",
        f"{gateway.url}/v1/embeddings",
        "-H",
        f"Authorization: Bearer {gateway.key}",
        "-d",
        body,
    ]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    np.testing.assert_allclose(answer["data"][0]["embedding"], direct.vector("by hand"), **CLOSE)


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_gets_the_same_vectors(gateway: Gateway, direct: Sentences, binary: bool) -> None:
    import tritonclient.http as triton

    with triton.InferenceServerClient(gateway.address) as client:
        assert client.is_model_ready("team/embed", headers=gateway.headers())
        metadata = client.get_model_metadata("team/embed", headers=gateway.headers())
        assert metadata["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert metadata["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, 24]}]
        given = triton.InferInput("text", [len(TEXTS)], "BYTES")
        given.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=object), binary_data=binary)
        wanted = [triton.InferRequestedOutput("embedding", binary_data=binary)]
        answer = client.infer("team/embed", [given], outputs=wanted, headers=gateway.headers())
    expected = [direct.vector(text) for text in TEXTS]
    np.testing.assert_allclose(answer.as_numpy("embedding"), expected, **CLOSE)


def test_every_request_is_counted_with_its_tokens(gateway: Gateway, client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model="embed", input=["one two", "three"])
    tokens, request_id = raw.parse().usage.prompt_tokens, raw.headers["x-request-id"]
    records = gateway.usage_of(request_id)
    assert [(record["prompt_tokens"], record["completion_tokens"]) for record in records] == [(tokens, 0)]
    assert (records[0]["outcome"], records[0]["estimated"]) == ("ok", False)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"name": "texts", "datatype": "BYTES", "shape": [1], "data": ["x"]}, "inputs[0].name"),
        ({"name": "text", "datatype": "FP32", "shape": [1], "data": [1.0]}, "inputs[0].datatype"),
        ({"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]}, "inputs[0].shape"),
        ({"name": "text", "datatype": "BYTES", "shape": [2], "data": ["x", ""]}, "text[1]"),
        ({"name": "text", "datatype": "BYTES", "shape": [2], "data": ["x"]}, "inputs[0].data"),
    ],
)
def test_bad_tensors_are_a_400_in_the_shape_of_the_protocol(
    engine: RunningEngine, tensor: dict[str, Any], words: str
) -> None:
    answer = engine.request("POST", "/v2/models/m/infer", {"inputs": [tensor]})
    assert answer.status == 400
    assert list(answer.json) == ["error"]
    assert words in answer.json["error"]


def test_a_route_of_another_task_is_not_there(engine: RunningEngine) -> None:
    assert engine.request("POST", "/v1/rerank", {"model": "m"}).status == 404


async def vectors(folder: Path, inputs: Sequence[Any], **options: Any) -> np.ndarray:
    engine = EmbedEngine(text_args("embed", folder, **options))
    await asyncio.to_thread(engine.load, lambda *_, **__: None)
    try:
        body = json.dumps({"model": "m", "input": list(inputs)}).encode()
        answer = await engine.answer(UnaryRequest("r", "POST", "/v1/embeddings", body))
        return np.array([item["embedding"] for item in json.loads(answer.body)["data"]])
    finally:
        engine.close()


async def test_a_plain_encoder_answers_its_first_token_normalised(tmp_path: Path) -> None:
    folder = make_roberta(tmp_path / "roberta", "RobertaForMaskedLM")
    texts = [*TEXTS, "y" * 62]  # 64 tokens: all of the 66 positions that can be used
    found = await vectors(folder, texts)
    direct = Direct(folder)
    for vector, text in zip(found, texts, strict=True):
        first = direct.hidden(text)[0].numpy()
        np.testing.assert_allclose(vector, first / np.linalg.norm(first), **CLOSE)


async def test_a_decoder_answers_its_last_token(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "llama")
    found = await vectors(folder, TEXTS)
    direct = Direct(folder)
    for vector, text in zip(found, TEXTS, strict=True):
        last = direct.hidden(text)[-1].numpy()
        np.testing.assert_allclose(vector, last / np.linalg.norm(last), **CLOSE)


def weighted(hidden: np.ndarray) -> np.ndarray:
    weights = np.arange(1, len(hidden) + 1)[:, None]
    return (hidden * weights).sum(axis=0) / weights.sum()


@pytest.mark.parametrize(
    ("mode", "pooled"),
    [
        ("cls", lambda hidden: hidden[0]),
        ("lasttoken", lambda hidden: hidden[-1]),
        ("max", lambda hidden: hidden.max(axis=0)),
        ("mean", lambda hidden: hidden.mean(axis=0)),
        ("mean_sqrt_len_tokens", lambda hidden: hidden.sum(axis=0) / np.sqrt(len(hidden))),
        ("weightedmean", weighted),
        (["mean", "cls"], lambda hidden: np.concatenate([hidden.mean(axis=0), hidden[0]])),
    ],
)
async def test_tokens_are_pooled_as_the_files_say(mode: Any, pooled: Any, tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "bert")
    write_sentence_files(folder, {"pooling_mode": mode})
    found = await vectors(folder, TEXTS)
    direct = Direct(folder)
    for vector, text in zip(found, TEXTS, strict=True):
        np.testing.assert_allclose(vector, pooled(direct.hidden(text).numpy()), **CLOSE)


@pytest.mark.parametrize("head", ["BertForSequenceClassification", "BertModel"])
async def test_missing_weights_are_refused_but_for_the_pooler(head: str, tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "bert", head)
    if head == "BertModel":
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
        assert len(kept) < len(tensors)
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        assert (await vectors(folder, ["a"])).shape == (1, HIDDEN)
        del kept["encoder.layer.0.output.dense.weight"]
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(LoadError) as refused:
            await vectors(folder, ["a"])
        assert refused.value.reason is Reason.CORRUPT_WEIGHTS
    else:
        assert (await vectors(folder, ["a"])).shape == (1, HIDDEN)
