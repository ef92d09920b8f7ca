"""Whether a request for a model without a free engine should go on waiting. Pure."""

from cotenant_serving.contract import Reason
from cotenant_serving.contract_gateway import ModelRow
from cotenant_serving.gateway.errors import error
from cotenant_serving.openai_api import RequestError

UNREACHABLE_GRACE_S = 5.0
"""How long a cold request waits for a conductor that does not answer: a restart takes about a second."""
LOST_GRACE_S = 30.0
"""As UNREACHABLE_GRACE_S, for a model whose engines were there, or on their way, when a conductor last answered: they
come back without one, but only it tells their new addresses. On a machine with much to do its start takes long."""
DEFAULT_RETRY_S = 5.0


def refusal(
    model: str,
    row: ModelRow | None,
    *,
    eta_s: float | None,
    remaining_s: float,
    unreachable_s: float | None,
) -> RequestError | None:
    """Why a request for a model that has no engine need not wait longer; None when it should.

    eta_s: seconds from now until an engine answers, None when unknown. remaining_s: until the hold deadline.
    unreachable_s: how long the request has waited without any conductor, None while one answers.
    """
    if row is not None and row.state == "failed":
        return error("model_failed", _told(model, row), retry_after_s=eta_s if eta_s else DEFAULT_RETRY_S)
    if unreachable_s is not None:
        return unreachable() if unreachable_s >= _grace_s(row) else None
    if row is not None and row.state != "ready" and eta_s is not None and eta_s > remaining_s:
        return error(_code(row), _told(model, row), retry_after_s=eta_s)
    return None


def held_too_long(model: str, row: ModelRow | None, *, eta_s: float | None) -> RequestError:
    """The hold deadline passed."""
    if row is None:
        return error("no_capacity", f"No engine of model '{model}' had room in time.", retry_after_s=DEFAULT_RETRY_S)
    return error(_code(row), _told(model, row), retry_after_s=eta_s if eta_s else DEFAULT_RETRY_S)


def unready(
    model: str, row: ModelRow | None, *, eta_s: float | None, unreachable_s: float | None
) -> RequestError | None:
    """Why a request for a model that has no engine would not be answered; None when it would wake one."""
    if row is not None and row.state in ("failed", "waiting"):
        return held_too_long(model, row, eta_s=eta_s)
    if row is None or (unreachable_s is not None and unreachable_s >= UNREACHABLE_GRACE_S):
        return unreachable()
    return None


def unreachable() -> RequestError:
    return error("conductor_unreachable", retry_after_s=DEFAULT_RETRY_S)


def _grace_s(row: ModelRow | None) -> float:
    return LOST_GRACE_S if row is not None and row.state in ("ready", "waking") else UNREACHABLE_GRACE_S


def _code(row: ModelRow) -> str:
    if row.state == "failed":
        return "model_failed"
    if row.state in ("cold", "waking"):
        return "model_loading"
    return "no_capacity"


def _told(model: str, row: ModelRow) -> str:
    if row.reason is Reason.READY:
        return f"Every slot of model '{model}' stayed taken."
    state = "failed to start" if row.state == "failed" else f"is {row.state}"
    detail = f": {row.message.rstrip('.')}" if row.message else ""
    return f"Model '{model}' {state}, {row.reason.value}{detail}."
