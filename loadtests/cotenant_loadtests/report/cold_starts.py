"""`coldstart`: from no engine to the first token, phase by phase."""

from collections.abc import Sequence

from cotenant_loadtests.extras import ColdStarts, ModelWakes, Phase, Wake
from cotenant_loadtests.report.cast import legend
from cotenant_loadtests.report.markup import Child, Markup, element, joined, named
from cotenant_loadtests.report.percentiles import HEAD, quantile_cells
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import percent_of
from cotenant_loadtests.report.rows import row, rows
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.wording import duration, milliseconds, number, plural

MOST_MODELS = 16
MOST_WAKES = 24
REST = "rest"
"""Of an answer, after its first token."""
KINDS = 6


def cold_starts(found: ColdStarts) -> Markup:
    kinds = _kinds(found)
    by_server = "as the server told them" if found.phases_by == "server" else "as the client saw them"
    return section(
        "x-coldstart",
        "Cold starts",
        _models(found.models, kinds, by_server),
        _wakes(found.wakes, kinds),
        table("Zero to first token, ms", ("model", *HEAD[1:]), _quantiles(found.models)),
        lead=f"{plural(len(found.wakes), 'wake')}. {_cold(found)}",
    )


def _cold(found: ColdStarts) -> str:
    if not found.wakes:
        return "No model was woken."
    if found.cold_by == "engines":
        return "Each model was cold: the server said that it had no engine."
    waited = f"{duration(found.idle_s)} " if found.idle_s is not None else ""
    return f"Nothing was sent for {waited}before each wake; that the model was cold then is assumed."


def _kinds(found: ColdStarts) -> dict[str, str]:
    """Phase → class, by first appearance."""
    every: tuple[ModelWakes | Wake, ...] = (*found.models, *found.wakes)
    phases = [phase.name for one in every for phase in _to_first_token(one.phases)]
    return {name: f"part{i % KINDS + 1}" for i, name in enumerate(dict.fromkeys(phases))}


def _models(models: Sequence[ModelWakes], kinds: dict[str, str], by_server: str) -> Markup:
    shown = sorted(models, key=lambda one: -_end(_to_first_token(one.phases)))[:MOST_MODELS]
    longest = max((_end(_to_first_token(one.phases)) for one in shown), default=0.0) or 1.0
    bars = [
        _row(
            f"x-model-{i}",
            named(one.model),
            one.model,
            _to_first_token(one.phases),
            longest,
            kinds,
            _model_words(one),
        )
        for i, one in enumerate(shown)
    ]
    more = f" The {len(shown)} slowest of {len(models)} models." if len(shown) < len(models) else ""
    cells = [
        (
            named(one.model),
            phase.name,
            number(phase.from_ms),
            number(phase.to_ms),
            number(phase.to_ms - phase.from_ms),
        )
        for one in models
        for phase in one.phases
    ]
    return picture(
        "Where the time goes",
        f"From the request to its first token: medians of the phases, {by_server}.{more}",
        rows(bars),
        legend=legend([(f"bars {kind}", None, named(name)) for name, kind in kinds.items()]),
        table=table("Phases of each model, ms", ("model", "phase", "from", "to", "long"), cells, words=(1,)),
    )


def _model_words(one: ModelWakes) -> Child:
    failed = f", {one.failed} failed" if one.failed else ""
    middle = milliseconds(one.first_token_ms.p50) if one.first_token_ms.count else "no token"
    return joined(middle, " ", element("small", f"{plural(one.wakes, 'wake')}{failed}"))


def _wakes(wakes: Sequence[Wake], kinds: dict[str, str]) -> Markup:
    shown = wakes[:MOST_WAKES]
    longest = max((_end(_to_first_token(one.phases)) for one in shown), default=0.0) or 1.0
    bars = [
        _row(
            f"x-wake-{i}",
            named(one.model),
            f"wake {i + 1}, {one.model}",
            one.phases,
            longest,
            kinds,
            _wake_words(one),
        )
        for i, one in enumerate(shown)
    ]
    cells = [
        (str(i + 1), named(one.model), named(one.tenant), number(one.first_token_ms), one.outcome, named(one.detail))
        for i, one in enumerate(wakes)
    ]
    head = ("wake", "model", "tenant", "first token ms", "outcome", "what was read")
    more = f" The first {len(shown)} of {len(wakes)}." if len(shown) < len(wakes) else ""
    return picture(
        "Each wake",
        f"From the request to its first token, in the order they came.{more}",
        rows(bars),
        table=table("Each wake", head, cells, words=(1, 2, 4, 5)),
    )


def _wake_words(one: Wake) -> Child:
    return milliseconds(one.first_token_ms) if one.first_token_ms is not None else element("code", one.outcome)


def _row(
    slug: str, label: Markup, title: str, phases: Sequence[Phase], longest: float, kinds: dict[str, str], words: Child
) -> Markup:
    drawing = joined(
        element("rect", width="100%", height="100%", class_="track"),
        (_part(phase, longest, kinds[phase.name]) for phase in _to_first_token(phases)),
    )
    told = "; ".join(f"{phase.name} {milliseconds(phase.to_ms - phase.from_ms)}" for phase in _to_first_token(phases))
    return row(slug, label, drawing, words, title=f"Phases of {title}", told=told or "none measured", height=20)


def _part(phase: Phase, longest: float, kind: str) -> Markup:
    """A piece of the bar, with the phase's name where there is room for it."""
    share = max(0.0, phase.to_ms - phase.from_ms) / longest
    name = element("text", phase.name, x=6, y=14, class_="part-name" if share > 0.3 else "part-name wide")
    return element(
        "svg",
        element("rect", width="100%", height="100%", class_=kind),
        name if share * 100 > 1.4 * len(phase.name) else None,
        x=percent_of(phase.from_ms / longest),
        width=percent_of(share),
        height="100%",
    )


def _to_first_token(phases: Sequence[Phase]) -> list[Phase]:
    return [phase for phase in phases if phase.name != REST]


def _end(phases: Sequence[Phase]) -> float:
    return max((phase.to_ms for phase in phases), default=0.0)


def _quantiles(models: Sequence[ModelWakes]) -> list[tuple[Child, ...]]:
    return [(named(one.model), *quantile_cells(one.first_token_ms)) for one in models]
