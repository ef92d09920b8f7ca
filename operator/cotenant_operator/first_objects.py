"""What the operator makes once: the tokens of the programs, and the pool of a cluster that has none. Pure."""

import base64

from cotenant_operator.cluster_names import OURS
from cotenant_operator.kinds import CONFIG_MAPS, POOLS, SECRETS, Object
from cotenant_operator.operator_settings import (
    CONTROL_TOKEN,
    GATEWAY_KEY,
    GATEWAY_SECRET,
    POOL_TOKEN,
    TOKENS_SECRET,
    DefaultPool,
)
from cotenant_operator.quantity import as_quantity
from cotenant_serving.packed_config import packed

MARK = "cotenant-made"
"""ConfigMap that says that there has been a pool: a default one that its owner deleted is not made again. Delete the
ConfigMap to have it made anew."""
DEFAULT_POOL_KEY = "default-pool"


def tokens_secret(namespace: str, pool_token: str, control_token: str) -> Object:
    tokens = {POOL_TOKEN: pool_token, CONTROL_TOKEN: control_token}
    data = {name: base64.b64encode(token.encode()).decode() for name, token in tokens.items()}
    return _ours(SECRETS.new(TOKENS_SECRET, namespace, type="Opaque", data=data))


def gateway_secret(namespace: str, raw: bytes) -> Object:
    """`raw`: JSON of a GatewayConfig."""
    data = {GATEWAY_KEY: base64.b64encode(packed(raw)).decode()}
    return _ours(SECRETS.new(GATEWAY_SECRET, namespace, type="Opaque", data=data))


def default_pool(settings: DefaultPool) -> Object:
    worker = {
        "name": "cpu",
        "device": "cpu",
        "memory": as_quantity(settings.memory),
        "min": 0,
        "max": settings.max,
    }
    return _ours(POOLS.new("default", spec={"namespaces": ["*"], "workers": [worker]}))


def pool_mark(namespace: str) -> Object:
    return _ours(CONFIG_MAPS.new(MARK, namespace, data={DEFAULT_POOL_KEY: "there has been a GPUPool"}))


def _ours(item: Object) -> Object:
    item["metadata"]["labels"] = dict(OURS)
    return item
