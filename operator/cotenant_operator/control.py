"""The control plane's client of the conductor's API (stdlib HTTP; small messages, one at a time)."""

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cotenant_operator.failure import Failure
from cotenant_operator.which_world import nothing_runs
from cotenant_serving.contract import Desired, PoolStatus
from cotenant_serving.tokens import shown

# Never through a proxy of the environment: it could not reach this machine, and would be shown the token.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ControlError(Failure):
    """The conductor did not answer, or refused; the message says what to do next."""


class ControlRefusedError(ControlError):
    """It answered, and said no: the same again will not do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningUp:
    """`control.json`: where the `up` of a state directory can be reached."""

    conductor_url: str
    control_token_file: Path
    gateway_url: str
    gateway_workers: int
    """Processes that take turns at its port; each reads its configuration by itself."""
    pid: int


def running_up(state: Path) -> RunningUp:
    """The `up` that runs on this state directory. Raises ControlError when none does."""
    try:
        control = json.loads((state / "control.json").read_text())
        running = RunningUp(
            conductor_url=control["conductor_url"],
            control_token_file=Path(control["control_token_file"]),
            gateway_url=control["gateway_url"],
            gateway_workers=int(control.get("gateway_workers", 1)),
            pid=int(control["pid"]),
        )
    except (OSError, ValueError, KeyError):
        raise ControlError(nothing_runs(state)) from None
    if Path("/proc").is_dir() and not Path(f"/proc/{running.pid}").exists():
        raise ControlError(
            f"the `cotenant up` of {state} (process {running.pid}) was ended by force. Start it again: "
            "`cotenant up -f FILE`."
        )
    return running


@dataclass(frozen=True, slots=True)
class ControlClient:
    """`token_file` holds the control token; it is read at each call, so that it may be rotated."""

    url: str
    token_file: Path

    @classmethod
    def of_state(cls, state: Path) -> "ControlClient":
        """The client for the `up` that runs on this state directory. Raises ControlError when none does."""
        control = running_up(state)
        return cls(control.conductor_url, control.control_token_file)

    def put_desired(self, desired: Desired) -> None:
        self._call("PUT", "/v1/desired", msgspec.json.encode(desired))

    def status(self) -> PoolStatus:
        try:
            return msgspec.json.decode(self._call("GET", "/v1/status"), type=PoolStatus)
        except msgspec.MsgspecError as error:
            raise ControlError(f"{self.url} answered what is no status: {error}. Is it a conductor?") from None

    def ready(self) -> bool:
        try:
            self._call("GET", "/readyz")
        except ControlError:
            return False
        return True

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        try:
            headers = {"authorization": f"Bearer {shown(self.token_file.read_text())}"}
            request = urllib.request.Request(self.url + path, data=body, method=method, headers=headers)
            with _OPENER.open(request, timeout=10) as response:
                return bytes(response.read())
        except urllib.error.HTTPError as error:
            with error:
                detail = error.read().decode(errors="replace")
            kind = ControlRefusedError if error.code < 500 else ControlError
            step = self._step(error.code)
            raise kind(f"the conductor answered {error.code} to {method} {path}: {detail.strip()}{step}") from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            raise ControlError(
                f"the conductor at {self.url} does not answer: {cause}. It may be starting: try again."
            ) from None

    def _step(self, status: int) -> str:
        """What to do, where the conductor's own words cannot say it."""
        if status not in (401, 403):
            return ""
        return (
            f". It does not take the token in {self.token_file}: another `cotenant up` may have replaced it, or the "
            "one at this address. Name the state directory of the one that runs with --state, or start it again."
        )


def answers(url: str) -> bool:
    """Does a GET of this URL answer with success?"""
    try:
        with _OPENER.open(url, timeout=2):
            return True
    except (OSError, http.client.HTTPException):
        return False
