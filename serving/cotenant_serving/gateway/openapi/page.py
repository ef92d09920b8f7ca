"""The OpenAPI document as one HTML page: no script, nothing from another server, so it works without internet."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of the page."""
_CONTINUED = " \\\n"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --get: #0a7d4f; --post: #3758d6; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 2rem 1rem 6rem; }
h1 { margin: 0 0 .3rem; } h2 { margin: 2.2rem 0 .6rem; }
code, pre { font: .88em/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .4rem 0; }
summary { padding: .5rem .8rem; cursor: pointer; } details > div { padding: 0 .9rem .8rem; }
b.get, b.post { display: inline-block; width: 3.2rem; font-size: .78rem; letter-spacing: .05em; }
b.get { color: var(--get); } b.post { color: var(--post); } summary span { opacity: .75; margin-left: .6rem; }
h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid var(--line); padding: .25rem .6rem .25rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
"""


def page(document: Mapping[str, Any]) -> str:
    """The whole page."""
    info = document["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <small>{escape(info['version'])}</small></h1>"
        f"<p>{escape(info['description'])}</p>"
        "<p>Keys: <code>Authorization: Bearer KEY</code> or <code>x-api-key: KEY</code>. For programs: "
        '<a href="openapi.json">openapi.json</a>.</p>'
        f"{''.join(_sections(document))}</body></html>"
    )


def _sections(document: Mapping[str, Any]) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2>"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield _operation(document, path, method, operation)


def _operation(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [_curl(path, method, operation)]
    parameters = operation.get("parameters", ())
    if parameters:
        rows = (
            (one["name"], f"in {one['in']}; {_type(document, one['schema'])}", one["description"])
            for one in parameters
        )
        parts.append(f"<h3>Parameters</h3>{_table(rows)}")
    if "requestBody" in operation:
        for media, content in operation["requestBody"]["content"].items():
            parts.append(f"<h3>Body: {escape(media)}</h3>{_schema(document, content['schema'])}")
    parts.append(f"<h3>Answers</h3>{_table(_answers(document, operation))}")
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><b class="{method}">{method.upper()}</b>'
        f"<code>{escape(path)}</code><span>{escape(operation['summary'])}</span></summary>"
        f"<div>{''.join(parts)}</div></details>"
    )


def _curl(path: str, method: str, operation: Mapping[str, Any]) -> str:
    lines = [f"curl -s http://127.0.0.1:8080{path}"]
    if operation["security"]:
        lines.append('  -H "authorization: Bearer $KEY"')
    if method == "post":
        example = operation["requestBody"]["content"]["application/json"]["example"]
        lines.append(f"  -d '{json.dumps(example)}'")
    return f"<pre>{escape(_CONTINUED.join(lines))}</pre>"


def _answers(document: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for status, given in operation["responses"].items():
        answer = _resolved(document, given)
        kinds = [
            f"{media}: {_type(document, content['schema'])}" if media == "application/json" else media
            for media, content in answer["content"].items()
        ]
        yield status, "; ".join(kinds), answer["description"]


def _schema(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Its fields, or what it says about itself."""
    found = _resolved(document, schema)
    words = f"<p>{escape(found['description'])}</p>" if "description" in found else ""
    if "properties" in found:
        return words + _table(_fields(document, found))
    return words + "<p>or</p>".join(_schema(document, one) for one in found.get("anyOf", ()))


def _fields(
    document: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        shown = f"{prefix}{name}"
        yield f"{shown}{'*' if name in required else ''}", _type(document, field), field.get("description", "")
        inner = _resolved(document, field)
        suffix = "."
        if "items" in inner:
            inner, suffix = _resolved(document, inner["items"]), "[]."
        if "properties" in inner:
            yield from _fields(document, inner, shown + suffix)


def _type(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = [_type(document, one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in schema or "enum" in schema:
        values = [schema["const"]] if "const" in schema else [one for one in schema["enum"] if one is not None]
        return " or ".join(json.dumps(one) for one in values)
    kinds = schema.get("type", "anything")
    kind = " or ".join(one for one in kinds if one != "null") if isinstance(kinds, list) else str(kinds)
    if kind == "array" and "items" in schema:
        kind = f"array of {_type(document, schema['items'])}"
    limits = [f"{word} {schema[name]}" for name, word in _LIMITS.items() if name in schema]
    return f"{kind} ({', '.join(limits)})" if limits else kind


_LIMITS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "minItems": "at least",
    "maxItems": "at most",
    "minLength": "length from",
    "maxLength": "length to",
}


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    _, part, section, name = schema["$ref"].split("/")
    found: Mapping[str, Any] = document[part][section][name]
    return found


def _table(rows: Iterator[tuple[str, str, str]]) -> str:
    cells = (f"<tr><td><code>{escape(a)}</code><td>{escape(b)}<td>{escape(c)}</tr>" for a, b, c in rows)
    return f"<table>{''.join(cells)}</table>"
