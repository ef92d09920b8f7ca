"""When a model that wakes will answer, and whether its weights must come first. Pure."""

from cotenant_serving.conductor.world import Engine, ModelView


def eta_s(view: ModelView) -> float | None:
    """Seconds until an engine answers; without one on its way, from the start of one. None when nobody knows."""
    coming = [engine for engine in view.alive if engine.phase != "ready"]
    if not coming:
        return _whole_s(view, download=view.downloads)
    known = [seconds for engine in coming if (seconds := _remaining_s(view, engine)) is not None]
    return min(known, default=None)


def must_fetch(view: ModelView) -> bool:
    """Do weights have to come before it answers, as far as anybody knows?"""
    coming = [engine for engine in view.alive if engine.phase != "ready"]
    if view.ready or not coming:
        return not view.ready and view.downloads is True
    return all(view.on_disk.get(engine.args.app) is False for engine in coming)


def _remaining_s(view: ModelView, engine: Engine) -> float | None:
    fetch, load = (engine.beat.fetch, engine.beat.load) if engine.beat else (None, None)
    if fetch is not None:
        after_s = _whole_s(view, download=False) or 0.0
        return None if fetch.eta_s is None else fetch.eta_s + after_s
    if load is not None and load.fetched_bytes:
        whole_s, passed_s = _whole_s(view, download=False), engine.age_s - load.fetched_s
    else:
        here = view.on_disk.get(engine.args.app)
        whole_s, passed_s = _whole_s(view, download=None if here is None else not here), engine.age_s
    return None if whole_s is None else max(0.0, whole_s - passed_s)


def _whole_s(view: ModelView, *, download: bool | None) -> float | None:
    """Start of its process to ready. Where nobody knows about the disk the model counts as there: it mostly is, since
    what is lacking, or may be, is known (`World.on_disk`)."""
    expected_s = view.loads.expected_s(view.name, view.weights_bytes, download=bool(download))
    if expected_s is None and not download:
        return view.memory.load_s
    return expected_s
