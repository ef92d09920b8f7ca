"""The only reading that a plan needs: manifests, and the facts of each model they name."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cotenant_cache.client import read_facts
from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.manifests import load
from cotenant_operator.objects import World

_AT_ONCE = 8


Facts = Mapping[str, ModelFacts | CacheError]
"""By `spec.model`."""


def read_world(files: Sequence[Path], cache_dir: Path, *, known: Facts | None = None) -> World:
    """YAML files or folders → the input of `plan.plan`. A model that cannot be read is a fact too.

    Sources in `known` are not read again. Raises ManifestErrors. Reads headers of weights, never weights; hf://
    sources ask the hub (10 s at most each).
    """
    manifests = load(files)
    facts = dict(known or {})
    sources = sorted({model.spec.model for model in manifests.models if model.spec.model} - facts.keys())
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        facts.update(zip(sources, pool.map(lambda source: _facts(source, cache_dir), sources), strict=True))
    return World(manifests, facts)


def _facts(source: str, cache_dir: Path) -> ModelFacts | CacheError:
    try:
        return read_facts(source, str(cache_dir))
    except CacheError as error:
        return error
