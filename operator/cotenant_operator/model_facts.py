"""Reading one model's files never ends whoever reads many: whatever goes wrong is a fact of that model alone."""

from cotenant_cache.client import ENVIRONMENT, read_facts
from cotenant_cache.errors import CacheError, CorruptWeightsError
from cotenant_cache.facts import ModelFacts
from cotenant_cache.source import HubAccess


def known_facts(source: str, cache_dir: str, access: HubAccess = ENVIRONMENT) -> ModelFacts | CacheError:
    """Facts, or why there are none; also when files are damaged in a way that their reader did not foresee."""
    try:
        return read_facts(source, cache_dir, access)
    except CacheError as error:
        return error
    except Exception as error:
        return CorruptWeightsError(
            f"{source}: its files cannot be understood ({type(error).__name__} while they were read); "
            "get the model again, and report this if it stays"
        )
