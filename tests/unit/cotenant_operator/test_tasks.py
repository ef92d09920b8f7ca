"""Which task a model is served for, and what goes with it."""

from typing import Any

import pytest
from tests.builders.folders import ARCHIVE, BERT_BASE
from tests.builders.operator import SOURCE, facts, model, world

from cotenant_cache.facts import ModelFacts
from cotenant_operator.objects import World
from cotenant_operator.plan import ModelPlan, plan
from cotenant_operator.render.gateway import render_gateway
from cotenant_serving.contract import EngineSpec, Reason, Task

SENTENCES = ("Transformer", "Pooling", "Normalize")


def encoder(architecture: str = "BertModel", **fields: Any) -> ModelFacts:
    return facts(**{**BERT_BASE, "architecture": architecture, **fields})


def planned(known: ModelFacts | None, **spec: Any) -> ModelPlan:
    return only(world(model(**spec), known={SOURCE: known} if known else {}))


def only(given: World) -> ModelPlan:
    (found,) = plan(given, {}).models
    return found


def engine(known: ModelFacts, **spec: Any) -> EngineSpec:
    found = planned(known, **spec)
    assert found.engine is not None, found.refusal
    return found.engine


def refusal(known: ModelFacts, reason: Reason, **spec: Any) -> str:
    found = planned(known, **spec)
    assert found.refusal is not None
    assert found.refusal.reason is reason
    return found.refusal.message


@pytest.mark.parametrize(
    ("known", "task"),
    [
        (facts(), "generate"),
        (facts(architecture="GPT2LMHeadModel"), "generate"),
        (encoder("BertModel"), "embed"),
        (encoder("XLMRobertaModel"), "embed"),
        (encoder("MPNetForMaskedLM"), "embed"),
        (encoder("ModernBertForMaskedLM"), "embed"),
        (encoder(modules=SENTENCES), "embed"),
        (facts(architecture="Qwen3ForCausalLM", modules=SENTENCES), "embed"),
        (encoder("XLMRobertaForSequenceClassification", num_labels=1), "rerank"),
        (encoder("BertForSequenceClassification", num_labels=3), "classify"),
        (encoder("BartForSequenceClassification", num_labels=3, text_only=False), "classify"),
        (ARCHIVE, "tensor"),
    ],
)
def test_a_model_without_a_task_is_taken_for_what_its_files_say(known: ModelFacts, task: Task) -> None:
    assert engine(known).task == task
    assert planned(known).task == task


@pytest.mark.parametrize(
    ("known", "task"),
    [
        (facts(architecture="Qwen3ForCausalLM", modules=SENTENCES), "generate"),
        (facts(), "embed"),
        (encoder("XLMRobertaForSequenceClassification", num_labels=1), "classify"),
    ],
)
def test_a_task_that_the_files_can_do_too_is_taken_at_its_word(known: ModelFacts, task: Task) -> None:
    assert engine(known, task=task).task == task


@pytest.mark.parametrize(
    ("known", "task", "said"),
    [
        (
            facts(),
            "rerank",
            "spec.task is rerank, and LlamaForCausalLM is for generate or embed; set spec.task: generate",
        ),
        (
            encoder(),
            "rerank",
            "spec.task is rerank, and BertModel is for embed; set spec.task: embed or leave it out",
        ),
        (
            encoder("BertForSequenceClassification", num_labels=1),
            "embed",
            "is for rerank or classify; set spec.task: rer",
        ),
        (
            encoder("BertForSequenceClassification", num_labels=2),
            "rerank",
            "BertForSequenceClassification is for classify",
        ),
        (
            ARCHIVE,
            "generate",
            "spec.task is generate, and the archive 'net.pt2' is for tensor; set spec.task: tensor or leave it out",
        ),
        (encoder(), "tensor", "BertModel is for embed"),
    ],
)
def test_a_task_that_the_files_cannot_do_is_refused_with_those_that_fit(
    known: ModelFacts, task: Task, said: str
) -> None:
    assert said in refusal(known, Reason.UNSUPPORTED_ARCHITECTURE, task=task)


@pytest.mark.parametrize(
    "known",
    [
        encoder("BertForTokenClassification"),
        encoder("CLIPModel", text_only=False),
        encoder("T5Model", text_only=False),
        encoder("WhisperForConditionalGeneration"),
    ],
)
@pytest.mark.parametrize("task", [None, "embed"])
def test_files_for_no_task_are_told_what_is_served(known: ModelFacts, task: Task | None) -> None:
    message = refusal(known, Reason.UNSUPPORTED_ARCHITECTURE, **({"task": task} if task else {}))

    assert f"no task serves {known.architecture}; served are …ForCausalLM (generate)" in message


def test_the_task_of_files_that_are_not_read_yet_is_unknown_to_the_gateway_too() -> None:
    given = world(model(), known={})
    config = render_gateway(plan(given, {}), given.manifests, generation=1, conductors=(), pool_token_file="t")

    assert only(given).task is None
    assert config.models[0].task is None


def test_a_field_of_another_task_is_refused_once_the_task_is_known() -> None:
    message = refusal(facts(), Reason.NOT_ALLOWED, engine={"maxBatch": 8})

    assert message == (
        "engine.maxBatch is only for tasks embed, rerank, classify, tensor; remove it "
        f"(the files of {SOURCE} are for task generate)"
    )
    assert "engine.contextTokens" in refusal(ARCHIVE, Reason.NOT_ALLOWED, engine={"contextTokens": 64})


def test_tasks_that_batch_take_more_requests_than_a_batch_holds() -> None:
    found = engine(encoder())

    assert (found.concurrency, found.max_batch, found.batch_wait_s) == (64, 32, 0.005)
    assert engine(facts()).concurrency == 8
    assert engine(encoder(), engine={"concurrency": 3}).concurrency == 3


def test_the_revision_changes_with_the_batch() -> None:
    revisions = {
        engine(encoder(), engine=options).revision for options in ({}, {"maxBatch": 16}, {"batchWait": "20ms"})
    }

    assert len(revisions) == 3


def test_the_default_context_is_what_the_model_is_cut_to() -> None:
    assert engine(encoder()).context_tokens == 512
    assert engine(encoder(modules=SENTENCES, max_sequence_tokens=256)).context_tokens == 256
    assert engine(encoder(max_position_embeddings=8192)).context_tokens == 2048


def test_more_than_a_sentence_model_is_cut_to_is_refused() -> None:
    known = encoder(modules=SENTENCES, max_sequence_tokens=256)
    message = refusal(known, Reason.DOES_NOT_FIT, engine={"contextTokens": 512})

    assert "the model has at most 256 (max_seq_length of sentence_bert_config.json)" in message
    assert engine(known, engine={"contextTokens": 256}).context_tokens == 256


def test_what_sentence_vectors_are_cut_to_does_not_bind_generate() -> None:
    known = facts(architecture="Qwen3ForCausalLM", modules=SENTENCES, max_sequence_tokens=256)

    assert engine(known, task="generate").context_tokens == 2048
