"""What clients are told of a model: less than its owner sees. Pure.

A client's tenant may not know who else is on the device, and the client not where the owner's files lie. So the words
are made here of the model's own state, reason and share; what decisions and engines say is for `explain` alone.
"""

from collections.abc import Mapping

from cotenant_serving.amounts import about, in_bytes
from cotenant_serving.conductor.world import gib
from cotenant_serving.contract import DesiredModel, Fetch, ModelStatus, Reason

_WORDS: Mapping[Reason, str] = {
    Reason.IDLE: "no engine runs; the first request wakes one",
    Reason.WAKING: "an engine is about to start, or waits for room that is being freed",
    Reason.NO_ROOM: "no device has so much free now",
    Reason.POD_PENDING: "a device for it is being brought",
    Reason.NO_NODE: "no node of the cluster has a device for it now",
    Reason.DOES_NOT_FIT: "it is larger than every device of its pool",
    Reason.POOL_NOT_FOUND: "its pool does not exist",
    Reason.NOT_ALLOWED: "its pool or its task does not take it as it is written",
    Reason.NO_CUDA_DEVICE: "it needs a GPU and there is none",
    Reason.NO_DEVICE: "no device for it exists now",
    Reason.MODEL_NOT_FOUND: "its files were not found",
    Reason.FILE_MISSING: "one of its files is missing",
    Reason.UNSAFE_FILES: "its files are of a kind that is never loaded",
    Reason.UNSUPPORTED_ARCHITECTURE: "no engine can serve its files",
    Reason.CORRUPT_WEIGHTS: "its weights are damaged",
    Reason.HUB_UNREACHABLE: "its files could not be fetched",
    Reason.NOT_SUPPORTED: "its files are of a kind that is not served",
    Reason.CACHE_FULL: "there is no room for its files",
    Reason.DISK_FULL: "there is no room for its files",
    Reason.VOLUME_UNUSABLE: "its files cannot be kept",
    Reason.NEWER_FORMAT: "its files cannot be kept",
    Reason.STOPPED: "fetching its files was ended",
    Reason.FACTS_PENDING: "the sizes of its files are not known yet",
    Reason.LOAD_FAILED: "loading broke off",
    Reason.ENGINE_DIED: "its engine died while it started",
    Reason.MEMORY_EXCEEDED: "its engine used more than its share of memory",
}


def for_clients(status: ModelStatus, desired: DesiredModel | None) -> str:
    """A few words without any name, path or device."""
    if status.reason is Reason.LOADING:
        return _progress(status, desired)
    words = _WORDS.get(status.reason, "")
    if status.state in ("cold", "waking"):
        words += _missing(status, desired)
    if (
        status.reason in (Reason.NO_ROOM, Reason.WAKING, Reason.POD_PENDING, Reason.NO_NODE)
        and desired is not None
        and desired.engine is not None
    ):
        shares = " or ".join(dict.fromkeys(gib(candidate.share_bytes) for candidate in desired.engine.candidates))
        return f"needs {shares}; {words}"
    return words


def fetching(fetch: Fetch) -> str:
    return f"its weights are being fetched: {fetch.words}"


def must_fetch(size_bytes: int = 0, seconds: float | None = None) -> str:
    """`size_bytes`: 0 when unknown; `seconds`: how long that takes, None when unknown."""
    known = [in_bytes(size_bytes)] if size_bytes else []
    known += [about(seconds)] if seconds is not None else []
    return "its weights must be fetched" + (f": {', '.join(known)}" if known else "")


def _missing(status: ModelStatus, desired: DesiredModel | None) -> str:
    size_bytes = desired.engine.weights_bytes if desired and desired.engine else 0
    return f"; {must_fetch(size_bytes)}" if status.must_fetch else ""


def _progress(status: ModelStatus, desired: DesiredModel | None) -> str:
    fetches = [engine.fetch for engine in status.engines if engine.state == "loading" and engine.fetch]
    if fetches:
        return fetching(max(fetches, key=lambda one: one.done_bytes))
    loading = [engine.progress for engine in status.engines if engine.state == "loading"]
    words = f"its engine loads, {max(loading) * 100:.0f} %" if loading else "its engine starts"
    return words + _missing(status, desired)
