"""Which task a model is served for, and what goes with it."""

from typing import Any

import pytest
from tests.builders.operator import SOURCE, facts, model, world

from cotenant_cache.facts import ModelFacts, WeightsFile, archive_facts
from cotenant_operator.objects import World
from cotenant_operator.plan import ModelPlan, plan
from cotenant_operator.quantity import MIB
from cotenant_operator.render.gateway import render_gateway
from cotenant_serving.contract import EngineSpec, Reason, Task

SENTENCES = ("Transformer", "Pooling", "Normalize")


def encoder(architecture: str = "BertModel", **fields: Any) -> ModelFacts:
    """BERT base: 440 MB, 12 layers of 768."""
    sizes = {"layers": 12, "hidden_size": 768, "intermediate_size": 3072, "attention_heads": 12, "kv_heads": 12}
    precision = {"dtype": "float32", "dtype_bytes": 4, "weights_bytes": 440_000_000}
    given = {"head_dim": 64, "max_position_embeddings": 512, **sizes, **precision, **fields}
    return facts(architecture=architecture, **given)


def archive(unpacked_bytes: int = 100 * MIB) -> ModelFacts:
    file = WeightsFile("net.pt2", unpacked_bytes)
    return archive_facts(source=SOURCE, fingerprint="a" * 40, file=file, unpacked_bytes=unpacked_bytes)


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
        (archive(), "tensor"),
    ],
)
def test_a_model_without_a_task_is_taken_for_what_its_files_say(known: ModelFacts, task: Task) -> None:
    assert engine(known).task == task
    assert planned(known).task == task


@pytest.mark.parametrize(
    ("known", "task"),
    [
        (facts(architecture="Qwen3ForCausalLM", modules=SENTENCES), "generate"),
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
            "embed",
            "spec.task is embed, and LlamaForCausalLM is for generate; set spec.task: generate or leave",
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
            archive(),
            "generate",
            "spec.task is generate, and net.pt2 is for tensor; set spec.task: tensor or leave it out",
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
    assert "engine.contextTokens" in refusal(archive(), Reason.NOT_ALLOWED, engine={"contextTokens": 64})


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


def test_a_longer_context_than_the_cut_may_be_asked_for_up_to_the_positions() -> None:
    known = encoder(modules=SENTENCES, max_sequence_tokens=256)

    assert engine(known, engine={"contextTokens": 512}).context_tokens == 512
    assert "the model has at most 512" in refusal(known, Reason.DOES_NOT_FIT, engine={"contextTokens": 513})
