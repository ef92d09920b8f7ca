"""Findings → rows and documents. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cotenant_operator.doctor.checks import Finding

_LONG = 70


def finding_rows(findings: Sequence[Finding], *, wide: bool) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """What is well is cut to fit a line; `wide` shows it whole."""
    columns = ("STATUS", "CHECK", "FINDING")
    return columns, [
        (finding.level, finding.check, finding.message if wide or finding.level != "ok" else _cut(finding.message))
        for finding in findings
    ]


def fixes(findings: Sequence[Finding]) -> list[str]:
    """What to do, problems first."""
    return [
        f"{finding.check}: {finding.fix}"
        for level in ("problem", "warning")
        for finding in findings
        if finding.level == level and finding.fix
    ]


def findings_document(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "findings": [asdict(finding) for finding in findings],
        "problems": sum(finding.level == "problem" for finding in findings),
        "warnings": sum(finding.level == "warning" for finding in findings),
    }


def _cut(text: str) -> str:
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
