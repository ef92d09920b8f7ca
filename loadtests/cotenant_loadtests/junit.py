"""The gate as JUnit XML for CI: a test case for each limit of `slo`, and one for whether the run is valid.

A limit that was missed is a failure with its figure. In a run that is not valid that test case fails, and the limits
are skipped: they have neither passed nor missed.
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
    valid = results.validity.valid
    missed = sum(not slo.passed for slo in results.slo) if valid else 0
    suite = ET.Element(
        "testsuite",
        name=_text(f"cotenant loadtest {results.name}"),
        tests=str(1 + len(results.slo)),
        failures=str(missed if valid else 1),
        errors="0",
        skipped=str(0 if valid else len(results.slo)),
        timestamp=_text(results.started[:19]),
        time=f"{results.duration_s:.3f}",
    )
    suite.append(_validity_case(results))
    suite.extend(_slo_case(results, slo) for slo in results.slo)
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return bytes(ET.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _validity_case(results: Results) -> ET.Element:
    case = _case(results, "the run is valid")
    if not results.validity.valid:
        reasons = [_text(reason) for reason in results.validity.reasons]
        failure = ET.SubElement(case, "failure", type="not_valid", message="; ".join(reasons))
        failure.text = "\n".join(reasons)
    return case


def _slo_case(results: Results, slo: SloResult) -> ET.Element:
    case = _case(results, place(slo))
    if not results.validity.valid:
        ET.SubElement(case, "skipped", message="the run is not valid")
    elif not slo.passed:
        ET.SubElement(case, "failure", type="missed", message=_text(sentence(slo)))
    return case


def _case(results: Results, name: str) -> ET.Element:
    return ET.Element("testcase", classname=_text(f"loadtest.{results.name}"), name=_text(name))


def _text(words: str) -> str:
    """Without the characters that XML cannot have even escaped."""
    return _NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", words)
