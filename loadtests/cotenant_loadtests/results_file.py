"""`results.json` on disk."""

from pathlib import Path

import msgspec

from cotenant_loadtests.results import RESULTS_SCHEMA, Results


class ResultsFileError(ValueError):
    """The file is no results.json that this version reads; `str()` names it and says why."""


class _Head(msgspec.Struct):
    schema: str


def write_results(path: Path, results: Results) -> None:
    path.write_bytes(msgspec.json.encode(results) + b"\n")


def read_results(path: Path) -> Results:
    """Raises ResultsFileError, and OSError when it cannot be read at all."""
    data = path.read_bytes()
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema != RESULTS_SCHEMA:
            raise ResultsFileError(
                f"reading {path}: its schema is {schema!r}, and this version of cotenant reads {RESULTS_SCHEMA!r}; "
                "use the version of cotenant that wrote it, or run the load test again"
            )
        return msgspec.json.decode(data, type=Results)
    except ResultsFileError:
        raise
    except (ValueError, RecursionError) as problem:  # of msgspec: all that it raises
        raise ResultsFileError(
            f"reading {path}: {problem}; name a results.json as `cotenant loadtest` wrote it"
        ) from problem
