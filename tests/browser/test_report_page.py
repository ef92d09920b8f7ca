"""The report of a load test in a real browser: whole, quiet, readable on a phone, in the dark, on paper, by ear."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.builders import chromium
from tests.builders import drawn_result_cases as odd
from tests.builders.drawn_results import load_results, passed_results, short_results
from tests.builders.found_extras import every_extra, nothing_found

from cotenant_loadtests.report import write_report
from cotenant_loadtests.results import Results

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PROGRAM = chromium.chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium; install Debian's chromium or set $CHROMIUM"),
]
RUNS: dict[str, Callable[[], Results]] = {
    "missed": load_results, "passed": passed_results, "not-valid": odd.not_valid_results,
    "interrupted": odd.interrupted_results, "crowded": odd.crowded_results, "hostile": odd.hostile_results,
    "comparisons": lambda: short_results(extras=every_extra()),
    "cut-short": lambda: short_results(extras=nothing_found(), interrupted=True),
    "everything": lambda: short_results(
        extras=every_extra(), interrupted=True, verdict="not_valid",
        validity=odd.not_valid_results().validity
    ),
    "empty": odd.empty_results, "one-request": odd.one_request_results, "all-failed": odd.all_failed_results,
}  # fmt: skip
PICTURES = (
    *("t-requests", "t-flight", "t-tokens", "t-ttft", "p-ttft", "p-itl", "p-tpot", "p-e2e", "m-0", "m-3"),
    *("g-0", "gt-0", "s-service-0", "l-late", "l-cpu-0", "v-table", "v-0"),
)
OF_COMMANDS = (
    "x-ratio-0",
    "x-good",
    "x-ttft",
    "x-service",
    "x-light-0",
    "x-model-0",
    "x-wake-0",
    "x-soak-0",
    "x-soak-5",
)
AREAS = """() => [...document.querySelectorAll('svg[role=img]')].map(svg => {
  const box = svg.getBoundingClientRect();
  return [svg.getAttribute('aria-labelledby').split('-t ')[0], box.width, box.height];
})"""
OPEN_ALL = "document.querySelectorAll('details').forEach(details => details.open = true)"
OPEN_SMALL = """() => document.querySelectorAll('details').forEach(details => {
  details.open = details.querySelectorAll('td').length <= 24;
})"""
"""axe looks at each cell for long, and one row is as good as a hundred."""
WIDTH = "document.documentElement.scrollWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    assert PROGRAM is not None
    with chromium.started(PROGRAM) as browser:
        yield browser


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    for name, build in RUNS.items():
        write_report(folder / f"{name}.html", build())
    return {name: folder / f"{name}.html" for name in RUNS}


@pytest.fixture(scope="module")
def kept() -> Path:
    return chromium.artifacts("report")


@pytest.mark.parametrize("name", list(RUNS))
def test_a_report_asks_for_nothing_complains_of_nothing_and_fits_a_phone(name: str, browser, reports):
    with chromium.visit(browser, reports[name], width=360) as seen:
        assert seen.page.evaluate(WIDTH) == 360
        seen.page.evaluate(OPEN_ALL)
        assert seen.page.evaluate(WIDTH) == 360
        assert seen.requests == [reports[name].as_uri()]
        assert seen.complaints == []
        assert all(width > 0 and height > 0 for _, width, height in seen.page.evaluate(AREAS))


@pytest.mark.parametrize("name", ["missed", "passed", "all-failed"])
def test_what_was_measured_and_its_limit_are_seen_on_a_phone_without_scrolling(name: str, browser, reports):
    with chromium.visit(browser, reports[name], width=390) as seen:
        wide = seen.page.evaluate(
            "[...document.querySelectorAll('.snug')].map(one => one.scrollWidth - one.clientWidth)"
        )
        assert wide
        assert set(wide) == {0}


def test_every_picture_is_there_with_room_to_be_seen(browser, reports):
    with chromium.visit(browser, reports["missed"]) as seen:
        areas = {slug: (width, height) for slug, width, height in seen.page.evaluate(AREAS)}
        assert set(PICTURES) <= set(areas)
        assert all(areas[slug][0] > 100 and areas[slug][1] >= 14 for slug in PICTURES)
        assert seen.page.locator("table.heat").count() == 2
        lines = seen.page.evaluate("[...document.querySelectorAll('path.line')].map(line => line.getTotalLength())")
        assert len(lines) > 20
        assert all(length > 0 for length in lines)


def test_every_picture_of_the_commands_beside_run_is_there(browser, reports):
    with chromium.visit(browser, reports["comparisons"]) as seen:
        areas = {slug: (width, height) for slug, width, height in seen.page.evaluate(AREAS)}
        assert set(OF_COMMANDS) <= set(areas)
        assert all(areas[slug][0] > 100 and areas[slug][1] >= 14 for slug in OF_COMMANDS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_of_the_page_are_kept_in_both_schemes(scheme: str, browser, reports, kept):
    papers = set()
    for name, width in (
        ("missed", 1200),
        ("missed", 360),
        ("not-valid", 1200),
        ("comparisons", 1200),
    ):
        with chromium.visit(browser, reports[name], width=width, scheme=scheme) as seen:
            picture = kept / f"{name}-{width}-{scheme}.png"
            seen.page.screenshot(path=picture, full_page=True)
            assert picture.stat().st_size > 10_000
            papers.add(paper(seen.page))
    assert papers == {"rgb(255, 255, 255)"} if scheme == "light" else papers == {"rgb(17, 21, 26)"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["everything", "one-request"])
def test_axe_finds_nothing_serious(name: str, scheme: str, browser, reports):
    from axe_playwright_python.sync_playwright import Axe

    with chromium.visit(browser, reports[name], scheme=scheme) as seen:
        if name == "everything":
            seen.page.evaluate(OPEN_SMALL)
        found = Axe().run(seen.page).response["violations"]
        assert [one for one in found if one["impact"] in ("serious", "critical")] == []


def test_on_paper_the_page_is_light_whole_and_has_its_tables(browser, reports, kept):
    with chromium.visit(browser, reports["missed"], width=700, scheme="dark") as seen:
        seen.page.pdf(path=kept / "missed.pdf", prefer_css_page_size=True)
        assert (kept / "missed.pdf").read_bytes().startswith(b"%PDF")
        seen.page.emulate_media(media="print", color_scheme="dark")
        assert paper(seen.page) == "rgb(255, 255, 255)"
        assert seen.page.evaluate(WIDTH) <= 700
        shown = (
            "[...document.querySelectorAll('section > details')].map(one => one.lastElementChild.checkVisibility())"
        )
        assert seen.page.evaluate(shown).count(False) == 0
        assert seen.page.locator("table", has_text="Each tenant; latencies in ms").is_visible()


def test_nothing_that_a_server_or_a_scenario_says_becomes_markup(browser, reports):
    with chromium.visit(browser, reports["hostile"]) as seen:
        assert seen.page.locator("script, img, iframe, a, object, form").count() == 0
        assert "<script src=//evil.example/x.js>" in seen.page.locator("h1").inner_text()
        assert seen.complaints == []


def test_the_policy_lets_nothing_be_fetched_even_if_markup_got_in(browser, reports):
    add = """() => new Promise(found => {
      document.addEventListener('securitypolicyviolation', event => found(event.effectiveDirective));
      document.body.insertAdjacentHTML('beforeend', '<img src="http://127.0.0.1:9/x.png">');
    })"""
    with chromium.visit(browser, reports["passed"]) as seen:
        assert seen.page.evaluate(add) == "img-src"


def paper(page: "Page") -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")
