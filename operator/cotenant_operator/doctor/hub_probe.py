"""The hub, asked only when a person wants it: does it answer, and does it take the token?"""

import contextlib
import http.client
import os
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

from cotenant_cache.http_answers import is_hub_address
from cotenant_operator.doctor.snapshot import Hub

TIMEOUT_S = 10.0
DEFAULT = "https://huggingface.co"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token goes to this address and to no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def probe_hub() -> Hub:
    """Through the environment's proxies, as downloads go."""
    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT).rstrip("/")
    if not is_hub_address(endpoint):  # it is not shown: it may have a password
        return Hub(endpoint="", problem="HF_ENDPOINT is no http(s)://host[:port][/path] without a user")
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Hub(endpoint=endpoint, offline=True)
    token = _token()
    try:
        status, date = _ask(f"{endpoint}/api/whoami-v2", token)
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = str(getattr(error, "reason", error)).strip()
        return Hub(endpoint=endpoint, problem=f"{said} ({type(error).__name__})" if said else type(error).__name__)
    return Hub(endpoint=endpoint, token=_judged(token, status), clock_skew_s=_skew(date))


def _judged(token: str, status: int) -> Literal["none", "good", "refused", "unknown"]:
    if not token:
        return "none"
    if status in (401, 403):
        return "refused"
    return "good" if status == 200 else "unknown"


def _ask(url: str, token: str) -> tuple[int, str]:
    """Status and Date of the answer; any answer is one."""
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S) as answer:
            return int(answer.status), str(answer.headers.get("date", ""))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.headers.get("date", ""))


def _token() -> str:
    """As huggingface_hub finds it."""
    if given := os.environ.get("HF_TOKEN", "").strip():
        return given
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(os.environ.get("HF_TOKEN_PATH", home / "token")).read_text().strip()
    return ""


def _skew(date: str) -> float | None:
    with contextlib.suppress(ValueError, TypeError):
        return time.time() - parsedate_to_datetime(date).timestamp()
    return None
