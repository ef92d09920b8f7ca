"""The rerank and classify engines on tiny random models: equal to transformers run directly, over real HTTP."""

import asyncio
import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.builders.engine import RunningEngine, fake_conductor, running_engine, text_args
from tests.builders.text_models import POISON, Direct, make_bert, make_llama_classifier, make_roberta
from tests.builders.whole_path import Gateway, gateway_before

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError, UnaryRequest
from cotenant_serving.engine.classify import ClassifyEngine, RerankEngine

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's and transformers' own
]

LABELS = {0: "bad", 1: "so so", 2: "good"}
DOCUMENTS = ["a red fox", "dogs", "the quick brown fox jumps", "zz yy xx", "fox"]
QUERY = "which fox"
CLOSE = {"rtol": 0, "atol": 1e-4}


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "cross"
    return make_bert(folder, "BertForSequenceClassification", poisoned=True, num_labels=1)


@pytest.fixture(scope="module")
def engine(reranker: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    args = text_args("rerank", reranker, slots=64, batch_wait_s=0.02)
    with fake_conductor() as conductor, running_engine(args, tmp_path_factory.mktemp("engine"), conductor) as running:
        yield running


@pytest.fixture(scope="module")
def direct(reranker: Path) -> Direct:
    return Direct(reranker, "AutoModelForSequenceClassification")


def sigmoid(values: Any) -> Any:
    return 1 / (1 + np.exp(-np.asarray(values)))


def scores_of(direct: Direct, pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [float(sigmoid(direct.logits(*pair))[0]) for pair in pairs]


def rerank(engine: RunningEngine, **body: Any) -> Any:
    return engine.request("POST", "/v1/rerank", {"model": "m", "query": QUERY, "documents": DOCUMENTS} | body)


def test_documents_are_ranked_by_what_transformers_computes(engine: RunningEngine, direct: Direct) -> None:
    answer = rerank(engine)
    expected = scores_of(direct, [(QUERY, document) for document in DOCUMENTS])
    results = answer.json["results"]
    assert [result["index"] for result in results] == list(np.argsort(expected)[::-1])
    for result in results:
        assert result["relevance_score"] == pytest.approx(expected[result["index"]], abs=1e-4)
        assert result["document"]["text"] == DOCUMENTS[result["index"]]
    tokens = sum(direct.tokens(QUERY, document) for document in DOCUMENTS)
    assert answer.json["usage"]["total_tokens"] == tokens
    assert answer.headers["x-cotenant-usage"] == f'{{"prompt_tokens":{tokens},"completion_tokens":0}}'
    best = rerank(engine, top_n=2, return_documents=False).json["results"]
    assert [result["index"] for result in best] == [result["index"] for result in results[:2]]
    assert "document" not in best[0]


def test_pairs_are_scored_one_with_many_and_side_by_side(engine: RunningEngine, direct: Direct) -> None:
    many = engine.request("POST", "/v1/score", {"model": "m", "text_1": QUERY, "text_2": DOCUMENTS})
    expected = scores_of(direct, [(QUERY, document) for document in DOCUMENTS])
    assert [item["score"] for item in many.json["data"]] == pytest.approx(expected, abs=1e-4)
    pairs = list(zip(DOCUMENTS, reversed(DOCUMENTS), strict=True))
    sides = {"text_1": [one for one, _ in pairs], "text_2": [two for _, two in pairs]}
    both = engine.request("POST", "/v1/score", {"model": "m", **sides})
    assert [item["score"] for item in both.json["data"]] == pytest.approx(scores_of(direct, pairs), abs=1e-4)


def test_callers_at_once_get_their_own_scores_and_one_bad_document_fails_only_its_request(
    engine: RunningEngine, direct: Direct
) -> None:
    queries = [f"{letter} fox" for letter in "abcdefghijkl"]
    with ThreadPoolExecutor(16) as pool:
        bad = [pool.submit(rerank, engine, documents=["fine", f"a {POISON} pill"]) for _ in range(4)]
        answers = list(pool.map(lambda query: rerank(engine, query=query, documents=DOCUMENTS[:2]), queries))
    for query, answer in zip(queries, answers, strict=True):
        found = {result["index"]: result["relevance_score"] for result in answer.json["results"]}
        expected = scores_of(direct, [(query, document) for document in DOCUMENTS[:2]])
        assert [found[0], found[1]] == pytest.approx(expected, abs=1e-4)
    for failed in bad:
        assert (failed.result().status, failed.result().json["error"]["code"]) == (500, "computation_failed")
        assert "Input 1" in failed.result().json["error"]["message"]


def test_pairs_beyond_the_limit_are_refused_or_cut_as_the_request_says(engine: RunningEngine, direct: Direct) -> None:
    long = "abcdefghij" * 8
    refused = rerank(engine, documents=["short", long]).json["error"]
    assert (refused["param"], refused["code"]) == ("documents[1]", "context_length_exceeded")
    answer = rerank(engine, documents=[long], truncate_prompt_tokens=-1)
    assert answer.json["usage"]["total_tokens"] == 64
    with_cut = direct.tokenizer(QUERY, long, truncation=True, max_length=64, return_tensors="pt")
    expected = sigmoid(direct.model(**with_cut).logits.detach())[0][0]
    assert answer.json["results"][0]["relevance_score"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": "q"}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": ["a", ""]}, "documents[1]"),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, "query"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "truncate_prompt_tokens": 3}, "truncate_prompt_tokens"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
        ("/v1/score", {"text_1": "a", "text_2": "b", "made_up": 1}, "made_up"),
    ],
)
def test_bad_input_is_a_400_that_names_the_field(
    engine: RunningEngine, path: str, body: dict[str, Any], param: str
) -> None:
    answer = engine.request("POST", path, {"model": "m"} | body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


def test_curl_is_enough(engine: RunningEngine, direct: Direct, tmp_path: Path) -> None:
    def ask(gateway: Gateway, path: str, **body: Any) -> Any:
        data = json.dumps({"model": "rerank"} | body)
        command = ["curl", "-sS", gateway.url + path, "-H", f"Authorization: Bearer {gateway.key}", "-d", data]
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)

    expected = scores_of(direct, [("by", "hand")])[0]
    with gateway_before(engine, tmp_path) as gateway:
        scored = ask(gateway, "/v1/score", text_1="by", text_2="hand")
        ranked = ask(gateway, "/v1/rerank", query="by", documents=["hand"])
        records = gateway.usage_of(ranked["id"].removeprefix("rerank-"))
    assert scored["data"][0]["score"] == pytest.approx(expected, abs=1e-4)
    assert ranked["results"][0]["relevance_score"] == pytest.approx(expected, abs=1e-4)
    assert records[0]["prompt_tokens"] == ranked["usage"]["total_tokens"] == direct.tokens("by", "hand")


async def answer_of(engine: ClassifyEngine | RerankEngine, path: str, **body: Any) -> Any:
    await asyncio.to_thread(engine.load, lambda *_, **__: None)
    try:
        request = UnaryRequest("r", "POST", path, json.dumps({"model": "m"} | body).encode())
        return json.loads((await engine.answer(request)).body)
    finally:
        engine.close()


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
async def test_texts_are_classified_by_the_labels_of_the_files(problem: str | None, tmp_path: Path) -> None:
    folder = make_roberta(
        tmp_path / "m", "RobertaForSequenceClassification", num_labels=3, id2label=LABELS, problem_type=problem
    )
    engine = ClassifyEngine(text_args("classify", folder), clock=lambda: 1700000000.5)
    answer = await answer_of(engine, "/v1/classify", input=DOCUMENTS)
    direct = Direct(folder, "AutoModelForSequenceClassification")
    assert answer["created"] == 1700000000
    for item, text in zip(answer["data"], DOCUMENTS, strict=True):
        logits = direct.logits(text).numpy()
        expected = sigmoid(logits) if problem else np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(item["probs"], expected, **CLOSE)
        assert item["label"] == LABELS[int(np.argmax(logits))]
        assert item["num_classes"] == 3
    assert answer["usage"]["prompt_tokens"] == sum(direct.tokens(text) for text in DOCUMENTS)


@pytest.mark.parametrize("pad", [True, False])
async def test_a_decoder_classifies_by_the_last_token_of_each_text(pad: bool, tmp_path: Path) -> None:
    folder = make_llama_classifier(tmp_path / "m", pad=pad)
    answer = await answer_of(ClassifyEngine(text_args("classify", folder)), "/v1/classify", input=DOCUMENTS)
    direct = Direct(folder, "AutoModelForSequenceClassification")
    for item, text in zip(answer["data"], DOCUMENTS, strict=True):
        logits = direct.logits(text).numpy()
        np.testing.assert_allclose(item["probs"], np.exp(logits) / np.exp(logits).sum(), **CLOSE)


async def test_a_padding_token_that_the_model_does_not_know_changes_no_answer(tmp_path: Path) -> None:
    folder = make_llama_classifier(tmp_path / "m", pad=False)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": -1}))
    answer = await answer_of(ClassifyEngine(text_args("classify", folder)), "/v1/classify", input=DOCUMENTS)
    direct = Direct(folder, "AutoModelForSequenceClassification")
    for item, text in zip(answer["data"], DOCUMENTS, strict=True):
        logits = direct.logits(text).numpy()
        np.testing.assert_allclose(item["probs"], np.exp(logits) / np.exp(logits).sum(), **CLOSE)


async def test_a_score_goes_out_as_the_files_ask(tmp_path: Path) -> None:
    folder = make_bert(
        tmp_path / "m",
        "BertForSequenceClassification",
        num_labels=1,
        sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
    )
    answer = await answer_of(RerankEngine(text_args("rerank", folder)), "/v1/score", text_1="a", text_2="b")
    expected = float(Direct(folder, "AutoModelForSequenceClassification").logits("a", "b")[0])
    assert answer["data"][0]["score"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("head", ["BertModel", "BertForMaskedLM"])
async def test_what_is_no_classifier_is_refused(head: str, tmp_path: Path) -> None:
    folder = make_bert(tmp_path / "m", head)
    with pytest.raises(LoadError) as refused:
        await answer_of(ClassifyEngine(text_args("classify", folder)), "/v1/classify", input="a")
    assert refused.value.reason is Reason.UNSUPPORTED_ARCHITECTURE
    assert head in refused.value.message
