"""`cotenant explain model NAME`: why a model is where it is, each reason once. Pure."""

from collections.abc import Iterator
from typing import Any

import msgspec

from cotenant_operator.quantity import show_bytes
from cotenant_operator.status import Condition, conditions
from cotenant_serving.amounts import about, in_bytes
from cotenant_serving.contract import EngineStatus, ModelStatus, Reason, WeightsLoad


def explain(model: ModelStatus, *, wide: bool = False) -> list[str]:
    """The conductor's last decision, then the conditions, then each engine, then where to look next."""
    decision = "; ".join(model.explanation)
    said = "" if model.message == decision else model.message
    lines = [f"{model.model}: {model.state} ({model.reason})" + (f": {said}" if said else "")]
    lines += [f"  {line}" for line in model.explanation]
    if model.retry_in_s is not None:
        lines.append(f"  tried again in {model.retry_in_s:.0f} s")
    if model.eta_s is not None and model.state == "waking":
        after = " after its device has come" if model.reason is Reason.POD_PENDING else ""
        lines.append(f"  answers in {about(model.eta_s)}{after}, by what loads have taken")
    lines += [f"  {line}" for line in _condition_lines(model)]
    for engine in model.engines:
        lines += [f"  {line}" for line in _engine_lines(engine, wide=wide)]
    if model.state == "failed" or model.engines:
        lines.append(f"  more: cotenant logs {model.model}")
    return lines


def explain_document(model: ModelStatus) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(model)
    document["conditions"] = [
        {"type": item.type, "status": item.status, "reason": str(item.reason), "message": item.message}
        for item in conditions(None, model)
    ]
    return document


def _condition_lines(model: ModelStatus) -> list[str]:
    """Conditions that say the same share a line; what the headline has said is not said again."""
    groups: list[list[Condition]] = []
    for item in conditions(None, model):
        if groups and _says(groups[-1][0]) == _says(item):
            groups[-1].append(item)
        else:
            groups.append([item])
    return [_group_line(group, model) for group in groups]


def _group_line(group: list[Condition], model: ModelStatus) -> str:
    first = group[0]
    line = f"{', '.join(item.type for item in group)}: {first.status}"
    if first.reason != model.reason:
        line += f" ({first.reason})"
    return line if first.message in ("", model.message) else f"{line}: {first.message}"


def _says(item: Condition) -> tuple[str, str, str]:
    return item.status, item.reason, item.message


def _engine_lines(engine: EngineStatus, *, wide: bool) -> list[str]:
    line = (
        f"engine {engine.app}: {engine.state} on {engine.device_id or 'no device yet'}, "
        f"{show_bytes(engine.used_bytes)} of {show_bytes(engine.share_bytes)}, "
        f"{engine.running} of {engine.slots} slots"
    )
    if not wide:
        return [line]
    stage = f", {engine.stage} {engine.progress:.0%}" if engine.stage else ""
    loaded = f", loaded in {engine.load_s:.1f} s" if engine.load_s else ""
    lines = [
        line,
        f"  process {engine.pid or '-'}, instance {engine.instance or '-'}, age {engine.age_s:.0f} s{loaded}{stage}",
    ]
    return lines + [f"  weights: {words}" for words in _weights(engine.load)]


def _weights(load: WeightsLoad | None) -> Iterator[str]:
    if load is None:
        return
    parts = []
    if load.fetched_bytes:
        parts.append(_took("fetched", load.fetched_bytes, load.fetched_s))
    if load.read_bytes:
        where = {"disk": "the disk", "memory": "the page cache"}[load.read_from]
        parts.append(_took(f"read from {where}", load.read_bytes, load.read_s))
    yield ", ".join(parts)


def _took(what: str, size_bytes: int, seconds: float) -> str:
    rate = f", {in_bytes(round(size_bytes / seconds))}/s" if seconds > 0 else ""
    return f"{what} {in_bytes(size_bytes)} in {seconds:.1f} s{rate}"
