"""A scenario's YAML → `Scenario`, or every problem at once, with file, line and field."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotenant_loadtests.fields import message_of, place_of
from cotenant_loadtests.overrides import Override, parse_override, place_in, with_override
from cotenant_loadtests.problems import Problem, ScenarioError, read_errors, refused
from cotenant_loadtests.rules import findings
from cotenant_loadtests.shipped import scenario_path
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.yaml_values import Place, YamlError, load

__all__ = ["ScenarioError", "read_scenario", "scenario_path"]


def read_scenario(path: Path, overrides: Sequence[str | Override] = ()) -> Scenario:
    """The scenario of a file, with fields set by `overrides` such as `duration_s=5`. Raises ScenarioError.

    Fields of streams are set by the stream's position or name: `streams.chat.arrivals.rate_per_s=2`.
    """
    try:
        with read_errors(path):
            value, lines = load(path.read_text(encoding="utf-8"))
    except YamlError as error:
        raise refused(path, error.line, error.message) from None
    if not isinstance(value, dict):
        raise refused(path, 1, "is no scenario: begin with name, duration_s and streams")
    given = [one if isinstance(one, Override) else parse_override(value, one) for one in overrides]
    for override in given:
        value = with_override(value, override)
    return _validated(value, _Places(path, lines, given))


def _validated(value: dict[str, Any], places: "_Places") -> Scenario:
    try:
        scenario = Scenario.model_validate(value)
    except ValidationError as error:
        raise ScenarioError(_schema_problems(error, value, places)) from None
    if found := list(findings(scenario)):
        raise ScenarioError(places.problem(place_in(value, field), message) for field, message in found)
    return scenario


def _schema_problems(error: ValidationError, value: Any, places: "_Places") -> Iterator[Problem]:
    """One for each place, and none for what holds it: pydantic tells of every kind that a value might have been."""
    found: dict[Place, Any] = {}
    for item in error.errors(include_url=False):
        found.setdefault(place_of(value, item["loc"], item["type"]), item)
    around = {place[:end] for place in found for end in range(len(place))}
    for place, item in found.items():
        if place not in around:
            yield places.problem(place, message_of(value, place, item))


class _Places:
    """Where values come from: a line of the file, or an override."""

    def __init__(self, path: Path, lines: dict[Place, int], overrides: Iterable[Override]) -> None:
        self._path = str(path)
        self._lines = lines
        self._overrides = list(overrides)

    def problem(self, place: Place, message: str) -> Problem:
        field = ".".join(map(str, place))
        for override in reversed(self._overrides):
            around = place == override.place[: len(place)] and place not in self._lines
            if around or place[: len(override.place)] == override.place:
                return Problem(override.said, 0, "" if place == override.place else field, message)
        return Problem(self._path, self._line_of(place), field, message)

    def _line_of(self, place: Place) -> int:
        """Of the closest thing around it that stands in the file."""
        return next((line for end in range(len(place), -1, -1) if (line := self._lines.get(place[:end]))), 1)
