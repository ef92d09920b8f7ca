"""How a model stands, in words: the last decision and the observed engines → `ModelStatus`. Pure."""

import math

from cotenant_serving.conductor import told
from cotenant_serving.conductor.eta import eta_s, must_fetch
from cotenant_serving.conductor.place import Outcome
from cotenant_serving.conductor.world import Engine, ModelView
from cotenant_serving.contract import DesiredModel, EngineStatus, ModelState, ModelStatus, Reason
from cotenant_serving.contract_gateway import ModelRow

ETA_STEP_S = 5.0


def model_status(view: ModelView, outcome: Outcome) -> ModelStatus:
    state, reason, message = _state(view, outcome)
    serving = view.ready[0].revision if view.ready else ""
    return ModelStatus(
        model=view.name,
        state=state,
        reason=reason,
        message=message,
        revision=serving,
        target_revision=view.target,
        running=view.demand.running,
        queued=view.demand.queued,
        ready_engines=len(view.ready),
        engines=tuple(engine_status(engine) for engine in view.engines),
        explanation=outcome.explanation,
        load_s=view.memory.load_s,
        eta_s=eta_s(view) if not view.ready else None,
        must_fetch=must_fetch(view),
        retry_in_s=max(0.0, view.memory.retry_at_s - view.now_s) if view.failed_target else None,
    )


def model_row(status: ModelStatus, desired: DesiredModel | None = None) -> ModelRow:
    """What gateways need of it, and may show to clients.

    The eta is in steps, so that the table does not change with every second.
    """
    until_s = status.retry_in_s if status.state == "failed" else None
    if status.state in ("cold", "waking") and status.reason is not Reason.POD_PENDING:
        until_s = status.eta_s
    return ModelRow(
        model=status.model,
        state=status.state,
        reason=status.reason,
        message=told.for_clients(status, desired),
        eta_s=None if until_s is None else max(1.0, math.ceil(until_s / ETA_STEP_S) * ETA_STEP_S),
    )


def engine_status(engine: Engine) -> EngineStatus:
    beat = engine.beat
    return EngineStatus(
        app=engine.args.app,
        model=engine.model,
        revision=engine.revision,
        instance=beat.instance if beat else "",
        state=engine.phase,
        stage=beat.stage if beat else "",
        progress=beat.progress if beat else 0.0,
        fetch=beat.fetch if beat else None,
        load=beat.load if beat else None,
        device_id=engine.args.device_id,
        share_bytes=engine.args.share_bytes,
        used_bytes=beat.used_bytes if beat else 0,
        slots=beat.slots if beat else 0,
        running=engine.running,
        pid=beat.pid if beat else 0,
        load_s=beat.load_s if beat else 0.0,
        age_s=engine.age_s,
        node=beat.node if beat else "",
        pod=beat.pod if beat else "",
    )


def _state(view: ModelView, outcome: Outcome) -> tuple[ModelState, Reason, str]:
    refused, failure = view.desired.refused, view.memory.failure
    if view.ready:
        return "ready", Reason.READY, _beside_ready(view)
    if refused is not None:
        return "failed", refused, view.desired.message
    for engine in view.alive:
        if engine.returning and engine.args.app not in view.missed:
            return "waking", Reason.LOADING, f"{engine.args.app} on {engine.args.device_id} was lost and comes back"
    if failure and view.failed_target:
        return "failed", failure.reason, failure.message
    starting = [engine for engine in view.alive if engine.phase != "ready"]
    if starting:
        return "waking", Reason.LOADING, _progress(view, starting[0])
    if outcome.blocked:
        return "waiting", outcome.reason or Reason.NO_ROOM, "; ".join(outcome.explanation)
    if outcome.explanation:
        return "waking", outcome.reason or Reason.WAKING, "; ".join(outcome.explanation)
    return "cold", Reason.IDLE, "no engine; the first request wakes one"


def _beside_ready(view: ModelView) -> str:
    """A revision that serves may hide that the newer one cannot: say so."""
    if all(engine.revision == view.target for engine in view.ready):
        return f"{len(view.ready)} engine(s) serve"
    if view.desired.refused is not None:
        return f"the earlier revision serves; the new one is refused: {view.desired.refused}: {view.desired.message}"
    if view.memory.failure and view.failed_target:
        failure = view.memory.failure
        return f"the earlier revision serves; {view.target} failed: {failure.reason}: {failure.message}"
    return f"revision {view.ready[0].revision} serves while {view.target} starts"


def _progress(view: ModelView, engine: Engine) -> str:
    beat, on_disk = engine.beat, view.on_disk.get(engine.args.app)
    size_bytes = engine.args.spec.weights_bytes
    missing = f"; {told.must_fetch(size_bytes, view.loads.fetch_s(size_bytes))}" if on_disk is False else ""
    if beat is None:
        where = "; its weights are on this node" if on_disk else missing
        return f"{engine.args.app} starts on {engine.args.device_id}{where}"
    if beat.fetch is not None:
        return f"{engine.args.app} on {engine.args.device_id}: {told.fetching(beat.fetch)}"
    percent = f" {beat.progress * 100:.0f} %" if beat.state == "loading" else ""
    return f"{engine.args.app} on {engine.args.device_id}: {beat.state} {beat.stage}{percent}".rstrip() + missing
