"""One model and its files → what kind of engine serves it, how many bytes that needs, and its specification. Pure."""

import hashlib
from dataclasses import dataclass

import msgspec

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.estimate import (
    Estimate,
    estimate_echo,
    estimate_generate,
    estimate_pooling,
    estimate_tensor,
)
from cotenant_operator.placement import Placement, Sizes
from cotenant_operator.planned import Refusal
from cotenant_operator.spec import ModelDeployment
from cotenant_operator.tasks import BATCH_TASKS, SERVED, default_concurrency, fitting_tasks, misplaced
from cotenant_serving.contract import DeviceKind, EchoOptions, EngineSpec, Reason, Task

DEFAULT_CONTEXT_TOKENS = 2048
Facts = ModelFacts | CacheError | None
"""What is known of a model's files: nothing yet, or why it never will be."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model that its files can serve."""

    model: ModelDeployment
    task: Task
    facts: ModelFacts | None
    """None for echo, which has no files."""


def task_of(model: ModelDeployment, facts: Facts) -> Task | None:
    """As it is set, else as the files say; None when they do not, or are not known."""
    if model.spec.task is not None or not isinstance(facts, ModelFacts):
        return model.spec.task
    return next(iter(fitting_tasks(facts)), None)


def settle(model: ModelDeployment, facts: Facts) -> Served | Refusal:
    """Whether task, files and `spec.engine` go together."""
    if model.spec.task == "echo":
        return Served(model, "echo", None)
    if facts is None:
        return Refusal(
            Reason.FACTS_PENDING, f"the sizes of {model.spec.model} are not known yet; they are read from its files"
        )
    if isinstance(facts, CacheError):
        return Refusal(Reason(facts.reason), facts.message)
    task = task_of(model, facts)
    fitting = fitting_tasks(facts)
    if task is None or task not in fitting:
        return Refusal(Reason.UNSUPPORTED_ARCHITECTURE, _unfit(model, facts, fitting))
    return _wrong_field(model, task, facts) or Served(model, task, facts)


def _unfit(model: ModelDeployment, facts: ModelFacts, fitting: tuple[Task, ...]) -> str:
    files = f"the archive {facts.archive!r}" if facts.archive else facts.architecture
    if not fitting:
        return f"{model.spec.model}: no task serves {files}; {SERVED}"
    remedy = f"set spec.task: {fitting[0]} or leave it out"
    return f"{model.spec.model}: spec.task is {model.spec.task}, and {files} is for {' or '.join(fitting)}; {remedy}"


def _wrong_field(model: ModelDeployment, task: Task, facts: ModelFacts) -> Refusal | None:
    for field, message in misplaced(sorted(model.spec.engine.model_fields_set), [task]):
        why = "" if model.spec.task else f" (the files of {model.spec.model} are for task {task})"
        return Refusal(Reason.NOT_ALLOWED, f"{field} {message}{why}")
    asked, (longest, said_by) = model.spec.engine.context_tokens, _longest(task, facts)
    if asked is not None and longest and asked > longest:
        return Refusal(
            Reason.DOES_NOT_FIT,
            f"engine.contextTokens is {asked}, the model has at most {longest} ({said_by}); "
            f"set engine.contextTokens: {longest} or less",
        )
    return None


def _longest(task: Task, facts: ModelFacts) -> tuple[int, str]:
    """Tokens that the model reads, 0 for no limit, and which of its files' fields says so."""
    positions, cut = facts.max_position_embeddings, facts.max_sequence_tokens
    if task == "embed" and cut and (not positions or cut < positions):
        return cut, "max_seq_length of sentence_bert_config.json"
    return positions, "max_position_embeddings"


def sizes_of(served: Served) -> Sizes:
    return Sizes(
        context_tokens=0 if served.task in ("tensor", "echo") else _context_tokens(served),
        max_batch=served.model.spec.engine.max_batch if served.task in BATCH_TASKS else 0,
    )


def _context_tokens(served: Served) -> int:
    """As asked, else what the model reads, up to the default."""
    asked, facts = served.model.spec.engine.context_tokens, served.facts
    if asked is not None or facts is None:
        return asked or DEFAULT_CONTEXT_TOKENS
    longest, _ = _longest(served.task, facts)
    return min(DEFAULT_CONTEXT_TOKENS, longest or DEFAULT_CONTEXT_TOKENS)


def _concurrency(served: Served) -> int:
    return served.model.spec.engine.concurrency or default_concurrency(served.task)


def estimate(served: Served, device: DeviceKind, sizes: Sizes) -> Estimate:
    """`sizes` may differ from what is asked: to find out what would fit."""
    facts, options = served.facts, served.model.spec.engine
    if facts is None:
        return estimate_echo(allocate_bytes=options.allocate, device=device)
    if served.task == "tensor":
        return estimate_tensor(facts, device=device)
    context = sizes.context_tokens
    if served.task == "generate":
        return estimate_generate(facts, context_tokens=context, concurrency=_concurrency(served), device=device)
    return estimate_pooling(facts, task=served.task, context_tokens=context, max_batch=sizes.max_batch, device=device)


def engine_spec(served: Served, placed: Placement) -> EngineSpec:
    options, facts = served.model.spec.engine, served.facts
    echo = EchoOptions(
        tokens_per_second=options.tokens_per_second, load_s=options.load_seconds, allocate_bytes=options.allocate
    )
    engine = EngineSpec(
        model=served.model.full_name,
        revision="",
        task=served.task,
        source=facts.source if facts else "",
        candidates=placed.candidates,
        device=placed.device,
        concurrency=_concurrency(served),
        echo=echo if served.task == "echo" else None,
    )
    if served.task != "tensor":
        engine = msgspec.structs.replace(engine, context_tokens=_context_tokens(served))
    if served.task in BATCH_TASKS:
        engine = msgspec.structs.replace(engine, max_batch=options.max_batch, batch_wait_s=options.batch_wait)
    revision = _revision(engine, facts.fingerprint if facts else "")
    weights_bytes = sum(file.size_bytes for file in facts.files) if facts else 0
    return msgspec.structs.replace(engine, revision=revision, weights_bytes=weights_bytes)


def _revision(engine: EngineSpec, fingerprint: str) -> str:
    """8 hex digits that change when an engine that runs would have to be another one."""
    encoded = msgspec.json.encode(engine, order="sorted")
    return hashlib.sha256(encoded + b"\0" + fingerprint.encode()).hexdigest()[:8]
