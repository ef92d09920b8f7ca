"""Rewrites the generated parts of docs/*.md from the code.

    python scripts/generate_docs.py           write them
    python scripts/generate_docs.py --check   exit with 1 when one differs, or when an error or a reason has no text

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; the rest of a page is written by
hand. What code cannot say (causes, remedies, label values) stands in scripts/docs_text.yaml.
"""

import ast
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import chart_values
import loadtest_docs
import yaml
from field_fates import request_fields
from generated_files import ROOT, SourceError, bring_up_to_date
from loadtest_docs import Struct
from pydantic import BaseModel
from scenario_fields import amounts, arrivals

from cotenant_cache.contract import Usage
from cotenant_loadtests import spec as loadtest_spec
from cotenant_loadtests import spec_values
from cotenant_operator import kinds, schema, spec
from cotenant_operator.actions import Actions
from cotenant_operator.condition_reasons import ClusterReason
from cotenant_operator.estimate import RUNTIME_BYTES
from cotenant_operator.operator_metrics import OperatorMetrics
from cotenant_operator.quantity import as_quantity, parse_bytes, parse_seconds, show_bytes, show_seconds
from cotenant_serving import contract
from cotenant_serving.gateway.errors import ERRORS
from cotenant_serving.gateway.metrics import Metrics, Now
from cotenant_serving.gateway.openapi.document import document
from cotenant_serving.weight_cache.metrics import CacheMetrics

DOCS = ROOT / "docs"
TEXTS = ROOT / "scripts" / "docs_text.yaml"
SERVING = ROOT / "serving" / "cotenant_serving"
_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NAMES = (
    (schema.Name, "name"),
    (schema.Namespace, "namespace"),
    (spec_values.Choice, "name or names"),
    (spec_values.Amounts, "amount"),
    (spec_values.Arrivals, "arrivals"),
)


class DocsError(SourceError):
    """A part cannot be generated; the message says what is missing and where to write it."""


@dataclass(frozen=True, slots=True, order=True)
class Code:
    """An error code that the checks of a request, or an engine, answer with."""

    status: int
    code: str
    type: str


def main(arguments: Sequence[str] | None = None) -> int:
    about = "Rewrite the generated parts of docs/*.md."
    return bring_up_to_date(__file__, about, lambda: pages(DOCS, parts(yaml.safe_load(TEXTS.read_text()))), arguments)


def parts(texts: Mapping[str, Any]) -> dict[str, str]:
    """Name of a part → its text. Raises DocsError for anything that lacks a text, or a text that nothing needs."""
    return {
        "metadata": table(FIELDS, fields(schema.Metadata, "metadata")),
        "modeldeployment": table(FIELDS, fields(spec.ModelDeploymentSpec, "spec")),
        "tenant": table(FIELDS, fields(spec.TenantSpec, "spec")),
        "gpupool": table(FIELDS, fields(spec.GPUPoolSpec, "spec")),
        "scenario": table(FIELDS, fields(loadtest_spec.Scenario)),
        "arrivals": table(("`process`", "Fields", "Requests come"), arrivals()),
        "trace": table(FIELDS, fields(spec_values.Trace, "arrivals")),
        "amounts": table(("`distribution`", "Fields", "Drawn"), amounts()),
        "gateway-errors": table(ERROR, gateway_errors(texts["errors"])),
        "request-errors": table(ERROR, request_errors(texts["codes"], texts["internal"])),
        "reasons": table(("Reason", "Cause", "What to do"), reasons(texts["reasons"])),
        "condition-reasons": table(("Reason", "Cause", "What to do"), condition_reasons(texts["conditions"])),
        "metrics": table(("Name", "Type", "Labels", "Help"), metrics()),
        "cache-metrics": table(("Name", "Type", "Labels", "Help"), cache_metrics()),
        "operator-metrics": table(("Name", "Type", "Labels", "Help"), operator_metrics()),
        "labels": table(("Label", "Values"), labels(texts["labels"])),
        "runtime": table(("Task", "Device", "Runtime"), runtime()),
        "routes": table(("Route", "What", "Key"), routes()),
        "request-fields": table(("Route", "Fields", "What happens to them"), request_fields()),
        "helm-values": table(("Value", "Type", "Default", "Description"), chart_values.rows(chart_values.values())),
        **loadtest_parts(),
    }


def loadtest_parts() -> dict[str, str]:
    results, extras = loadtest_docs.results(), loadtest_docs.extras()
    return {
        "loadtest-results": _structs(results, results),
        "loadtest-extras": _structs(extras, [*extras, *results]),
        "loadtest-outcomes": table(("Outcome", "Counts as", "What"), loadtest_docs.outcomes()),
        "loadtest-columns": table(("Column", "Type", "What"), loadtest_docs.columns()),
        "loadtest-slo": loadtest_docs.slo_table(),
    }


def _structs(structs: list[Struct], known: list[Struct]) -> str:
    """A heading, its words and its table for each."""
    made = (
        f"### {struct.name}\n\n{struct.about}\n\n".replace("\n\n\n\n", "\n\n") + table(loadtest_docs.FIELDS, rows)
        for struct, rows in loadtest_docs.tables(structs, known)
    )
    return "\n".join(made)


def pages(folder: Path, made: Mapping[str, str]) -> dict[Path, str]:
    """Each page with its parts renewed. Raises DocsError when a page asks for an unknown part or no page has one."""
    used: set[str] = set()

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in made:
            raise DocsError(f"there is no part {name!r}; known: {', '.join(made)}")
        used.add(name)
        return f"{match[1]}{made[name]}{match[3]}"

    renewed = {path: _PART.sub(fill, path.read_text()) for path in sorted(folder.glob("*.md"))}
    if unused := made.keys() - used:
        raise DocsError(f"no page of {folder.name}/ has the part {', '.join(sorted(unused))}")
    return renewed


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A cell is one line: what has several paragraphs would end the table."""
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows)
    return "".join("| " + " | ".join(line) + " |\n" for line in [columns, ["---"] * len(columns), *cells])


FIELDS = ("Field", "Type", "Default", "Description")
ERROR = ("Status", "Type", "Code", "Cause", "What to do")


def fields(model: type[BaseModel], path: str = "") -> list[tuple[str, ...]]:
    """A row for each field, depth first."""
    rows: list[tuple[str, ...]] = []
    hints = typing.get_type_hints(model, include_extras=True)
    for name, info in model.model_fields.items():
        inner, many = _model_in(hints[name])
        here = f"{path}.{info.alias or name}".removeprefix(".") + many
        if not info.description:
            raise DocsError(f"{model.__name__}.{name} has no description; give its Field one")
        default = "**required**" if info.is_required() else _default(info.default, hints[name])
        rows.append((f"`{here}`", _type(hints[name]), default, info.description))
        if inner:
            rows += fields(inner, here)
    return rows


def _type(hint: Any) -> str:
    """A type as a YAML author sees it."""
    for known, words in _NAMES:
        if hint == known:
            return words
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _annotated(arguments[0], arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return _type(next(item for item in arguments if item is not type(None)))
    if origin is typing.Literal:
        return " or ".join(f"`{str(item).lower() if item is True else item}`" for item in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin in (dict, Mapping) or hint is dict:
        return "map"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "object"
    return {str: "string", int: "integer", float: "number", bool: "boolean"}[hint]


def _annotated(base: Any, extras: Sequence[Any]) -> str:
    if _reads_with(extras, parse_bytes):
        return "quantity"
    if _reads_with(extras, parse_seconds):
        return "duration"
    limits = [limit for extra in extras for limit in getattr(extra, "metadata", ())]
    least = [limit.ge for limit in limits if hasattr(limit, "ge")]
    above = [limit.gt for limit in limits if hasattr(limit, "gt")]
    most = [limit.le for limit in limits if hasattr(limit, "le")]
    words = [_type(base)]
    words += [f"from {max(least)}"] if least else []
    words += [f"above {max(above)}"] if above else []
    words += [f"up to {min(most):.0f}"] if most else []
    return " ".join(words)


def _reads_with(extras: Sequence[Any], function: Callable[..., Any]) -> bool:
    return any(getattr(extra, "func", None) is function for extra in extras)


def _default(value: Any, hint: Any) -> str:
    if value is None or isinstance(value, BaseModel):
        return ""
    if _type(hint) == "quantity":
        return f"`{as_quantity(value) if value else 0}`"
    if _type(hint) == "duration":
        return f"`{show_seconds(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(f'"{item}"' for item in value) + "]`"
    return f'`"{value}"`' if value == "" else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _model_in(hint: Any) -> tuple[type[BaseModel] | None, str]:
    """The model inside a hint, and what a path to it has after the name: where there are many, `[]` or `.NAME`."""
    if any(hint == known for known, _ in _NAMES):
        return None, ""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint, ""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Mapping:
        inner, _ = _model_in(arguments[1])
        return inner, ".NAME" if inner else ""
    if origin in (typing.Annotated, tuple, typing.Union, types.UnionType):
        inner, many = _model_in(arguments[0])
        return inner, "[]" if inner and origin is tuple else many
    return None, ""


def gateway_errors(texts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Every row of the gateway's table, by status."""
    _complete("errors", texts, ERRORS)
    return [
        (str(kind.status), f"`{kind.type}`", f"`{kind.code or name}`", texts[name]["cause"], texts[name]["do"])
        for name, kind in sorted(ERRORS.items(), key=lambda item: (item[1].status, item[0]))
    ]


def request_errors(texts: Mapping[str, Any], internal: Sequence[str]) -> list[tuple[str, ...]]:
    """Codes that come from the checks of a request and from engines, without those that only gateways see."""
    found = {code for file in _sources() for code in codes_in(file.read_text())}
    _complete("codes, or list it under internal,", [*texts, *internal], {item.code for item in found})
    return [
        (str(item.status), f"`{item.type}`", f"`{item.code}`", texts[item.code]["cause"], texts[item.code]["do"])
        for item in sorted(found)
        if item.code in texts
    ]


def _sources() -> list[Path]:
    shared = ("request_fields.py", "openai_api.py", "pooling_api.py", "oip_api.py", "oip_data.py")
    return [*(SERVING / name for name in shared), *sorted((SERVING / "engine").glob("*.py"))]


def codes_in(source: str) -> Iterator[Code]:
    """`code="…"` of calls that make errors, and of defaults, in Python source."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            given = {word.arg: _constant(word.value) for word in node.keywords}
            code, type_ = given.get("code"), given.get("type_")
            status = _constant(node.args[0]) if node.args else None
            if isinstance(code, str) and isinstance(status, int):
                yield Code(status, code, str(type_ or "invalid_request_error"))
            elif isinstance(code, str):
                yield Code(500, code, str(type_ or "server_error"))
        elif isinstance(node, ast.FunctionDef):
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                code = _constant(default)
                if argument.arg == "code" and isinstance(code, str):
                    yield Code(500, code, "server_error")


def _constant(node: ast.AST | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def reasons(texts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    _complete("reasons", texts, {str(reason) for reason in contract.Reason})
    return [(f"`{reason}`", texts[reason]["cause"], texts[reason]["do"]) for reason in map(str, contract.Reason)]


def condition_reasons(texts: Mapping[str, Any]) -> list[tuple[str, ...]]:
    _complete("conditions", texts, {str(reason) for reason in ClusterReason})
    return [(f"`{reason}`", texts[reason]["cause"], texts[reason]["do"]) for reason in map(str, ClusterReason)]


def metrics() -> list[tuple[str, ...]]:
    """Families as a scrape of a gateway shows them after one request."""
    return _metric_rows(_families())


def operator_metrics() -> list[tuple[str, ...]]:
    """Families as a scrape of an operator shows them after a round."""
    return _metric_rows(_operator_families())


def cache_metrics() -> list[tuple[str, ...]]:
    """Families as a scrape of a weight cache shows them after a fetch."""
    return _metric_rows(_cache_families())


def _metric_rows(families: Iterable[Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for family in families:
        if family.name.endswith("_created"):
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        names = {label for sample in family.samples for label in sample.labels} - {"le"}
        if not family.samples:
            raise DocsError(f"metric {name} shows no sample; feed it in _families of {Path(__file__).name}")
        shown = ", ".join(f"`{label}`" for label in sorted(names))
        rows.append((f"`{name}`", family.type, shown, family.documentation))
    return rows


def labels(texts: Mapping[str, str]) -> list[tuple[str, ...]]:
    names = {label for family in _families() for sample in family.samples for label in sample.labels} - {"le"}
    _complete("labels", texts, names)
    return [(f"`{name}`", texts[name]) for name in sorted(names)]


def runtime() -> list[tuple[str, ...]]:
    """Tasks that need the same share a row."""
    tasks: dict[tuple[str, int], list[str]] = {}
    for (task, device), size in RUNTIME_BYTES.items():
        tasks.setdefault((device, size), []).append(f"`{task}`")
    return [(", ".join(names), f"`{device}`", show_bytes(size)) for (device, size), names in tasks.items()]


def routes() -> list[tuple[str, ...]]:
    """As the OpenAPI document has them."""
    rows = []
    for path, methods in document("").get("paths", {}).items():
        for method, operation in methods.items():
            needed = "yes" if operation["security"] else "no"
            rows.append((f"`{method.upper()} {path}`", operation["summary"], needed))
    return rows


def _families() -> list[Any]:
    from prometheus_client.parser import text_string_to_metric_families

    fed = Metrics()
    fed.allow(["tenant"], ["model"])
    fed.ended("tenant", "model", "ok", 200, duration_s=1.0, prompt=1, completion=1)
    fed.first_byte("model", 1.0)
    fed.retried("busy")
    fed.rejected("tenant", "queue_full")
    return list(text_string_to_metric_families(fed.render(Now({"model": (0, 0, 0)})).decode()))


def _operator_families() -> list[Any]:
    from prometheus_client.parser import text_string_to_metric_families

    watched = [types.SimpleNamespace(kind=kinds.MODELS, objects={}, problem="")]
    fed = OperatorMetrics(leads=lambda: True, watched=watched, calls=lambda: {("GET", 200): 1})
    fed.round_ended("pool", 1.0)
    said = contract.PoolStatus(pool="default", epoch="e", generation=1, rates={"disk": 1.0})
    conductors = {"default-1": types.SimpleNamespace(status=said)}
    seen = types.SimpleNamespace(objects={}, world=types.SimpleNamespace(conductors=conductors))
    fed.pool("default", seen, Actions())
    fed.gateway_config(0, 0, 0)
    return list(text_string_to_metric_families(fed.text().decode()))


def _cache_families() -> list[Any]:
    from prometheus_client.parser import text_string_to_metric_families

    nothing = Usage(**{name: "" if name == "path" else 0 for name in Usage.__struct_fields__})
    cache = types.SimpleNamespace(usage=lambda: nothing, models=lambda: ())
    node = types.SimpleNamespace(cache=cache, ended={"done": 1})
    verification = types.SimpleNamespace(read_bytes=0, bad=0)
    text = CacheMetrics(node, verification, lambda: {"hub": 1}).text()
    return list(text_string_to_metric_families(text.decode()))


def _complete(section: str, texts: Sequence[str] | Mapping[str, Any], needed: typing.Collection[str]) -> None:
    if missing := sorted(set(needed) - set(texts)):
        raise DocsError(f"no text for {', '.join(missing)}; write it in {TEXTS.name} under {section}")
    if extra := sorted(set(texts) - set(needed)):
        raise DocsError(f"text for {', '.join(extra)}, which the code does not have; take it out of {TEXTS.name}")


if __name__ == "__main__":
    sys.exit(main())
