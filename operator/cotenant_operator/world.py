"""The only reading that a plan needs: manifests, and the facts of each model they name."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cotenant_cache.client import read_facts
from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.manifests import load
from cotenant_operator.objects import World

_AT_ONCE = 8


def read_world(files: Sequence[Path], cache_dir: Path) -> World:
    """YAML files or folders → the input of `plan.plan`. A model that cannot be read is a fact too.

    Raises ManifestErrors. Reads headers of weights, never weights; hf:// sources ask the hub (10 s at most each).
    """
    manifests = load(files)
    sources = sorted({model.spec.model for model in manifests.models if model.spec.model})
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        facts = list(pool.map(lambda source: _facts(source, cache_dir), sources))
    return World(manifests, dict(zip(sources, facts, strict=True)))


def _facts(source: str, cache_dir: Path) -> ModelFacts | CacheError:
    try:
        return read_facts(source, str(cache_dir))
    except CacheError as error:
        return error
