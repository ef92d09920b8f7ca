"""The report as text: what it says, what it must never hold, and that odd runs draw too."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from tests.builders import drawn_result_cases as odd
from tests.builders.drawn_results import load_results, passed_results, short_results
from tests.builders.found_extras import every_extra, nothing_found

from cotenant_loadtests.record import MEANINGS, Outcome
from cotenant_loadtests.report import render_report, write_report

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
    assert "success_rate of all requests is 0 %, at least 99.0 %" in text
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


def test_a_report_is_written_whole_over_one_that_was_there(tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text("before")
    write_report(path, load_results())
    assert path.read_text("utf-8").startswith("<!doctype html>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
