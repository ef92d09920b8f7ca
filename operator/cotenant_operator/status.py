"""What was planned and what the conductor sees → conditions and rows for people. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cotenant_operator.planned import ModelPlan
from cotenant_operator.quantity import show_bytes
from cotenant_serving.contract import DeviceStatus, EngineStatus, ModelStatus, PoolStatus, Reason

ConditionType = Literal[
    "Accepted", "Cached", "Placed", "Loaded", "Ready", "KubeRayReady", "ConductorReady", "Rolling"
]
ConditionStatus = Literal["True", "False", "Unknown"]

_REFUSALS = frozenset({Reason.DOES_NOT_FIT, Reason.POOL_NOT_FOUND, Reason.NOT_ALLOWED})
FILES = frozenset(
    {
        Reason.MODEL_NOT_FOUND,
        Reason.FILE_MISSING,
        Reason.UNSAFE_FILES,
        Reason.UNSUPPORTED_ARCHITECTURE,
        Reason.CORRUPT_WEIGHTS,
        Reason.HUB_UNREACHABLE,
        Reason.NOT_SUPPORTED,
    }
)
"""What is wrong with a model's files."""
_PLACED = frozenset({"waiting", "loading", "ready", "draining"})


@dataclass(frozen=True, slots=True)
class Condition:
    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """One model as the conditions need it; either half may be unknown."""

    planned: ModelPlan | None
    seen: ModelStatus | None

    @property
    def reason(self) -> Reason:
        if self.planned is not None and self.planned.refusal is not None:
            return self.planned.refusal.reason
        return self.seen.reason if self.seen is not None else Reason.CONDUCTOR_UNREACHABLE

    @property
    def message(self) -> str:
        if self.planned is not None and self.planned.refusal is not None:
            return self.planned.refusal.message
        return self.seen.message if self.seen is not None else "the conductor does not know it yet"

    @property
    def engines(self) -> Sequence[EngineStatus]:
        return self.seen.engines if self.seen is not None else ()


def conditions(planned: ModelPlan | None, seen: ModelStatus | None) -> tuple[Condition, ...]:
    """Accepted, Cached, Placed, Loaded, Ready; `Unknown` where nothing is known.

    `planned` is None where only the conductor was asked, `seen` is None before it has answered.
    """
    both = Observed(planned, seen)
    return (_accepted(both), _cached(both), _placed(both), _loaded(both), _ready(both))


def _accepted(both: Observed) -> Condition:
    if both.reason is Reason.FACTS_PENDING:
        return Condition("Accepted", "Unknown", both.reason, both.message)
    refused = both.planned.refusal is not None if both.planned else both.reason in _REFUSALS | FILES
    if refused and not both.engines:
        return Condition("Accepted", "False", both.reason, both.message)
    if both.planned is None and both.seen is None:
        return Condition("Accepted", "Unknown", both.reason, both.message)
    return Condition("Accepted", "True", "Fits")


def _cached(both: Observed) -> Condition:
    if both.reason in FILES:
        return Condition("Cached", "False", both.reason, both.message)
    source = both.planned.engine.source if both.planned and both.planned.engine else ""
    if any(engine.state == "ready" for engine in both.engines):
        return Condition("Cached", "True", "Loaded")
    if source.startswith("file://"):
        return Condition("Cached", "True", "LocalFiles")
    if both.planned is not None and both.planned.task == "echo":
        return Condition("Cached", "True", "NoFiles")
    return Condition("Cached", "Unknown", "NotLoadedYet", "known when an engine has loaded it")


def _placed(both: Observed) -> Condition:
    places = sorted({engine.device_id for engine in both.engines if engine.state in _PLACED and engine.device_id})
    if places:
        return Condition("Placed", "True", "Placed", ", ".join(places))
    return Condition("Placed", "Unknown" if both.seen is None else "False", both.reason, both.message)


def _loaded(both: Observed) -> Condition:
    ready = [engine for engine in both.engines if engine.state == "ready"]
    if ready:
        return Condition("Loaded", "True", "Loaded", f"{len(ready)} of {len(both.engines)} engines")
    loading = [engine for engine in both.engines if engine.state == "loading"]
    if loading:
        engine = loading[0]
        return Condition("Loaded", "False", Reason.LOADING, _stage(engine) or f"loading {engine.progress:.0%}")
    return Condition("Loaded", "Unknown" if both.seen is None else "False", both.reason, both.message)


def _ready(both: Observed) -> Condition:
    if both.seen is None:
        refused = both.planned is not None and both.planned.refusal is not None
        return Condition("Ready", "False" if refused else "Unknown", both.reason, both.message)
    if both.seen.ready_engines > 0:
        return Condition("Ready", "True", Reason.READY, f"{both.seen.ready_engines} engines answer")
    message = both.message
    if both.seen.state == "cold" and not message:
        message = "it starts with the first request"
    return Condition("Ready", "False", both.reason, message)


def model_rows(pool: PoolStatus, *, wide: bool = False) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of `cotenant get models`."""
    columns: tuple[str, ...] = (
        "MODEL",
        "READY",
        "STATE",
        "REASON",
        "ENGINES",
        "RUNNING",
        "QUEUED",
        "MEMORY",
        "MESSAGE",
    )
    extra = ("REVISION", "DEVICES", "LOAD", "CONDITIONS")
    models = sorted(pool.models, key=lambda model: model.model)
    rows = [_row(model) + (_wide(model) if wide else ()) for model in models]
    return columns + (extra if wide else ()), rows


def _row(model: ModelStatus) -> tuple[str, ...]:
    used = sum(engine.used_bytes for engine in model.engines)
    share = sum(engine.share_bytes for engine in model.engines)
    return (
        model.model,
        "True" if model.ready_engines else "False",
        model.state,
        str(model.reason),
        f"{model.ready_engines}/{len(model.engines)}",
        str(model.running),
        str(model.queued),
        f"{show_bytes(used)} of {show_bytes(share)}" if share else "-",
        _progress(model) or model.message or "-",
    )


def _progress(model: ModelStatus) -> str:
    loading = [engine for engine in model.engines if engine.state in ("starting", "waiting", "loading")]
    if not loading:
        return ""
    engine = loading[0]
    return _stage(engine) or f"{engine.state} {engine.progress:.0%}"


def _stage(engine: EngineStatus) -> str:
    if engine.fetch is not None:
        return f"fetching its weights: {engine.fetch.words}"
    return f"{engine.stage} {engine.progress:.0%}" if engine.stage else ""


def _wide(model: ModelStatus) -> tuple[str, ...]:
    loads = [f"{engine.load_s:.1f} s" for engine in model.engines if engine.load_s]
    return (
        model.revision or model.target_revision or "-",
        ", ".join(sorted({engine.device_id for engine in model.engines if engine.device_id})) or "-",
        loads[0] if loads else "-",
        " ".join(f"{item.type}={item.status}" for item in conditions(None, model)),
    )


def pool_rows(pool: PoolStatus, *, wide: bool = False) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of `cotenant get pools`: one row for each device. `wide` adds free bytes and engines."""
    columns: tuple[str, ...] = ("POOL", "DEVICE", "GROUP", "KIND", "MEMORY", "RESERVED", "USED", "LOADING")
    columns += ("FREE", "ENGINES") if wide else ()
    rows: list[tuple[str, ...]] = [
        (
            pool.pool,
            device.device_id,
            device.group,
            device.device,
            show_bytes(device.memory_bytes),
            show_bytes(device.reserved_bytes),
            show_bytes(device.used_bytes),
            device.lease or "-",
            *(_on_device(device, pool) if wide else ()),
        )
        for device in sorted(pool.devices, key=lambda device: device.device_id)
    ]
    return columns, rows or [(pool.pool, *("-" for _ in columns[1:]))]


def _on_device(device: DeviceStatus, pool: PoolStatus) -> tuple[str, str]:
    engines = [engine for model in pool.models for engine in model.engines if engine.device_id == device.device_id]
    names = sorted(f"{engine.model} ({engine.state})" for engine in engines)
    return show_bytes(device.memory_bytes - device.reserved_bytes), ", ".join(names) or "-"
