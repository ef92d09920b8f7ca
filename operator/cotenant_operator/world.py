"""The only reading that a plan needs: manifests, and the facts of each model they name."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cotenant_cache.errors import CacheError
from cotenant_cache.facts import ModelFacts
from cotenant_operator.manifests import load
from cotenant_operator.model_facts import known_facts
from cotenant_operator.objects import World
from cotenant_operator.spec import ModelDeployment

_AT_ONCE = 8


AskHub = Callable[[str], ModelFacts | CacheError | None]
"""hf:// source → what is known of it now; None leaves its model pending."""


def read_world(files: Sequence[Path], cache_dir: Path, *, ask_hub: AskHub | None = None) -> World:
    """YAML files or folders → the input of `plan.plan`. A model that cannot be read is a fact too.

    Raises ManifestErrors. Reads headers of weights, never weights. Without `ask_hub`, hf:// sources ask the hub here,
    which takes a while when it does not answer.
    """
    manifests = load(files)

    def facts_of(source: str) -> ModelFacts | CacheError | None:
        if ask_hub is not None and source.startswith("hf://"):
            return ask_hub(source)
        return known_facts(source, str(cache_dir))

    return World(manifests, read_facts(sources_of(manifests.models), facts_of))


def sources_of(models: Iterable[ModelDeployment]) -> list[str]:
    return sorted({model.spec.model for model in models if model.spec.model})


def read_facts(sources: Sequence[str], facts_of: AskHub) -> dict[str, ModelFacts | CacheError]:
    """Several at a time; without those of which nothing is known now."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = zip(sources, pool.map(facts_of, sources), strict=True)
        return {source: facts for source, facts in found if facts is not None}
