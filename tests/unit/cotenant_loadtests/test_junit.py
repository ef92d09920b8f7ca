from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
from tests.builders.load_records import answered, run_of, scenario_of, stream

from cotenant_loadtests.junit import junit_xml, write_junit
from cotenant_loadtests.results import Results
from cotenant_loadtests.summary import summarise

NASTY = "<b>&\"'\x00\x1b\ud800]]>Ünï"


def results(late_ms: float = 0.0, tenant: str = "blue") -> Results:
    scenario = scenario_of(slo={"ttft_p99_ms": {tenant: 15}, "success_rate": 0.9}, streams=[stream(tenant=[tenant])])
    return summarise(scenario, run_of([answered(ttft_ms=20, late_ms=late_ms, tenant=tenant)]), "http://127.0.0.1:1")


def suite(some: Results) -> ET.Element:
    found = ET.fromstring(junit_xml(some)).find("testsuite")
    assert found is not None
    return found


def test_there_is_a_case_for_validity_and_one_for_each_limit() -> None:
    found = suite(results())
    assert [case.get("name") for case in found] == ["the run is valid", "ttft_p99_ms of blue", "success_rate"]
    assert (found.get("tests"), found.get("failures"), found.get("skipped")) == ("3", "1", "0")


def test_a_missed_limit_fails_with_its_figure() -> None:
    failures = suite(results()).findall("testcase/failure")
    assert [failure.get("message") for failure in failures] == ["ttft_p99_ms of blue is 20, not at most 15"]


def test_a_run_that_is_not_valid_fails_with_the_reason_and_skips_the_limits() -> None:
    found = suite(results(late_ms=9))
    assert (found.get("failures"), found.get("skipped"), len(found.findall("testcase/skipped"))) == ("1", "2", 2)
    failure = found.find("testcase[@name='the run is valid']/failure")
    assert failure is not None
    assert "9.0 ms late" in (failure.get("message") or "")


def test_an_interrupted_run_is_an_error_and_skips_the_limits() -> None:
    found = suite(msgspec.structs.replace(results(), interrupted=True))
    assert [found.get(count) for count in ("tests", "failures", "errors", "skipped")] == ["3", "0", "1", "2"]
    error = found.find("testcase[@name='the run is valid']/error")
    assert error is not None
    assert error.get("message") == "the run was interrupted before its end"
    messages = {skipped.get("message") for skipped in found.findall("testcase/skipped")}
    assert messages == {"the run was interrupted"}


def test_a_run_that_is_interrupted_and_not_valid_fails_with_the_reason() -> None:
    found = suite(msgspec.structs.replace(results(late_ms=9), interrupted=True))
    assert [found.get(count) for count in ("failures", "errors", "skipped")] == ["1", "0", "2"]


def test_nasty_names_and_reasons_stay_valid_xml(tmp_path: Path) -> None:
    some = results(tenant=NASTY.replace("\ud800", ""))
    broken = msgspec.structs.replace(some.validity, valid=False, reasons=(NASTY,))
    write_junit(tmp_path / "junit.xml", msgspec.structs.replace(some, validity=broken))
    found = ET.parse(tmp_path / "junit.xml").getroot()
    failure = found.find(".//failure")
    assert failure is not None
    assert failure.text == "<b>&\"'\ufffd\ufffd\ufffd]]>Ünï"
    assert any("<b>&" in (case.get("name") or "") for case in found.iter("testcase"))
