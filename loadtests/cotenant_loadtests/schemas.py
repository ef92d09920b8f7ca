"""JSON Schemas of what people write and of what is written for them."""

import json
from typing import Any


def schema_text(document: str) -> str:
    """`scenario` or `results`, as indented JSON."""
    return json.dumps(_schema(document), indent=2) + "\n"


def _schema(document: str) -> dict[str, Any]:
    if document == "scenario":
        from cotenant_loadtests.spec import Scenario

        return Scenario.model_json_schema()
    import msgspec

    from cotenant_loadtests.results import Results

    return msgspec.json.schema(Results)
