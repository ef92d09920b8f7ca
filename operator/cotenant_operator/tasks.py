"""Which task a model's files are for, and which fields of `spec.engine` go with which task. Pure."""

from collections.abc import Collection, Iterable
from typing import get_args

from pydantic.alias_generators import to_camel

from cotenant_cache.facts import CLASSIFIER, ModelFacts
from cotenant_serving.contract import Task

TASKS: tuple[Task, ...] = get_args(Task)
BATCH_TASKS: tuple[Task, ...] = ("embed", "rerank", "classify", "tensor")
"""Those whose engine collects requests into one forward pass."""
FIELD_TASKS: dict[str, tuple[Task, ...]] = {
    "context_tokens": ("generate", "embed", "rerank", "classify", "echo"),
    "max_batch": BATCH_TASKS,
    "batch_wait": BATCH_TASKS,
    "tokens_per_second": ("echo",),
    "load_seconds": ("echo",),
    "allocate": ("echo",),
}
"""Fields of `spec.engine` that are not for every task."""
SERVED = (
    "served are …ForCausalLM (generate), folders with modules.json, …Model and …ForMaskedLM over text alone (embed), "
    "…ForSequenceClassification (rerank with one label, else classify), and a folder with one .pt2 archive (tensor)"
)
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_STACK = ("Model", "ForMaskedLM", "ForPreTraining")


def default_concurrency(task: Task) -> int:
    """Requests at a time: for tasks that batch, more than a batch holds, so that the next one fills meanwhile."""
    return 64 if task in BATCH_TASKS else 8


def fitting_tasks(facts: ModelFacts) -> tuple[Task, ...]:
    """What the files can do. The first is what they are taken for when `spec.task` is absent."""
    causal = facts.architecture.endswith(_CAUSAL)
    if facts.archive:
        return ("tensor",)
    if causal and facts.text_only:
        return ("embed", "generate") if facts.modules else ("generate", "embed")
    if facts.modules and facts.text_only:
        return ("embed",)
    if facts.architecture.endswith(CLASSIFIER):
        return ("rerank", "classify") if facts.num_labels == 1 else ("classify",)
    if causal:
        return ("generate",)
    return ("embed",) if facts.text_only and facts.architecture.endswith(_STACK) else ()


def misplaced(fields: Iterable[str], tasks: Collection[Task]) -> list[tuple[str, str]]:
    """Of the given fields of `spec.engine`, those that none of the tasks has: name in YAML, and what is wrong."""
    wrong = []
    for field in fields:
        allowed = FIELD_TASKS.get(field, TASKS)
        if not set(allowed) & set(tasks):
            several = "tasks" if len(allowed) > 1 else "task"
            wrong.append((f"engine.{to_camel(field)}", f"is only for {several} {', '.join(allowed)}; remove it"))
    return wrong
