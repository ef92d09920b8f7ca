"""Finds the files of scenarios: those beside a scenario, and those that come with cotenant."""

from pathlib import Path

from cotenant_loadtests.problems import one_of, refused

_PACKAGE = Path(__file__).parent
_PLACES = (_PACKAGE / "scenarios", _PACKAGE.parent / "scenarios")
"""In an installed wheel, and in the repository."""


def shipped_scenarios() -> dict[str, Path]:
    """The scenarios that come with cotenant, by name."""
    return {path.stem: path for folder in _PLACES for path in sorted(folder.glob("*.yaml"))}


def scenario_path(name_or_path: str) -> Path:
    """A file, or a scenario that comes with cotenant, by name. Raises ScenarioError."""
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    known = shipped_scenarios()
    if name_or_path in known:
        return known[name_or_path]
    if path.exists():
        raise refused(name_or_path, 0, f"is {_kind(path)}; name a file")
    reason = f"there is no such file, and no scenario of that name comes with cotenant; {one_of(path.stem, known)}"
    raise refused(name_or_path, 0, reason)


def _kind(path: Path) -> str:
    return "a folder" if path.is_dir() else "no ordinary file"


def find_file(folder: Path, name: str, field: str) -> Path:
    """A trace or a file of prompts: in `folder`, where the scenario is, or one that comes with cotenant.

    `field`: that names it. Raises ScenarioError.
    """
    beside = folder / Path(name).expanduser()
    shipped = [place / kind / name for place in _PLACES for kind in ("", "traces", "prompts")]
    if found := next((path for path in (beside, *shipped) if path.is_file()), None):
        return found
    if beside.exists():
        raise refused(beside, 0, f"is {_kind(beside)}; name a file", field)
    raise refused(beside, 0, "there is no such file, and none of that name comes with cotenant", field)
