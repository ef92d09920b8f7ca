"""What models of a pool are, as it stands in a ConfigMap: a new leader plans with it before any hub answers. Pure.

Facts of a commit never change, so they are true however long they lie there. But one hub has shown them to
whoever has one Secret: a pool that names another hub or Secret now asks again.
"""

import base64
from collections.abc import Iterable, Mapping

import msgspec

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.kinds import Object
from cotenant_operator.pool_hubs import Hub, hub_of
from cotenant_operator.spec import GPUPool
from cotenant_serving.packed_config import packed, unpacked

FORMAT = 1
"""Raise it when ModelFacts gets other fields, or other values from the same files: all is then asked again."""
FACTS_KEY = "facts.json.gz"
MOST_BYTES = 512 * 1024
"""Packed; as base64 that is two thirds of what a ConfigMap holds."""


Facts = ModelFacts | CacheError


class _Kept(msgspec.Struct, frozen=True):
    format: int
    hub: Hub
    facts: dict[str, ModelFacts]
    """By `spec.model`."""


class PackedFacts:
    """Packs what is to be kept, each content once: plans are made all the time."""

    def __init__(self) -> None:
        self._packed: dict[str, tuple[Hub, dict[str, ModelFacts], bytes]] = {}

    def of(self, pools: Iterable[GPUPool], known: Mapping[str, Mapping[str, Facts]]) -> dict[str, bytes]:
        """GPUPool → what is kept of `known`, which is by pool and `spec.model`. Folders are read where they are."""
        before, self._packed = self._packed, {}
        for pool in pools:
            name, hub = pool.metadata.name, hub_of(pool)
            facts = {
                source: said
                for source, said in known.get(name, {}).items()
                if isinstance(said, ModelFacts) and source.startswith("hf://")
            }
            same = name in before and before[name][:2] == (hub, facts)
            self._packed[name] = before[name] if same else (hub, facts, pack(hub, facts))
        return {name: content for name, (_, _, content) in self._packed.items()}


def pack(hub: Hub, facts: Mapping[str, ModelFacts]) -> bytes:
    """Empty for none. Models that find no room are left out, the last names first: a new leader asks for them."""
    names = sorted(facts)
    while names:
        kept = _Kept(FORMAT, hub, {name: facts[name] for name in names})
        content = packed(msgspec.json.encode(kept))
        if len(content) <= MOST_BYTES:
            return content
        names = names[: len(names) * MOST_BYTES // len(content)]
    return b""


def unpack(item: Object, hub: Hub) -> dict[str, ModelFacts]:
    """`spec.model` → facts, of a pool with this hub; none where they are of another hub.

    Raises ValueError: they cannot be read, or another cotenant wrote them in a format of its own.
    """
    try:
        content = unpacked(base64.b64decode(item["binaryData"][FACTS_KEY], validate=True))
        kept = msgspec.json.decode(content, type=_Kept)
    except (KeyError, TypeError, msgspec.MsgspecError) as problem:
        raise ValueError(f"{type(problem).__name__}: {problem}") from None
    if kept.format != FORMAT:
        raise ValueError(f"it has format {kept.format}, this one reads {FORMAT}")
    return kept.facts if kept.hub == hub else {}
