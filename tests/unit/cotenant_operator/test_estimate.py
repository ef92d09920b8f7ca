"""Bytes of the tasks that keep no KV cache: one forward pass, and what to make smaller when it does not fit."""

from typing import Any

import pytest
from tests.builders.folders import ARCHIVE, BERT_BASE
from tests.builders.operator import SOURCE, facts, model, pool, worker, world

from cotenant_cache.facts import ModelFacts
from cotenant_operator.estimate import (
    PASS_TOKENS,
    RUNTIME_BYTES,
    TENSOR_GUESS_BYTES,
    Estimate,
    estimate_pooling,
    estimate_tensor,
)
from cotenant_operator.plan import ModelPlan, plan
from cotenant_operator.plan_report import plan_rows
from cotenant_operator.quantity import GIB, MIB
from cotenant_serving.contract import DeviceKind, Task
from cotenant_serving.engine.text_model import PADDED_TOKENS

TASKS: tuple[Task, ...] = ("embed", "rerank", "classify")


def bert(**fields: Any) -> ModelFacts:
    return facts(**{**BERT_BASE, **fields})


def pooling(
    known: ModelFacts | None = None, *, context: int = 512, batch: int = 32, device: DeviceKind = "cpu"
) -> Estimate:
    return estimate_pooling(known or bert(), task="embed", context_tokens=context, max_batch=batch, device=device)


def planned(known: ModelFacts, *workers: Any, **spec: Any) -> ModelPlan:
    (found,) = plan(world(model(**spec), pool(*workers), known={SOURCE: known}), {}).models
    return found


def refusal(known: ModelFacts, **spec: Any) -> str:
    found = planned(known, **spec)
    assert found.refusal is not None
    return found.refusal.message


def share(found: ModelPlan) -> int:
    assert found.engine is not None, found.refusal
    return found.engine.candidates[0].share_bytes


def test_a_pass_is_as_large_as_the_engines_make_it() -> None:
    assert PASS_TOKENS == PADDED_TOKENS


@pytest.mark.parametrize("task", TASKS)
def test_a_share_is_weights_runtime_and_one_pass(task: Task) -> None:
    estimate = estimate_pooling(bert(), task=task, context_tokens=512, max_batch=32, device="cpu")

    assert estimate.floor_bytes == estimate.wanted_bytes
    assert estimate.floor_bytes == 440_000_000 + RUNTIME_BYTES[task, "cpu"] + estimate.reserve_bytes
    vectors = (4 * 768 + 6 * 768 + 3 * 3072) * 4 + 6 * 512 + 4 * 768
    assert estimate.reserve_bytes == 2048 * vectors


def test_a_pass_has_no_more_texts_than_a_batch() -> None:
    assert pooling(batch=2).reserve_bytes * 2 == pooling(batch=4).reserve_bytes == pooling(batch=32).reserve_bytes


def test_one_long_text_is_a_pass_of_its_own() -> None:
    per_token = pooling(context=8192, batch=1).reserve_bytes / 8192

    assert per_token == pooling(context=8192, batch=32).reserve_bytes / 8192


def test_a_gpu_takes_more_tokens_at_once() -> None:
    assert pooling(device="cuda").reserve_bytes == 4 * pooling(device="cpu").reserve_bytes


def test_scores_count_where_attention_is_computed_step_by_step() -> None:
    more = pooling(bert(family="mpnet")).reserve_bytes - pooling(bert(family="bert")).reserve_bytes

    assert more == 2048 * 3 * 12 * 512 * 4


def test_a_refusal_names_no_kv_cache_and_both_sizes_that_would_fit() -> None:
    message = refusal(bert(), gpu={"memory": "1530Mi"})

    assert "KV" not in message
    assert "set gpu.memory: " in message
    batch, _, context = message.partition("lower engine.maxBatch to ")[2].partition(
        " or lower engine.contextTokens to "
    )
    for options in ({"maxBatch": int(batch)}, {"contextTokens": int(context)}):
        assert planned(bert(), gpu={"memory": "1530Mi"}, engine=options).refusal is None
    assert planned(bert(), gpu={"memory": "1530Mi"}, engine={"maxBatch": int(batch) + 1}).refusal is not None


def test_a_smaller_batch_is_not_proposed_where_it_would_not_help() -> None:
    assert "maxBatch" not in refusal(bert(), gpu={"memory": "1Gi"})
    assert "maxBatch" not in refusal(facts(), gpu={"memory": "2Gi"})


def test_what_a_pass_of_an_archive_needs_is_a_guess_that_a_user_may_overrule() -> None:
    estimate = estimate_tensor(ARCHIVE, device="cpu")
    least = ARCHIVE.weights_bytes + RUNTIME_BYTES["tensor", "cpu"]

    assert estimate.floor_bytes == least
    assert share(planned(ARCHIVE)) == least + ARCHIVE.weights_bytes + TENSOR_GUESS_BYTES
    assert share(planned(ARCHIVE, gpu={"memory": least})) == least
    assert "set gpu.memory" in refusal(ARCHIVE, gpu={"memory": least - MIB})


def test_a_guess_gives_way_to_a_small_device() -> None:
    assert share(planned(ARCHIVE, worker(memory="1200Mi"))) == 1200 * MIB


@pytest.mark.parametrize("memory", [None, "6Gi", "1230Mi"])
@pytest.mark.parametrize("known", [facts(), bert(weights_bytes=MIB), ARCHIVE])
def test_the_parts_of_a_share_add_up_to_it(known: ModelFacts, memory: str | None) -> None:
    found = planned(known, **({"gpu": {"memory": memory}} if memory else {}))
    if found.engine is None or found.estimate is None:
        assert memory == "1230Mi"
        return
    parts = found.estimate.split(share(found))

    assert parts.kv_cache_bytes == found.engine.candidates[0].kv_cache_bytes
    assert parts.unused_bytes >= 0
    total = parts.weights_bytes + parts.kv_cache_bytes + parts.runtime_bytes + parts.reserve_bytes
    assert total + parts.scratch_bytes + parts.unused_bytes == share(found)


def row(known: ModelFacts, *, wide: bool, **spec: Any) -> dict[str, str]:
    columns, (cells,) = plan_rows(plan(world(model(**spec), known={SOURCE: known}), {}), wide=wide)
    return dict(zip(columns, cells, strict=True))


def test_the_table_shows_the_parts_of_a_share_for_people() -> None:
    shown = row(bert(), wide=False)

    assert (shown["TASK"], shown["WEIGHTS"], shown["KV CACHE"]) == ("embed", "419.6 MiB", "-")
    assert "BATCH" not in shown


def test_the_wide_table_shows_bytes_and_what_the_engine_is_told() -> None:
    shown = row(bert(), wide=True, engine={"maxBatch": 16})

    assert (shown["WEIGHTS"], shown["BATCH"], shown["CONTEXT"], shown["CONCURRENCY"]) == (
        "440000000",
        "16",
        "512",
        "64",
    )
    parts = ("WEIGHTS", "KV CACHE", "RUNTIME", "RESERVE", "SCRATCH", "UNUSED")
    assert sum(int(shown[name].replace("-", "0")) for name in parts) == int(shown["SHARE"])


def test_a_refused_model_stands_in_the_table_with_its_message_alone() -> None:
    shown = row(bert(), wide=True, gpu={"memory": "1Gi"})

    assert (shown["SHARE"], shown["BATCH"], shown["PLAN"]) == ("-", "-", "refused: DoesNotFit")
    assert shown["MESSAGE"].startswith("needs ")


def test_a_model_that_nobody_may_know_the_task_of_has_none_in_the_table() -> None:
    columns, (cells,) = plan_rows(plan(world(model(), known={}), {}))

    assert dict(zip(columns, cells, strict=True))["TASK"] == "-"


def test_a_large_encoder_fits_a_laptop() -> None:
    """bge-m3: 568 million parameters in float32, texts of 8192 tokens."""
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "attention_heads": 16, "kv_heads": 16}
    known = bert(weights_bytes=2_270_000_000, max_position_embeddings=8192, **sizes)

    assert share(planned(known, engine={"contextTokens": 8192})) < 5 * GIB
