"""What is installed is what was meant to be: pinned versions, and nothing that runs by being there."""

import re
import site
import subprocess
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
KNOWN_HOOKS = {"distutils-precedence.pth", "_virtualenv.pth", "a1_coverage.pth"}
"""Of setuptools, virtualenv and coverage."""


def tracked(*folders: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *folders], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name]


def pinned() -> dict[str, str]:
    """name → version, of constraints.txt."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    exact = [re.fullmatch(r"([\w.-]+)==([\w.+!-]+)(\s*;.*)?", line) for line in lines if line]
    assert None not in exact, "every line is NAME==VERSION"
    return {canonicalize_name(found[1]): found[2] for found in exact if found}


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Adds what a distribution that is installed here needs, directly or not."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for line in distribution(name).requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            needed(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


def test_a_wheel_has_programs_and_data_and_nothing_that_python_runs_by_itself() -> None:
    """LiteLLM 1.82.7 and 1.82.8 on PyPI (March 2026: a stolen token, and a `.pth` file in the wheel that ran at every
    start of Python). The wheel is the four packages and the scenarios; in them lie these kinds of files only."""
    kinds = {".py", ".typed", ".json", ".md", ".css", ".yaml", ".csv", ".safetensors", ".jinja", ".txt", ".svg"}
    files = tracked(*PACKAGES, "loadtests/scenarios")
    assert len(files) > 200
    assert {path.suffix for path in files} <= kinds
    assert [path for path in files if path.is_symlink() or path.stat().st_mode & 0o111] == []
    assert [path for path in files if path.name in ("sitecustomize.py", "usercustomize.py", "setup.py")] == []
    target = PROJECT["tool"]["hatch"]["build"]["targets"]
    assert set(target) == {"wheel"}
    assert set(target["wheel"]) == {"packages", "force-include"}
    assert target["wheel"]["force-include"] == {"loadtests/scenarios": "cotenant_loadtests/scenarios"}
    assert PROJECT["build-system"] == {"requires": ["hatchling>=1.25"], "build-backend": "hatchling.build"}


def test_no_package_here_has_brought_a_file_that_runs_at_every_start() -> None:
    """LiteLLM's incident, from the other side: no dependency has put a `.pth` with code into this environment."""
    folders = [Path(folder) for folder in site.getsitepackages()]
    running = {
        path.name
        for folder in folders
        for path in folder.glob("*.pth")
        if any(line.startswith(("import ", "import\t")) for line in path.read_text(errors="replace").splitlines())
    }
    assert running <= KNOWN_HOOKS


def test_every_package_that_is_needed_is_pinned_to_one_version() -> None:
    """LiteLLM's incident was three hours long: who installs the newest gets what was published meanwhile. Whatever
    cotenant needs, directly or not, stands in constraints.txt with its version, and is installed in that one."""
    seen: set[tuple[str, frozenset[str]]] = set()
    needed("cotenant", frozenset({"local", "tracing", "dev"}), seen)
    names = {name for name, _ in seen} - {"cotenant"}
    versions = pinned()
    assert len(names) > 80
    assert {name for name in names if name not in versions} <= {"setuptools", "pip"}
    other = {
        name
        for name in names & set(versions)
        if distribution(name).version.split("+")[0] != versions[name].split("+")[0]
    }
    assert other == set()


@pytest.mark.parametrize("extra", sorted(PROJECT["project"]["optional-dependencies"]))
def test_no_package_comes_from_elsewhere(extra: str) -> None:
    """Dependency confusion: names with ranges only, no address, no other index."""
    listed = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"][extra]
    assert [line for line in listed if Requirement(line).url] == []
    texts = [(ROOT / name).read_text() for name in ("Makefile", "constraints.txt", ".ci/run")]
    assert not [text for text in texts if re.search(r"--(extra-)?index-url|--find-links|git\+|--trusted-host", text)]
