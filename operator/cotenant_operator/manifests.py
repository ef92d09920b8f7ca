"""YAML files → checked objects, or every problem in them with file and line. Reads files, writes nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotenant_operator.failure import Failure
from cotenant_operator.near import hint
from cotenant_operator.objects import Manifests, ObjectKey
from cotenant_operator.positions import MAX_BYTES, Document, YamlProblem, documents
from cotenant_operator.problems import Problem, problems_of
from cotenant_operator.spec import API_VERSION, GPUPool, ModelDeployment, Secret, Tenant

_SUFFIXES = (".yaml", ".yml")
Object = ModelDeployment | Tenant | GPUPool | Secret
_KINDS: dict[str, type[Object]] = {
    "ModelDeployment": ModelDeployment,
    "Tenant": Tenant,
    "GPUPool": GPUPool,
    "Secret": Secret,
}


class ManifestErrors(Failure):
    """Everything that is wrong in the given files. `str()` is one line for each."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(slots=True)
class _Found:
    objects: list[Object] = field(default_factory=list)
    places: dict[ObjectKey, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def load(paths: Sequence[Path]) -> Manifests:
    """Files, and folders of *.yaml and *.yml → their objects. Raises ManifestErrors with all problems at once."""
    found = _Found()
    for path in paths:
        for file in _files(path, found):
            _read(file, found)
    if not found.objects and not found.problems:
        names = ", ".join(str(path) for path in paths)
        found.problems.append(Problem(names, 0, "", f"holds no object; write one of: {', '.join(_KINDS)}"))
    if found.problems:
        raise ManifestErrors(found.problems)
    return Manifests(
        models=tuple(item for item in found.objects if isinstance(item, ModelDeployment)),
        tenants=tuple(item for item in found.objects if isinstance(item, Tenant)),
        pools=tuple(item for item in found.objects if isinstance(item, GPUPool)),
        secrets=tuple(item for item in found.objects if isinstance(item, Secret)),
        places=found.places,
    )


def _files(path: Path, found: _Found) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
    except OSError as error:
        found.problems.append(
            Problem(f"{str(path)[:60]}…", 0, "", f"cannot be read: {error.strerror}; check the path")
        )
        return []
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        found.problems.append(
            Problem(str(path), 0, "", "the folder has no *.yaml file; give a file, or another folder")
        )
    return files


def _read(file: Path, found: _Found) -> None:
    try:
        if file.exists() and not file.is_file():  # a FIFO would be waited for, for ever
            found.problems.append(Problem(str(file), 0, "", "is not a regular file; give a YAML file or a folder"))
            return
        with file.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1).decode()
        for document in documents(text):
            _add(document, file, found)
    except OSError as error:
        found.problems.append(Problem(str(file), 0, "", f"cannot be read: {error.strerror}; check the path"))
    except UnicodeDecodeError as error:
        found.problems.append(Problem(str(file), 0, "", f"is not UTF-8 text at byte {error.start}; save it as UTF-8"))
    except YamlProblem as error:
        found.problems.append(Problem(str(file), error.line, "", error.message, error.column))


def _add(document: Document, file: Path, found: _Found) -> None:
    model = _kind(document, file, found)
    if model is None:
        return
    value = document.value
    if model is ModelDeployment:
        value = _absolute_source(value, file.parent)
    try:
        item = model.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        found.problems += problems_of(error, model, document, str(file))
        return
    key = (item.kind, getattr(item.metadata, "namespace", ""), item.metadata.name)
    place = f"{file}:{document.line}"
    if key in found.places:
        found.problems.append(
            Problem(
                str(file),
                document.line_of(("metadata", "name")),
                "metadata.name",
                f"{item.kind} {'/'.join(filter(None, key[1:]))!r} stands already at {found.places[key]}; "
                "remove or rename one",
            )
        )
        return
    found.places[key] = place
    found.objects.append(item)


def _kind(document: Document, file: Path, found: _Found) -> type[Object] | None:
    value = document.value
    if not isinstance(value, dict):
        found.problems.append(
            Problem(str(file), document.line, "", "is not an object with apiVersion, kind, metadata and spec")
        )
        return None
    kind, version = value.get("kind"), value.get("apiVersion")
    if not isinstance(kind, str) or kind not in _KINDS:
        given = "required field is missing" if kind is None else f"{kind!r} is not a kind"
        message = f"{given}; {hint(str(kind or ''), _KINDS)}"
        found.problems.append(Problem(str(file), document.line_of(("kind",)), "kind", message))
        return None
    wanted = "v1" if kind == "Secret" else API_VERSION
    if version != wanted:
        given = "required field is missing" if version is None else f"{version!r} is not served"
        message = f"{given}; set apiVersion: {wanted}"
        found.problems.append(Problem(str(file), document.line_of(("apiVersion",)), "apiVersion", message))
        return None
    return _KINDS[kind]


def _absolute_source(value: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`file://./dir` is beside the YAML file, wherever the command runs."""
    spec = value.get("spec")
    source = spec.get("model") if isinstance(spec, dict) else None
    if not isinstance(source, str) or not source.startswith(("file://./", "file://../")) or not source.isprintable():
        return value  # what is no path of a folder the schema refuses
    path = (folder / source.removeprefix("file://")).resolve()
    return {**value, "spec": {**spec, "model": f"file://{path}"}} if isinstance(spec, dict) else value
