"""docs/security.md names a test for each threat; each is there, and each row has one."""

import ast
import re
from pathlib import Path

import pytest

from cotenant_serving.engine.chat_template import TEMPLATE_TIMEOUT_S

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
ROWS = PAGE.partition("| Threat |")[2].partition("\n\n")[0].splitlines()[2:]


def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("file", "name"), NAMED.findall(PAGE))
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    assert name in functions_of(file)


def test_each_threat_has_a_defence_and_a_test_that_shows_it() -> None:
    assert len(ROWS) > 25
    assert [row for row in ROWS if not NAMED.search(row.split("|")[4])] == []
    assert {part for part in ("Identity", "Tenancy", "Request path", "Engines", "Model files", "Ray", "Secrets",
                             "Supply chain", "Denial by a tenant")
            if f"**{part}**" not in PAGE} == set()  # fmt: skip


def test_the_bound_of_templates_is_the_code_s() -> None:
    assert PAGE.count(f"{TEMPLATE_TIMEOUT_S:.0f} s for each rendering") == 1
    assert f"for {TEMPLATE_TIMEOUT_S:.0f} s at most" in PAGE


def test_every_file_of_answers_to_published_attacks_names_them() -> None:
    """A CVE, an advisory or an incident in each file of `tests/cves`."""
    incident = re.compile(r"CVE-\d{4}-\d+|GHSA-|PYSEC-|LiteLLM|TorchServe|safetensors|vLLM|zip-slip", re.IGNORECASE)
    answered = set()
    for path in sorted((ROOT / "tests" / "cves").glob("test_*.py")):
        text = path.read_text()
        assert incident.search(text), path.name
        answered |= set(re.findall(r"CVE-\d{4}-\d+", text))
    assert len(answered) >= 40, sorted(answered)
