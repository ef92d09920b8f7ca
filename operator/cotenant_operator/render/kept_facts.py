"""GPUPool → the ConfigMap in which the operator keeps what its models are. Pure."""

import base64
from typing import Any

from cotenant_operator.cluster_names import OURS, POOL_LABEL, facts_object
from cotenant_operator.kept_facts import FACTS_KEY
from cotenant_operator.kinds import CONFIG_MAPS, POOLS
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.spec import GPUPool


def render_facts(pool: GPUPool, settings: OperatorSettings, packed: bytes, *, uid: str) -> dict[str, Any]:
    """It goes with its pool. `packed` is as `kept_facts.pack` gives it."""
    name = pool.metadata.name
    data = {FACTS_KEY: base64.b64encode(packed).decode()}
    item = CONFIG_MAPS.new(facts_object(name), settings.namespace, binaryData=data)
    item["metadata"] |= {"labels": {POOL_LABEL: name, **OURS}, "ownerReferences": [POOLS.owner(name, uid)]}
    return item
