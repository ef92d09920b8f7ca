"""The `embed` engine: texts → vectors, through /v1/embeddings and the Open Inference Protocol.

Over OIP the input is `text`, BYTES [n] of UTF-8, and the output `embedding`, FP32 [n, size].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotenant_serving.contract import EngineArgs, Usage
from cotenant_serving.engine.base import Progress, UnaryAnswer, UnaryRequest
from cotenant_serving.engine.load_errors import load_errors
from cotenant_serving.engine.loader import Loaded, load
from cotenant_serving.engine.model_source import ModelSource
from cotenant_serving.engine.oip import infer_answer, metadata_answer, model_path, read_infer
from cotenant_serving.engine.pooling import Head
from cotenant_serving.engine.recipe import Recipe, output_size, read_recipe
from cotenant_serving.engine.text_model import TextModel, forward_with
from cotenant_serving.engine.texts import limit_tokens
from cotenant_serving.oip_api import InferRequest, OutputTensor, TensorFacts
from cotenant_serving.pooling_api import MAX_INPUTS, Input, embeddings_answer, parse_embeddings
from cotenant_serving.request_fields import RequestError

EMBEDDINGS = "/v1/embeddings"
TEXT, EMBEDDING = "text", "embedding"
PLATFORM = "transformers"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the vectors that a model can give. `shorter`: None is none, empty is any size below `full`."""

    full: int
    shorter: frozenset[int] | None = None

    def check(self, wanted: int | None, field: str) -> int:
        """Raises RequestError (400) that names the field."""
        if wanted is None or wanted == self.full:
            return self.full
        if self.shorter is None:
            allowed = f"only {self.full}: its files do not say that shorter vectors mean anything"
        elif wanted in self.shorter or (not self.shorter and wanted < self.full):
            return wanted
        else:
            allowed = ", ".join(map(str, sorted({*self.shorter, self.full}))) if self.shorter else f"1 to {self.full}"
        raise RequestError(
            400, f"'{field}' is {wanted}; this model has {allowed}.", param=field, code="invalid_value"
        )


def sizes_of(config: Any, full: int) -> Sizes:
    """By the names that vLLM reads in config.json: `is_matryoshka`, `matryoshka_dimensions`."""
    listed = getattr(config, "matryoshka_dimensions", None)
    if listed:
        return Sizes(full, frozenset(int(size) for size in listed if 0 < int(size) < full))
    return Sizes(full, frozenset() if getattr(config, "is_matryoshka", False) else None)


class EmbedEngine:
    """See the module."""

    def __init__(self, args: EngineArgs) -> None:
        self._args = args
        self._source = ModelSource(args)
        self._model: TextModel | None = None
        self._recipe: Recipe
        self._sizes: Sizes

    def fetch(self, progress: Progress) -> None:
        self._source.open(progress)

    def load(self, progress: Progress) -> None:
        args = self._args
        loaded = load(args, self._source, progress)
        with load_errors(args):
            hidden_size = loaded.model.config.get_text_config().hidden_size
            self._recipe = read_recipe(loaded.folder, hidden_size=hidden_size, decoder=is_decoder(loaded))
            self._sizes = sizes_of(loaded.model.config, output_size(self._recipe, hidden_size))
            head = Head(self._recipe, args.spec.device)
            run = forward_with(loaded.model)

            def forward(named: dict[str, Any]) -> Any:
                return head(run(named).last_hidden_state, named["attention_mask"])

            limit = limit_tokens(args.spec.context_tokens, loaded, self._recipe.max_tokens)
            model = TextModel(args, loaded, limit, forward, args.spec.max_batch)
            model.warm_up(progress)
        self._model = model

    def serves(self, method: str, path: str) -> bool:
        return (method, path) == ("POST", EMBEDDINGS) or model_path(method, path) is not None

    async def answer(self, request: UnaryRequest) -> UnaryAnswer:
        path = model_path(request.method, request.path)
        if path is None:
            return await self._embeddings(request)
        if path.infer:
            return await self._infer(request, path.model)
        facts = TensorFacts(TEXT, "BYTES", (-1,)), TensorFacts(EMBEDDING, "FP32", (-1, self._sizes.full))
        return metadata_answer(path.model, PLATFORM, facts[:1], facts[1:])

    def cancel(self, request_id: str) -> None:
        if self._model:
            self._model.cancel(request_id)

    def healthy(self) -> bool:
        return self._model is None or self._model.healthy

    def close(self) -> None:
        if self._model:
            self._model.close()
        self._source.close()

    async def _embeddings(self, request: UnaryRequest) -> UnaryAnswer:
        asked = parse_embeddings(request.body)
        size = self._sizes.check(asked.dimensions, "dimensions")
        vectors, usage = await self._vectors(request, asked.inputs, asked.name_of, asked.truncate_prompt_tokens, size)
        return UnaryAnswer(embeddings_answer(asked, vectors, usage.prompt_tokens), usage)

    async def _infer(self, request: UnaryRequest, model: str) -> UnaryAnswer:
        asked = read_infer(request)
        parameters = asked.parameters or {}
        size = self._sizes.check(parameters.get("dimensions"), "parameters.dimensions")
        texts = _texts(asked)
        truncate = parameters.get("truncate_prompt_tokens")
        vectors, usage = await self._vectors(request, texts, lambda index: f"{TEXT}[{index}]", truncate, size)
        data = b"".join(vector.tobytes() for vector in vectors)
        return infer_answer(asked, model, [OutputTensor(EMBEDDING, "FP32", (len(texts), size), data)], usage)

    async def _vectors(
        self, request: UnaryRequest, inputs: Sequence[Input], name_of: Any, truncate: int | None, size: int
    ) -> tuple[list[Any], Usage]:
        assert self._model is not None, "answer() before load()"
        prepared = [self._prepared(one) if isinstance(one, str) else one for one in inputs]
        vectors, usage = await self._model.run(request, prepared, name_of, truncate)
        return (vectors if size == self._sizes.full else shortened(vectors, size, self._recipe.normalized)), usage

    def _prepared(self, text: str) -> str:
        text = self._recipe.prompt + text
        return text.lower() if self._recipe.lower else text


def is_decoder(loaded: Loaded) -> bool:
    """Whether each token sees only those before it, so that only the last has seen the whole text."""
    import transformers

    kind = type(loaded.model.config)
    return kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING and kind not in transformers.MODEL_FOR_MASKED_LM_MAPPING


def shortened(vectors: Sequence[Any], size: int, normalized: bool) -> list[Any]:
    """The first `size` numbers of each; of unit length again when the whole vectors are."""
    import numpy as np

    cut = np.ascontiguousarray(np.stack(vectors)[:, :size])
    if normalized:
        cut /= np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
    return list(cut)


def _texts(asked: InferRequest) -> list[str]:
    """Of the one input `text`. Raises RequestError (400)."""
    for index, tensor in enumerate(asked.inputs):
        if tensor.name != TEXT:
            raise _wrong(f"inputs[{index}].name", tensor.name, f"'{TEXT}', which is the only input")
    tensor = asked.inputs[0]
    if tensor.datatype != "BYTES":
        raise _wrong("inputs[0].datatype", tensor.datatype, f"BYTES for input '{TEXT}'")
    if len(tensor.shape) != 1 or tensor.shape[0] > MAX_INPUTS:
        raise _wrong("inputs[0].shape", list(tensor.shape), f"[n] with at most {MAX_INPUTS} for input '{TEXT}'")
    texts = []
    for index, element in enumerate(tensor.data):
        try:
            texts.append(bytes(element).decode())
        except UnicodeDecodeError:
            raise _wrong(f"{TEXT}[{index}]", "other bytes", "UTF-8") from None
        if not texts[-1]:
            raise _wrong(f"{TEXT}[{index}]", "empty", "a text that is not empty")
    return texts


def _wrong(field: str, value: object, wanted: str) -> RequestError:
    return RequestError(400, f"'{field}' is {value}; it must be {wanted}.", param=field, code="invalid_value")
