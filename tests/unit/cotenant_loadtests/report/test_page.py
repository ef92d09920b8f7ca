"""The report as text: what it says, what it must never hold, and that odd runs draw too."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from msgspec.structs import replace
from tests.builders import drawn_result_cases as odd
from tests.builders.drawn_results import load_results, passed_results, short_results, slo_result
from tests.builders.found_extras import cold_starts, comparison, every_extra, nothing_found, phases
from tests.builders.load_results import group

from cotenant_loadtests.extras import Phase
from cotenant_loadtests.record import MEANINGS, Outcome
from cotenant_loadtests.report import render_report, write_report
from cotenant_loadtests.results import Results

RUNS = {
    "ordinary": load_results, "passed": passed_results, "not valid": odd.not_valid_results,
    "interrupted": odd.interrupted_results, "crowded": odd.crowded_results, "hostile": odd.hostile_results,
    "comparisons": lambda: short_results(extras=every_extra()),
    "comparisons cut short": lambda: short_results(extras=nothing_found()),
    "empty": odd.empty_results, "one request": odd.one_request_results, "all failed": odd.all_failed_results,
}  # fmt: skip
VOID = ("meta", "link", "br", "path", "line", "rect", "circle", "use")


class Outline(HTMLParser):
    """Checks that tags nest; gathers text, headings, ids and every attribute."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: render_report(build()) for name, build in RUNS.items()}


@pytest.mark.parametrize("name", list(RUNS))
def test_every_run_is_a_page_that_nests_with_headings_in_order_and_ids_once(name: str, pages):
    page = Outline(pages[name])
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert len(page.ids) == len(set(page.ids))
    referred = {
        part for attr, value in page.attributes if attr == "aria-labelledby" for part in (value or "").split()
    }
    assert referred <= set(page.ids)


@pytest.mark.parametrize("name", list(RUNS))
def test_no_page_names_an_address_or_has_a_script(name: str, pages):
    page = Outline(pages[name])
    assert {"script", "img", "iframe", "a", "form", "object"}.isdisjoint(page.tags)
    assert not [n for n, _ in page.attributes if n.startswith("on") or n in ("src", "srcset", "style", "action")]
    links = [value for n, value in page.attributes if n in ("href", "xlink:href")]
    assert all(value.startswith("#") or value == "data:," for value in links)
    assert not re.search(r"url\(|@import|@font-face", pages[name])
    assert "default-src 'none'" in dict(page.attributes)["content"] or "Content-Security-Policy" in pages[name]


@pytest.mark.parametrize("name", list(RUNS))
def test_no_page_shows_what_is_not_a_number(name: str, pages):
    assert not re.search(r"\b(nan|inf|None)\b", Outline(pages[name]).text)
    assert not re.search(r'="[^"]*\b(nan|inf|None)\b[^"]*"', pages[name])


@pytest.mark.parametrize("name", list(RUNS))
def test_a_page_is_small_enough_to_be_sent(name: str, pages):
    assert len(pages[name].encode()) < 1_000_000


def test_the_first_words_are_the_missed_slos_with_their_figures(pages):
    text = Outline(pages["ordinary"]).text
    assert "Missed 1 of 3 SLOs" in text
    assert "missed: ttft_p99_ms of ads is 812 ms, limit 500 ms" in text
    assert text.index("812 ms") < text.index("What was run")


def test_a_rate_that_is_too_low_is_missed_from_below():
    text = Outline(render_report(odd.all_failed_results())).text
    assert "success_rate of all requests is 0 %, must be at least 99.0 %" in text
    assert "ttft_p99_ms of search: more than 1 % of its requests failed, limit 500 ms" in text


def test_a_run_that_is_not_valid_says_so_first_with_its_reasons_and_what_to_do(pages):
    text = Outline(pages["not valid"]).text
    assert text.index("NOT VALID") < text.index("18.4 ms") < text.index("processes: 3") < text.index("What was run")


def test_an_interrupted_run_says_how_far_it_came(pages):
    assert "Interrupted after 24.2 s of 1 min" in Outline(pages["interrupted"]).text


def test_passed_is_said_of_runs_with_slos_only(pages):
    assert "Passed: all 2 SLOs hold" in Outline(pages["passed"]).text
    assert "Measured; no SLO was set" in Outline(pages["one request"]).text


def test_what_is_left_out_of_pictures_is_said(pages):
    text = Outline(pages["crowded"]).text
    assert "The 6 busiest of 50 tenants" in text
    assert "The 12 busiest of 50 tenants" in text
    assert "the 11 busiest of 50 tenants and the 15 busiest of 100 models" in text
    assert "more rows in results.json" in text


def test_the_whole_scenario_is_in_the_page(pages):
    text = Outline(pages["ordinary"]).text
    assert "name: noisy-neighbour" in text
    assert "warmup_s: 5" in text


def test_every_outcome_of_a_request_has_its_meaning():
    assert list(MEANINGS) == list(get_args(Outcome))


def test_a_comparison_says_in_words_whether_a_difference_is_shown(pages):
    text = Outline(pages["comparisons"]).text
    assert "B is 12 % lower: better" in text
    assert "B is 30 % higher: worse" in text
    assert text.count("no difference shown") >= 2
    assert "too few rounds to say" in text


def test_what_each_command_found_is_drawn_before_the_rest(pages):
    text = Outline(pages["comparisons"]).text
    for words in (
        "36 /s keep the SLOs",
        "2.42 times",
        "Where the time goes",
        "rises 24 ms per hour (22 ms to 26 ms)",
    ):
        assert text.index(words) < text.index("What was run")
    assert "no drift shown" in text


def test_the_verdict_of_a_command_is_on_what_it_was_asked():
    extras = every_extra()

    def first_screen(name: str, verdict: str) -> str:
        text = Outline(render_report(short_results(extras={name: extras[name]}, verdict=verdict))).text
        assert "missed: ttft_p99_ms of ads" not in text.partition("What was run")[0] or name == "fairness"
        return text.partition("What was run")[0]

    assert "Missed 1 of 2 conditions" in first_screen("compare", "missed")
    assert "tpot_p50_ms > 1.1 is shown" in first_screen("compare", "missed")
    assert "Keeps its SLOs at 36 /s" in first_screen("find-capacity", "passed")
    assert "Missed 1 of 3 SLOs" in first_screen("fairness", "missed")


def test_a_command_says_which_of_its_runs_the_rest_is_about():
    page = render_report(short_results(extras={"soak": every_extra()["soak"]}))
    assert "The last segment; the command's own figures stand above" in Outline(page).text


def test_figures_of_another_shape_are_told_and_the_rest_is_drawn():
    text = Outline(render_report(short_results(extras={"soak": {"hours": "many"}, "other": 1}))).text
    assert "The figures of soak are not of the shape that this version knows" in text
    assert "What was run" in text


def with_failures_of_bob() -> Results:
    """Passed, though a tenant without an SLO failed throughout the second half of the run."""
    results = odd.one_request_results()
    alice, bob = (group(tenant=name, failed=count, scheduled=10) for name, count in (("alice", 0), ("bob", 7)))
    slo = (slo_result("success_rate", "alice", limit=0.9, value=1.0),)
    slo = tuple(replace(one, passed=True) for one in slo)
    total = replace(bob, tenant="*", scheduled=20)
    return replace(results, verdict="passed", slo=slo, total=total, tenants=(alice, bob))


def test_a_run_that_passed_although_requests_failed_says_why():
    text = Outline(render_report(with_failures_of_bob())).text
    verdict = text.partition("What was run")[0]
    assert "Passed: the SLO holds" in verdict
    assert "7 of 20 requests failed: 7 of bob. The scenario sets no limit on this tenant" in verdict
    assert "none set" in text
    assert "1 of 1 held" in text
    everyone = replace(with_failures_of_bob(), slo=(replace(slo_result("success_rate", "*"), passed=True),))
    assert "sets no limit" not in Outline(render_report(everyone)).text


def test_a_run_that_measured_nothing_shows_no_figure_of_it():
    empty = replace(odd.empty_results(), interrupted=True)
    text = Outline(render_report(empty)).text
    assert "nothing was measured until then" in text
    assert "Nothing was measured: no request was scheduled" in text
    assert "would be missed" not in text
    assert "0 of 0" not in text
    assert "100 %" not in text


def test_a_good_request_is_said_to_be_one_by_the_limits_of_the_scenario():
    results = odd.one_request_results()
    assert "good: succeeded" in Outline(render_report(replace(results, scenario={}))).text
    limited = replace(results, scenario={"goodput": {"ttft_ms": 3000.0, "tpot_ms": 50.0, "e2e_ms": None}})
    assert "good: succeeded, TTFT ≤ 3,000 ms, TPOT ≤ 50 ms" in Outline(render_report(limited)).text


def test_the_hash_of_the_plan_is_short_above_and_whole_with_the_scenario(pages):
    text = Outline(pages["ordinary"]).text
    above, _, below = text.partition("Key figures")
    assert "4be1c0ffee4b" in above
    assert "4be1c0ffee" * 6 not in above
    assert "4be1c0ffee" * 6 + "0123" in below


def test_a_comparison_of_too_few_rounds_has_no_tick():
    few = replace(comparison(), rounds=2, conditions=())
    page = render_report(short_results(extras={"compare": msgspec.to_builtins(few)}, verdict="passed"))
    verdict = Outline(page).text.partition("What was run")[0]
    assert "Too few rounds: nothing is shown" in verdict
    assert "2 rounds are too few for an interval of 95 %" in verdict
    assert 'class="verdict unsure"' in page
    assert 'class="verdict passed"' not in page


def test_the_bar_of_a_cold_start_ends_with_the_first_token():
    wake = replace(cold_starts().wakes[0], phases=(*phases(1.0), Phase(name="rest", from_ms=900.0, to_ms=99_000.0)))
    found = replace(cold_starts(), wakes=(wake,))
    with_rest = render_report(short_results(extras={"coldstart": msgspec.to_builtins(found)}))
    found = replace(found, wakes=(replace(wake, phases=phases(1.0)),))
    assert with_rest == render_report(short_results(extras={"coldstart": msgspec.to_builtins(found)}))


def test_a_report_is_written_whole_over_one_that_was_there(tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text("before")
    write_report(path, load_results())
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
