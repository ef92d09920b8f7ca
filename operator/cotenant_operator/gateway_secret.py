"""The Secret from which gateways start, read as this process saw it last."""

import logging

import msgspec

from cotenant_operator.operator_settings import GATEWAY_KEY, GATEWAY_SECRET, OLD_GATEWAY_KEY
from cotenant_operator.secrets_by_name import SecretsByName
from cotenant_serving.contract_gateway import GatewayConfig
from cotenant_serving.packed_config import unpacked

log = logging.getLogger("cotenant.operator")


class GatewaySecret:
    """Reads what is in it once for each content: passes over pools ask for it all the time."""

    def __init__(self, secrets: SecretsByName) -> None:
        self._secrets = secrets
        self._seen: bytes | None = None
        self._config: GatewayConfig | None = None

    def json(self) -> bytes:
        """Of a GatewayConfig; one that an older operator wrote too. Empty when there is nothing that can be read."""
        try:
            packed = self._secrets.raw(GATEWAY_SECRET, GATEWAY_KEY)
            return unpacked(packed) or self._secrets.raw(GATEWAY_SECRET, OLD_GATEWAY_KEY)
        except ValueError as problem:
            log.error("Secret %s: %s cannot be read, it is written anew: %s", GATEWAY_SECRET, GATEWAY_KEY, problem)
            return b""

    def config(self) -> GatewayConfig | None:
        """None when nothing readable is there, or only what an older operator wrote: it is to be written anew."""
        content = self._secrets.raw(GATEWAY_SECRET, GATEWAY_KEY)
        if content != self._seen:
            self._seen, self._config = content, _read(content)
        return self._config


def _read(content: bytes) -> GatewayConfig | None:
    try:
        return msgspec.json.decode(unpacked(content), type=GatewayConfig)
    except (ValueError, msgspec.MsgspecError):
        return None
