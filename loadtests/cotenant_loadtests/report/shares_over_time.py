"""`fairness`: who was served how much, second by second, and what light tenants felt beside the others and alone."""

from collections.abc import Sequence

from cotenant_loadtests.extras import FairnessFound, LightTenant, TenantService
from cotenant_loadtests.report.cast import MOST_LINES, Cast, legend
from cotenant_loadtests.report.coarse import MOST_BINS, merged
from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import MARKERS, Axes, line, percent_of, plot
from cotenant_loadtests.report.rows import axis, row, rows
from cotenant_loadtests.report.scales import Scale, clock, fitting, linear, time
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.timelines import log_note
from cotenant_loadtests.report.wording import duration, milliseconds, number, percent, plural, ratio, whole

MOST_LIGHT = 16


def shares_over_time(found: FairnessFound, cast: Cast) -> Markup:
    jain = f"Jain's index is {number(found.jain)}" if found.jain is not None else "No two tenants ever competed"
    return section(
        "x-fairness",
        "Fairness",
        _service(found, cast),
        _light(found.light) if found.light else None,
        lead=f"{jain}; {duration(found.backlogged_s)} in which several tenants had requests waiting or running.",
    )


def _service(found: FairnessFound, cast: Cast) -> Markup:
    shown = sorted(found.tenants, key=lambda one: (-sum(one.completion_tokens), one.tenant))[:MOST_LINES]
    kinds = {actor.tenant: (actor.kind, actor.marker) for actor in cast.actors}
    spare = [(f"s{i + 1}", MARKERS[i]) for i in range(MOST_LINES)]
    spare = [one for one in spare if one not in {kinds.get(tenant.tenant) for tenant in shown}]
    styles = [(one, *(kinds.get(one.tenant) or spare.pop())) for one in shown]
    together = max(1, -(-max((len(one.completion_tokens) for one in shown), default=1) // MOST_BINS))
    width_s = found.bin_s * together
    rates = {one.tenant: [t / width_s for t in merged(one.completion_tokens, together, sum)] for one in shown}
    axes = Axes(
        time(width_s * max((len(rate) for rate in rates.values()), default=1)),
        linear(max((value for rate in rates.values() for value in rate), default=1.0)),
    )
    layers = [
        line(axes, [((i + 0.5) * width_s, value) for i, value in enumerate(rates[one.tenant])], kind, marker=marker)
        for one, kind, marker in styles
    ]
    more = (
        f" The {len(shown)} most served of {len(found.tenants)} tenants." if len(shown) < len(found.tenants) else ""
    )
    return picture(
        "Service over time",
        f"Completion tokens per second, each point {number(width_s)} s.{more}",
        plot("x-service", "Tokens per second of each tenant", _words(found.tenants), axes, layers),
        legend=legend([(kind, marker, _label(one)) for one, kind, marker in styles]),
        table=joined(_service_table(found.tenants), _bins_table([one for one, _, _ in styles], rates, width_s)),
    )


def _label(one: TenantService) -> Markup:
    return joined(named(one.tenant), " (light)" if one.light else None)


def _words(tenants: Sequence[TenantService]) -> str:
    return "; ".join(f"{one.tenant} {whole(sum(one.completion_tokens))} tokens" for one in tenants[:MOST_LIGHT])


def _service_table(tenants: Sequence[TenantService]) -> Markup:
    served = sum(sum(one.completion_tokens) for one in tenants) or 1
    rows = [
        (
            named(one.tenant),
            "light" if one.light else "",
            whole(one.offered_tokens),
            percent(one.offered_share),
            whole(sum(one.completion_tokens)),
            percent(sum(one.completion_tokens) / served),
        )
        for one in tenants
    ]
    head = ("tenant", "", "offered tokens", "share", "served tokens", "share")
    return table("Offered and served; offered counts prompts and the most of answers", head, rows, words=(1,))


def _bins_table(shown: Sequence[TenantService], rates: dict[str, list[float]], width_s: float) -> Markup:
    longest = max((len(rate) for rate in rates.values()), default=0)
    rows = (
        (clock(i * width_s), *(number(rates[one.tenant][i] if i < len(rates[one.tenant]) else None) for one in shown))
        for i in range(longest)
    )
    return table("Tokens per second", ("from", *(one.tenant for one in shown)), rows)


def _light(light: Sequence[LightTenant]) -> Markup:
    shown = sorted(light, key=lambda one: -(one.ratio_p99 or 0.0))[:MOST_LIGHT]
    ends = [value for one in shown for value in (one.alone_ttft_p99_ms, one.together_ttft_p99_ms)]
    scale = fitting(ends)
    more = f" The {len(shown)} most disturbed of {len(light)}." if len(shown) < len(light) else ""
    return picture(
        "Light tenants, beside the others and alone",
        f"TTFT p99 of the same requests, milliseconds.{log_note(scale)}{more}",
        rows([_dumbbell(i, one, scale) for i, one in enumerate(shown)], axis(scale)),
        legend=legend([("none s0", "ring", Markup("alone")), ("none s2", "square", Markup("beside the others"))]),
        table=table("Light tenants", LIGHT_HEAD, (_light_cells(one) for one in light)),
    )


LIGHT_HEAD = (
    *("tenant", "requests", "p50 alone ms", "p50 together ms", "ratio"),
    *("p99 alone ms", "p99 together ms", "ratio", "succeeded alone", "succeeded together"),
)


def _light_cells(one: LightTenant) -> tuple[str, ...]:
    return (
        named(one.tenant),
        whole(one.requests),
        *(number(value) for value in (one.alone_ttft_p50_ms, one.together_ttft_p50_ms, one.ratio_p50)),
        *(number(value) for value in (one.alone_ttft_p99_ms, one.together_ttft_p99_ms, one.ratio_p99)),
        percent(one.alone_success_rate),
        percent(one.together_success_rate),
    )


def _dumbbell(i: int, one: LightTenant, scale: Scale) -> Markup:
    alone, together = one.alone_ttft_p99_ms, one.together_ttft_p99_ms
    at = [percent_of(scale.place(value)) if value is not None else None for value in (alone, together)]
    drawing = joined(
        element("line", x1="0", x2="100%", y1=11, y2=11, class_="grid"),
        element("line", x1=at[0], x2=at[1], y1=11, y2=11, class_="whisker unsure") if all(at) else None,
        element("use", href="#m-ring", x=at[0], y=11, class_="mark s0") if at[0] else None,
        element("use", href="#m-square", x=at[1], y=11, class_="mark s2") if at[1] else None,
    )
    times = f"{ratio(one.ratio_p99)} times" if one.ratio_p99 is not None else plural(one.requests, "request")
    return row(
        f"x-light-{i}",
        named(one.tenant),
        drawing,
        joined(times, " ", element("small", f"{milliseconds(alone)} → {milliseconds(together)}")),
        title=f"TTFT p99 of {one.tenant}",
        told=f"{milliseconds(alone)} alone, {milliseconds(together)} beside the others",
    )
