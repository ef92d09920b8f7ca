"""Markup, paths and what is taken together before it is drawn."""

import xml.etree.ElementTree as ET

import pytest
from tests.builders.drawn_result_cases import crowded_results
from tests.builders.drawn_results import load_results, quantiles, steps
from tests.builders.load_results import group

from cotenant_loadtests.report import coarse, heat, rates
from cotenant_loadtests.report.cast import cast_of
from cotenant_loadtests.report.markup import Markup, element, escaped, joined
from cotenant_loadtests.report.percentiles import curve
from cotenant_loadtests.report.plot import Axes, band, bars, level, line, marks, path, plot, shade
from cotenant_loadtests.report.scales import linear
from cotenant_loadtests.report.server import brief, metric_families
from cotenant_loadtests.results import Quantiles, Sample, Series

AXES = Axes(linear(100.0), linear(100.0))


def test_text_and_attributes_are_escaped_and_markup_is_not():
    assert element("p", "<b>", Markup("<i></i>"), title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></i></p>'


def test_what_no_page_may_hold_is_replaced():
    assert escaped("a\x00b\ud800c\u202ed\n") == "a\ufffdb\ufffdc\ufffdd\n"
    escaped("a\ud800").encode()


def test_attributes_that_are_none_or_false_are_left_out():
    assert element("rect", x=0, width=None, hidden=False, open=True) == '<rect x="0" open/>'


def test_children_may_be_nested_missing_and_numbers():
    assert joined("a", None, ["b", (Markup("<br>"), 3)]) == "ab<br>3"


def test_a_path_breaks_where_a_value_is_missing_and_shows_lonely_points():
    assert path(AXES, [(0, 0), (50, 100), (60, None), (70, 50), (80, None)]) == "M0 2000L1000 0M1400 1000h0"
    assert path(AXES, []) == ""


def test_a_band_needs_both_of_its_lines():
    low, high = [(0, 0.0), (50, 10.0), (100, None)], [(0, 50.0), (50, 60.0), (100, 70.0)]
    assert 'd="M0 1000 1000 800 1000 1800 0 2000z"' in band(AXES, low, high, "s1").stretched


def test_bars_are_drawn_for_what_is_not_nothing():
    drawn = bars(AXES, [(0, 0.0), (50, 25.0)], 10, "bad").stretched
    assert 'd="M1000 2000V1500H1200V2000z"' in drawn


def test_a_limit_outside_of_the_picture_is_not_drawn():
    assert level(AXES, 500.0, "limit").stretched is None
    assert shade(AXES, 20.0, 20.0).stretched is None


def test_marks_that_have_no_room_beside_one_another_are_one():
    assert marks(AXES, [10.0, 10.1, 10.2, 50.0], "cross", "bad", most=10).fixed.count("<use") == 2


def test_a_plot_is_an_image_with_a_title_and_a_description():
    drawn = plot("a", "Title <x>", "Words", AXES, [line(AXES, [(0, 1.0), (100, 99.0)], "s1", marker="dot")])
    svg = ET.fromstring(drawn)[0]
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-labelledby"] == "a-t a-d"
    assert svg.find("title").text == "Title <x>"


def test_long_runs_are_drawn_with_fewer_points_that_lose_no_failure_and_no_peak():
    results = crowded_results()
    whole = next(series for series in results.timeline.series if series.tenant == "*")
    drawn = coarse.drawn(results.timeline, 6)["*"]
    assert len(drawn.failed) == 100
    assert drawn.bin_s == 6.0
    assert sum(drawn.failed) == sum(whole.failed)
    assert max(drawn.in_flight) == max(whole.in_flight)
    assert max(v for v in drawn.ttft_p99_ms if v) == max(v for v in whole.ttft_p99_ms if v)
    assert sum(drawn.scheduled_per_s) * drawn.bin_s == pytest.approx(sum(whole.scheduled))


@pytest.mark.parametrize(
    ("bins", "requests", "together"),
    [(240, 100_000, 1), (241, 100_000, 2), (240, 300, 5), (240, 0, 10), (1, 0, 1), (3_000_000, 10**9, 20_000)],
)
def test_a_point_has_a_few_requests_and_there_are_neither_too_many_points_nor_too_few(bins, requests, together):
    assert coarse.how_many_together(bins, requests) == together


def test_tenants_that_are_not_named_are_drawn_together_and_nothing_of_them_is_lost():
    timeline = crowded_results().timeline
    others = coarse.others_than(timeline, [f"tenant-{i:02}" for i in range(1, 7)])
    everyone, *tenants = timeline.series
    named = [series for series in tenants if series.tenant <= "tenant-06"]
    assert len(named) == 6
    assert sum(others.scheduled) + sum(sum(series.scheduled) for series in named) == sum(everyone.scheduled)
    assert coarse.others_than(timeline, [series.tenant for series in tenants]) is None


def test_a_curve_ends_at_the_largest_value_where_the_last_of_so_many_stands():
    values = quantiles([float(v) for v in range(1, 101)])
    assert curve(values)[-1] == (99.0, 100.0)
    assert all(p < 99.0 for p, _ in curve(values)[:-1])
    assert curve(quantiles([1.0, 2.0, 3.0, 4.0]))[-1] == (75.0, 4.0)
    assert curve(quantiles([float(v) for v in range(1, 1001)]))[-1] == (pytest.approx(99.9), 1000.0)
    assert curve(Quantiles(count=0)) == []
    assert curve(quantiles([7.0])) == [(0.0, 7.0), (50.0, 7.0)]


def test_the_busiest_tenants_are_drawn_and_the_share_of_the_others_is_known():
    results = crowded_results()
    cast = cast_of(results)
    drawn = [actor.tenant for actor in cast.actors]
    scheduled = {group.tenant: group.scheduled for group in results.tenants}
    assert len(drawn) == 6
    assert min(scheduled[name] for name in drawn) >= max(scheduled[name] for name in scheduled if name not in drawn)
    assert len(cast.panels) == 12
    assert 0 < cast.share_drawn < cast.share_in_panels < 1
    assert len({(actor.kind, actor.marker) for actor in cast.actors}) == 6
    assert cast_of(load_results()).share_drawn == 1.0


def test_the_knee_is_the_last_rate_before_the_first_that_is_not_good_enough():
    assert rates.knee(steps()).rate_per_s == 40.0
    assert rates.knee(steps()[-2:]) is None
    assert rates.knee(steps()[:2]).rate_per_s == 10.0


def test_shades_follow_how_many_times_slower_a_cell_is():
    shades = [heat.slowness(value, 10.0, 1000.0).shade for value in (10.0, 30.0, 100.0, 999.0, 1000.0)]
    assert shades == sorted(shades)
    assert (shades[0], shades[-1]) == (0, heat.SHADES - 1)
    assert heat.slowness(105.0, 100.0, 110.0).shade == 0
    assert heat.slowness(None, 1.0, 2.0).text == "–"


def test_success_in_the_map_is_what_succeeded_however_slowly():
    some = [group(scheduled=10, succeeded=9, good=2), group(scheduled=30, succeeded=30, good=0)]
    assert heat.success_rate(some) == 39 / 40
    assert heat.success_rate([group(scheduled=0, succeeded=0)]) is None


def test_shades_of_success_begin_below_three_nines():
    assert [heat.failing(rate).shade for rate in (1.0, 0.9991, 0.995, 0.97, 0.9, 0.7, 0.1)] == [0, 0, 1, 2, 3, 4, 5]


def test_counters_of_the_server_appear_as_rates_and_what_stays_zero_not_at_all():
    samples = [
        Sample(at_s=1.0, values={'a_total{m="x"}': 3.0, "up": 1.0, "idle": 0.0}),
        Sample(at_s=2.0, values={'a_total{m="x"}': 5.0, 'rate(a_total{m="x"})': 2.0, "up": 1.0, "idle": 0.0}),
    ]
    assert metric_families(samples) == {
        "up": [("up", "up")],
        "a_total per second": [('rate(a_total{m="x"})', 'm="x"')],
    }


def test_points_that_mostly_failed_have_no_latency_to_draw():
    series = Series(
        tenant="*",
        scheduled=(4, 4, 4, 0),
        succeeded=(4, 2, 1, 0),
        failed=(0, 2, 3, 0),
        in_flight=(0, 0, 0, 0),
        completion_tokens=(0, 0, 0, 0),
        ttft_p50_ms=(10.0, 20.0, 1.0, None),
        ttft_p99_ms=(10.0, 20.0, 1.0, None),
    )
    drawn = coarse.coarse(series, 0.5, 1)
    assert drawn.mostly_failed == [False, False, True, False]
    assert drawn.telling(drawn.ttft_p50_ms) == [10.0, 20.0, None, None]


def test_a_legend_says_what_tells_series_apart():
    one = [("a", 'code="200",model="echo-01"'), ("b", 'code="200",model="echo-02"')]
    assert brief(one) == ["echo-01", "echo-02"]
    two = [("a", 'code="200",model="m",tenant="x"'), ("b", 'code="503",model="m"')]
    assert brief(two) == ["code 200, tenant x", "code 503"]
    assert brief([("a", "echo-01"), ("b", "echo-02")]) == ["echo-01", "echo-02"]
    assert brief([("a", 'model="m"')]) == ['model="m"']
