"""The `classify` and `rerank` engines: sequence classifiers, of one text or of pairs.

`classify` answers probabilities: softmax, or sigmoid where labels do not exclude each other. `rerank` is a
cross-encoder with one output: how well two texts go together, sigmoid unless config.json names another activation.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cotenant_serving.contract import EngineArgs, Reason
from cotenant_serving.engine.base import LoadError, Progress, UnaryAnswer, UnaryRequest
from cotenant_serving.engine.load_errors import load_errors
from cotenant_serving.engine.loader import Loaded, load
from cotenant_serving.engine.model_source import ModelSource
from cotenant_serving.engine.pooling import activations
from cotenant_serving.engine.recipe import activation
from cotenant_serving.engine.text_model import TextModel, forward_with
from cotenant_serving.engine.texts import limit_tokens, padding_id
from cotenant_serving.pooling_api import (
    RerankRequest,
    ScoreRequest,
    classify_answer,
    parse_classify,
    parse_rerank,
    parse_score,
    rerank_answer,
    score_answer,
)

CLASSIFY, RERANK, SCORE = "/v1/classify", "/v1/rerank", "/v1/score"
PROBLEMS = {
    "regression": "identity",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}
"""What config.json's `problem_type` means for the outputs."""


def class_activation(config: Any) -> str:
    """As vLLM: by `problem_type`, else softmax; of a single output, which softmax would make 1, sigmoid."""
    chosen = PROBLEMS.get(getattr(config, "problem_type", None) or "", "softmax")
    return "sigmoid" if chosen == "softmax" and config.num_labels == 1 else chosen


def score_activation(loaded: Loaded) -> str:
    """As sentence-transformers' CrossEncoder: what config.json names, else sigmoid.

    Raises LoadError(UnsupportedArchitecture) when there is not one output, or the activation is not known.
    """
    config, file = loaded.model.config, loaded.folder / "config.json"
    if config.num_labels != 1:
        raise LoadError(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"{file} has {config.num_labels} labels, and task rerank needs a cross-encoder, which has one output. "
            "Use task classify, or another model.",
        )
    nested = getattr(config, "sentence_transformers", None)
    if isinstance(nested, Mapping) and nested.get("activation_fn") is not None:
        return activation(file, "sentence_transformers.activation_fn", nested["activation_fn"])
    older = getattr(config, "sbert_ce_default_activation_function", None)
    return activation(file, "sbert_ce_default_activation_function", older) if older is not None else "sigmoid"


class _Classifier:
    """A sequence classifier that is loaded, or will be."""

    def __init__(self, args: EngineArgs, choose: Callable[[Loaded], str], *, pairs: bool = False) -> None:
        self._args = args
        self._source = ModelSource(args)
        self._pairs = pairs
        self._choose = choose
        self._model: TextModel | None = None
        self.config: Any = None

    def fetch(self, progress: Progress) -> None:
        self._source.open(progress)

    def load(self, progress: Progress) -> None:
        import torch

        args = self._args
        loaded = load(args, self._source, progress)
        with load_errors(args):
            self.config = loaded.model.config
            softmax: Callable[[Any], Any] = partial(torch.softmax, dim=-1)
            known = {**activations(), "softmax": softmax}
            activate, run = known[self._choose(loaded)], forward_with(loaded.model)

            def forward(named: dict[str, Any]) -> Any:
                return activate(run(named).logits.float())

            limit = limit_tokens(args.spec.context_tokens, loaded)
            rows = _rows_at_once(loaded, args.spec.max_batch)
            model = TextModel(args, loaded, limit, forward, rows, pairs=self._pairs)
            model.warm_up(progress)
        self._model = model

    @property
    def model(self) -> TextModel:
        assert self._model is not None, "answer() before load()"
        return self._model

    def cancel(self, request_id: str) -> None:
        if self._model:
            self._model.cancel(request_id)

    def healthy(self) -> bool:
        return self._model is None or self._model.healthy

    def close(self) -> None:
        if self._model:
            self._model.close()
        self._source.close()


def _rows_at_once(loaded: Loaded, max_batch: int) -> int:
    """A decoder finds the last token of a text by what is not the config's padding token; without one that the model
    knows, texts go alone."""
    config = loaded.model.config.get_text_config()
    config.pad_token_id = padding_id(loaded.model, loaded.tokenizer)
    return 1 if config.pad_token_id is None else max_batch


class ClassifyEngine(_Classifier):
    """POST /v1/classify. `clock` gives unix seconds."""

    def __init__(self, args: EngineArgs, clock: Callable[[], float] = time.time) -> None:
        super().__init__(args, lambda loaded: class_activation(loaded.model.config))
        self._clock = clock

    def serves(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", CLASSIFY)

    async def answer(self, request: UnaryRequest) -> UnaryAnswer:
        asked = parse_classify(request.body)
        rows, usage = await self.model.run(request, asked.inputs, asked.name_of, asked.truncate_prompt_tokens)
        classes = [self._named(row.tolist()) for row in rows]
        created = int(self._clock())
        body = classify_answer(asked, classes, usage.prompt_tokens, request.request_id, created)
        return UnaryAnswer(body, usage)

    def _named(self, probabilities: Sequence[float]) -> tuple[str, Sequence[float]]:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return str(self.config.id2label.get(best, f"LABEL_{best}")), probabilities


class RerankEngine(_Classifier):
    """POST /v1/rerank and /v1/score. `clock` gives unix seconds."""

    def __init__(self, args: EngineArgs, clock: Callable[[], float] = time.time) -> None:
        super().__init__(args, score_activation, pairs=True)
        self._clock = clock

    def serves(self, method: str, path: str) -> bool:
        return method == "POST" and path in (RERANK, SCORE)

    async def answer(self, request: UnaryRequest) -> UnaryAnswer:
        asked: RerankRequest | ScoreRequest
        asked = parse_rerank(request.body) if request.path == RERANK else parse_score(request.body)
        truncate = asked.truncate_prompt_tokens
        rows, usage = await self.model.run(request, asked.pairs, asked.name_of, truncate)
        scores = [float(row[0]) for row in rows]
        if isinstance(asked, RerankRequest):
            body = rerank_answer(asked, scores, usage.prompt_tokens, request.request_id)
        else:
            created = int(self._clock())
            body = score_answer(asked, scores, usage.prompt_tokens, request.request_id, created)
        return UnaryAnswer(body, usage)
