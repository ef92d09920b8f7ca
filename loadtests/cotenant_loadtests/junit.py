"""The gate as JUnit XML for CI: a test case for each limit of `slo`, and one for whether the run is valid.

A limit that was missed is a failure with its figure. In a run that is not valid that test case fails, in one that was
interrupted it is an error, and the limits are skipped: they have neither passed nor missed.
"""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

from cotenant_loadtests.gate import place, sentence
from cotenant_loadtests.results import Results, SloResult

_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: Path, results: Results) -> None:
    path.write_bytes(junit_xml(results))


def junit_xml(results: Results) -> bytes:
    why_skipped = _why_skipped(results)
    suite = ET.Element("testsuite", name=_text(f"cotenant loadtest {results.name}"))
    suite.append(_validity_case(results))
    suite.extend(_slo_case(results, slo, why_skipped) for slo in results.slo)
    counts = {kind: len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "error", "skipped")}
    suite.attrib.update(
        tests=str(len(suite)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        timestamp=_text(results.started[:19]),
        time=f"{results.duration_s:.3f}",
    )
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _why_skipped(results: Results) -> str | None:
    """Why the limits are not judged; None when they are."""
    if not results.validity.valid:
        return "the run is not valid"
    return "the run was interrupted" if results.interrupted else None


def _validity_case(results: Results) -> ET.Element:
    case = _case(results, "the run is valid")
    if not results.validity.valid:
        reasons = [_text(reason) for reason in results.validity.reasons]
        failure = ET.SubElement(case, "failure", type="not_valid", message="; ".join(reasons))
        failure.text = "\n".join(reasons)
    elif results.interrupted:
        ET.SubElement(case, "error", type="interrupted", message="the run was interrupted before its end")
    return case


def _slo_case(results: Results, slo: SloResult, why_skipped: str | None) -> ET.Element:
    case = _case(results, place(slo))
    if why_skipped:
        ET.SubElement(case, "skipped", message=why_skipped)
    elif not slo.passed:
        ET.SubElement(case, "failure", type="missed", message=_text(sentence(slo)))
    return case


def _case(results: Results, name: str) -> ET.Element:
    return ET.Element("testcase", classname=_text(f"loadtest.{results.name}"), name=_text(name))


def _text(words: str) -> str:
    """Without the characters that XML cannot have even escaped."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", words)
