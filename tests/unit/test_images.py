"""What images/ promises, as far as its files can show it; README.md there says how they are built."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "images").glob("*.Dockerfile"))
every_image = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def last_stage(file: Path) -> list[str]:
    return [line for line in re.split(r"^FROM ", file.read_text(), flags=re.MULTILINE)[-1].splitlines() if line]


@every_image
def test_an_image_runs_as_a_number_that_is_not_root(file: Path) -> None:
    assert [line for line in last_stage(file) if line.startswith("USER")] == ["USER 1000:1000"]


@every_image
def test_an_image_is_its_base_and_what_the_builder_made(file: Path) -> None:
    """No RUN: so no package manager, compiler or secret of a build can be in a layer of it."""
    stage = last_stage(file)
    assert stage[0] == "${BASE_IMAGE}"
    assert not [line for line in stage if line.startswith(("RUN", "ADD"))]
    copied = [line for line in stage if line.startswith("COPY")]
    assert copied == [
        "COPY --from=builder /opt/cotenant /opt/cotenant",
        "COPY --from=builder /build/passwd /etc/passwd",
    ]


@every_image
def test_the_base_can_be_another_one(file: Path) -> None:
    text = file.read_text()
    assert re.search(r"^ARG BASE_IMAGE=\S+:[\w.-]+$", text, re.MULTILINE), "with a tag"
    assert text.count("FROM ${BASE_IMAGE}") == text.count("FROM "), "for every stage"


@every_image
def test_an_image_has_extras_that_exist(file: Path) -> None:
    found = re.search(r"build\.sh ([\w,]+)$", file.read_text(), re.MULTILINE)
    assert found
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(found[1].split(",")) <= extras.keys()


def test_what_an_image_is_built_with_and_made_of_has_its_version_in_the_constraints() -> None:
    script = (ROOT / "images" / "build.sh").read_text().replace("\\\n", " ")
    commands = [line for line in script.splitlines() if re.search(r"(pip install|uv build) ", line)]
    assert len(commands) == 3
    assert all(re.search(r"--(build-)?constraints? /build/constraints.txt", line) for line in commands)
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.match(r"[\w-]+", item)[0] for item in backend} | {"uv"} <= pinned.keys()  # type: ignore[index]


def test_make_images_makes_every_image_and_the_chart_names_them() -> None:
    names = {file.stem for file in FILES}
    makefile = (ROOT / "Makefile").read_text()
    values = yaml.safe_load((ROOT / "charts" / "cotenant" / "values.yaml").read_text())

    assert set(re.findall(r"^IMAGES \?= (.*)$", makefile, re.MULTILINE)[0].split()) == names
    assert names < values["image"].keys()


def test_only_what_is_needed_can_get_into_a_layer() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((ROOT / path).exists() for path in allowed)
    assert not allowed & {".git", ".venv", ".env", "tests", "artifacts"}
