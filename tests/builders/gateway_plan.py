"""Tenants, Secrets and a pool as the API server has them, and the plan of them with one model, `default/echo`."""

import base64
from typing import Any

import msgspec

from cotenant_operator.cluster_manifests import ManifestReader
from cotenant_operator.kinds import POOLS, SECRETS, TENANTS, Object, key_of
from cotenant_operator.objects import World
from cotenant_operator.plan import plan
from cotenant_operator.planner import Planned
from cotenant_serving.contract_gateway import GatewayConfig
from tests.builders.watched_api import deployment

KEY = "0123456789abcdef0123456789abcdef"


def tenant(name: str = "search", secret: str = "search-key", key: str = "token", **spec: Any) -> Object:
    keys = [{"secretRef": {"name": secret, "key": key}}]
    item = TENANTS.new(name, spec={"namespaces": ["default"], "keys": keys, **spec})
    item["metadata"] |= {"uid": f"uid-{name}", "generation": 1, "resourceVersion": "1"}
    return item


def secret(name: str = "search-key", **data: str) -> Object:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return SECRETS.new(name, "ours", data=encoded)


def pool() -> Object:
    item = POOLS.new("default", spec={"workers": [{"name": "cpu", "device": "cpu", "memory": "8Gi"}]})
    item["metadata"] |= {"uid": "uid-pool", "generation": 1, "resourceVersion": "1"}
    return item


def planned(tenants: list[Object], secrets: list[Object]) -> Planned:
    read = ManifestReader("ours").read(
        models={key_of(item): item for item in [deployment("echo", 1)]},
        tenants={key_of(item): item for item in tenants},
        pools={("", "default"): pool()},
        secrets=secrets,
    )
    return Planned(plan(World(read.manifests), {}), read.manifests, read.problems)


def whole_bytes(config: GatewayConfig) -> int:
    """As JSON, with the widest generation."""
    return len(msgspec.json.encode(msgspec.structs.replace(config, generation=2**63 - 1)))
