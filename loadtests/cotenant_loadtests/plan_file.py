"""A plan as a file: a header line, then a line of JSON for each request. The only place that reads and writes one."""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from cotenant_loadtests.plan_rules import line_findings
from cotenant_loadtests.planned import PLAN_SCHEMA, PlanHeader, Planned
from cotenant_loadtests.spec import Scenario

MAX_LINE_BYTES = 64 * 2**20
_TYPE = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<given>[^`]+)`(?: - at `\$\.?(?P<field>[^`]*)`)?$")
_T = TypeVar("_T")


class PlanError(Exception):
    """A file that is no plan; str is the whole message."""


class _Schema(msgspec.Struct):
    """Of a header of any version."""

    schema: str


def plan_lines(scenario: Scenario, plan: Sequence[Planned]) -> Iterator[bytes]:
    """The lines of a plan file, each with its line feed; equal plans give equal lines."""
    header = PlanHeader(
        scenario=scenario.name, seed=scenario.seed, requests=len(plan), duration_s=scenario.duration_s
    )
    encoder = msgspec.json.Encoder()
    yield encoder.encode(header) + b"\n"
    for planned in plan:
        yield encoder.encode(planned) + b"\n"


def write_plan(path: Path, scenario: Scenario, plan: Sequence[Planned]) -> None:
    """For its owner's eyes only: prompts of a file stand in it as they are. Raises OSError."""
    with open(path, "wb", opener=_private) as file:
        file.writelines(plan_lines(scenario, plan))


def _private(path: str, flags: int) -> int:
    """A file that is there already loses the rights of others too; what is no file (`/dev/stdout`) keeps its own."""
    opened = os.open(path, flags, 0o600)
    if stat.S_ISREG(os.fstat(opened).st_mode):
        with suppress(PermissionError):  # it is somebody else's, who may write it for us
            os.fchmod(opened, 0o600)
    return opened


def read_plan(path: Path) -> tuple[PlanHeader, list[Planned]]:
    """Raises PlanError with file, line and reason; OSError when the file cannot be read."""
    with path.open("rb") as file:
        first = file.readline(MAX_LINE_BYTES)
        if (schema := _decoded(path, 1, first, msgspec.json.Decoder(_Schema)).schema) != PLAN_SCHEMA:
            raise PlanError(f"{path}:1: schema is {schema!r}; this version reads {PLAN_SCHEMA!r}")
        header = _decoded(path, 1, first, msgspec.json.Decoder(PlanHeader))
        lines = iter(lambda: file.readline(MAX_LINE_BYTES), b"")
        plan = list(_read_lines(path, lines, header.duration_s))
    if len(plan) != header.requests:
        raise PlanError(f"{path}: has {len(plan)} requests, its first line says {header.requests}; is it whole?")
    return header, plan


def plan_sha256(plan: Iterable[Planned]) -> str:
    """Hex SHA-256 of the requests' lines; equal for equal plans."""
    encoder, digest = msgspec.json.Encoder(), sha256()
    for planned in plan:
        digest.update(encoder.encode(planned) + b"\n")
    return digest.hexdigest()


def _read_lines(path: Path, lines: Iterable[bytes], duration_s: float) -> Iterator[Planned]:
    decoder = msgspec.json.Decoder(Planned)
    for index, line in enumerate(lines):
        planned = _decoded(path, index + 2, line, decoder)
        if (problem := next(line_findings(planned, index, duration_s), None)) is not None:
            raise PlanError(f"{path}:{index + 2}: {problem}")
        yield planned


def _decoded(path: Path, line: int, text: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError) as error:  # of msgspec: all that it raises
        raise PlanError(f"{path}:{line}: is no line of a plan: {_words(text, str(error))}") from None


def _words(text: bytes, said: str) -> str:
    """msgspec's message as a sentence about a field."""
    if not text.strip():
        return "it is empty; `--plan FILE` writes a plan"
    found = _TYPE.match(said)
    if found is None:
        return said
    field, wanted = found["field"] or "it", found["wanted"].replace(" | ", " or ")
    return f"{field} must be {wanted}, and is {found['given']}"
