"""Whatever goes wrong while a model loads → a LoadError with its Reason."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cotenant_serving.contract import EngineArgs, Reason
from cotenant_serving.engine.base import LoadError


@contextmanager
def load_errors(args: EngineArgs) -> Iterator[None]:
    """Turns any exception into a LoadError."""
    try:
        yield
    except LoadError:
        raise
    except Exception as error:
        raise explain(error, args) from error


def explain(error: Exception, args: EngineArgs) -> LoadError:
    """The LoadError for any other exception. Pure, but for looking at torch's exception class."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, str) and reason in set(Reason):  # the weight cache's errors carry one
        return LoadError(Reason(reason), getattr(error, "message", str(error)))
    if is_out_of_memory(error):
        return LoadError(
            Reason.MEMORY_EXCEEDED,
            f"{args.spec.model} does not fit its share of {args.share_bytes} bytes (KV cache: {args.kv_cache_bytes}) "
            f"while it loads: {_last_line(error)}. Give it more memory (spec.gpu.memory).",
        )
    return LoadError(
        Reason.LOAD_FAILED,
        f"{args.spec.model} from {args.spec.source or 'no source'}: {type(error).__name__}: {_last_line(error)}. "
        "The engine's log has the whole traceback.",
    )


def is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    oom = getattr(torch, "OutOfMemoryError", None)
    if isinstance(error, MemoryError) or (oom is not None and isinstance(error, oom)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].rstrip(".") if lines else "no message"
