"""What `up` has published last in its state directory: tenants and models, as the gateway reads them.

It is there after `up` has ended too.
"""

from pathlib import Path

import msgspec

from cotenant_operator.failure import Failure
from cotenant_operator.which_world import nothing_runs
from cotenant_serving.contract_gateway import GatewayConfig


class NotPublishedError(Failure):
    """There is no gateway configuration in the state directory; the message says what to do."""


def read_published(state: Path) -> GatewayConfig:
    """`<state>/gateway.json`. Raises NotPublishedError."""
    path = state / "gateway.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=GatewayConfig)
    except FileNotFoundError:
        raise NotPublishedError(nothing_runs(state)) from None
    except OSError as error:
        raise NotPublishedError(f"{path} cannot be read: {error.strerror}; run as the user of `up`") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise NotPublishedError(f"{path} is damaged; start `cotenant up` again") from None
