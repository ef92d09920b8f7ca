"""The chart's schema and table come from values.yaml alone."""

import json

import pytest
from scripts import chart_values
from scripts.chart_values import ValuesError

TEXT = """
# A section; this is not a value.

gateway:
  # Pods.
  # On two lines.
  # @schema {minimum: 1}
  replicas: 2
  # What they may use.
  # @type resources
  resources:
    requests: {cpu: 1}
  # Which.
  # @schema {enum: [One, Two]}
  kind: One
"""


def test_the_schema_in_the_chart_is_the_one_that_its_values_make() -> None:
    assert chart_values.schema_text(chart_values.values()) == chart_values.SCHEMA.read_text()
    assert chart_values.main(["--check"]) == 0


def test_a_comment_is_the_description_and_a_default_the_type() -> None:
    replicas, resources, kind = chart_values.values(TEXT)

    assert (replicas.name, replicas.default, replicas.description) == ("gateway.replicas", 2, "Pods. On two lines.")
    assert replicas.schema == {"description": "Pods. On two lines.", "type": "integer", "minimum": 1}
    assert resources.default == {"requests": {"cpu": 1}}
    assert resources.schema["properties"].keys() == {"requests", "limits"}
    assert [value.type for value in (replicas, resources, kind)] == [
        "integer from 1",
        "requests and limits",
        "`One` or `Two`",
    ]


def test_a_section_knows_its_values_and_no_other() -> None:
    schema = json.loads(chart_values.schema_text(chart_values.values(TEXT)))

    section = schema["properties"]["gateway"]
    assert section["additionalProperties"] is False
    assert section["propertyNames"] == {"enum": ["kind", "replicas", "resources"]}
    assert "global" in schema["properties"], "helm gives it to every chart that another one contains"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n  b: 1\n", "a.b has no description: write a comment above it"),
        ("# Text.\n# @type quanity\na: 1Gi\n", "a: there is no '@type quanity'; types: quantity"),
        ("# Text.\na: {}\n", "a is {}: say its type with a `# @type` line"),
    ],
)
def test_a_value_that_says_too_little_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValuesError) as refusal:
        chart_values.values(text)

    assert said in str(refusal.value)
