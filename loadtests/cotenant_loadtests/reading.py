"""A scenario's YAML → `Scenario`."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from cotenant_loadtests.problems import Problem, ScenarioError
from cotenant_loadtests.spec import Scenario

__all__ = ["ScenarioError", "read_scenario", "scenario_path"]


def read_scenario(path: Path, overrides: Sequence[str] = ()) -> Scenario:
    """Raises ScenarioError."""
    try:
        return Scenario.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise ScenarioError(
            Problem(str(path), 0, ".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()
        ) from None


def scenario_path(name_or_path: str) -> Path:
    """A file, or a scenario that comes with cotenant, by name. Raises ScenarioError."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise ScenarioError([Problem(name_or_path, 0, "", "there is no such file")])
