"""What the server told of itself, under the same time axis as the clients' view."""

import re
from collections.abc import Iterable, Mapping, Sequence

from cotenant_loadtests.report.cast import MOST_LINES, legend
from cotenant_loadtests.report.markup import Markup, element, named
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import MARKERS, Axes, line, plot
from cotenant_loadtests.report.scales import Scale, clock, linear
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.timelines import outside, time_axis
from cotenant_loadtests.report.wording import NOTHING, compact, number, plural, size
from cotenant_loadtests.results import Results, Sample

MOST_PICTURES = 10
MOST_POINTS = 240
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
RATE = re.compile(r"rate\((?P<series>.*)\)", re.DOTALL)


def server_side(results: Results) -> Markup | None:
    """None where nothing was observed."""
    server = results.server
    if not (server.metrics or server.table or server.problems):
        return None
    axis = time_axis(results)
    families = metric_families(server.metrics)
    pictures = []
    if server.table:
        models = sorted({name for sample in server.table for name in sample.values})
        pictures.append(
            _picture(results, axis, "v-table", "Engines per model", server.table, [(m, m) for m in models])
        )
    shown = list(families.items())[:MOST_PICTURES]
    pictures += [
        _picture(results, axis, f"v-{i}", name, server.metrics, series) for i, (name, series) in enumerate(shown)
    ]
    more = len(families) - len(shown)
    return section(
        "server",
        "What the server said",
        element("ul", (element("li", problem) for problem in server.problems), class_="problems")
        if server.problems
        else None,
        pictures,
        lead="Sampled from the server's own metrics, on the same time axis as above. Counters are shown per second."
        + (f" {plural(more, 'further metric')} in results.json." if more > 0 else ""),
    )


def metric_families(samples: Sequence[Sample]) -> dict[str, list[tuple[str, str]]]:
    """Title → (key, label) of its series. Counters appear as their rate only; what stays 0 is left out."""
    keys = dict.fromkeys(key for sample in samples for key in sample.values)
    counters = {match["series"] for key in keys if (match := RATE.fullmatch(key))}
    families: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        if key in counters or not any(sample.values.get(key) for sample in samples):
            continue
        rate = RATE.fullmatch(key)
        name, _, labels = (rate["series"] if rate else key).partition("{")
        families.setdefault(f"{name} per second" if rate else name, []).append(
            (key, labels.removesuffix("}") or name)
        )
    return families


def _picture(
    results: Results, axis: Scale, slug: str, title: str, samples: Sequence[Sample], series: Sequence[tuple[str, str]]
) -> Markup:
    thin = samples[:: max(1, -(-len(samples) // MOST_POINTS))]
    shown = _largest(thin, series)
    highest = max((value for key, _ in shown for value in _values(thin, key) if value is not None), default=1.0)
    axes = Axes(axis, linear(highest, ticks=3, label=size if title.endswith("_bytes") else compact))
    lines = [
        line(axes, [(sample.at_s, sample.values.get(key)) for sample in thin], f"s{i + 1}", marker=MARKERS[i])
        for i, (key, _) in enumerate(shown)
    ]
    note = f"The {len(shown)} largest of {len(series)} series." if len(shown) < len(series) else None
    return picture(
        named(title),
        note,
        plot(
            slug,
            f"{title} over time",
            f"{plural(len(shown), 'series', 'series')}; at most {number(highest)}.",
            axes,
            (*outside(results, axes), *lines),
            height=120,
        ),
        legend=None
        if [label for _, label in shown] == [title]
        else legend([(f"s{i + 1}", MARKERS[i], named(words)) for i, words in enumerate(brief(shown))]),
        table=table(title, ("at", *(label for _, label in shown)), _rows(thin, shown)),
    )


def brief(series: Sequence[tuple[str, str]]) -> list[str]:
    """Labels as a legend has room for: without what all of them share; alone, a value needs no name.

    `model="echo-01",code="200"`, `model="echo-02",code="200"` → `echo-01`, `echo-02`.
    """
    parsed = [dict(LABEL.findall(label)) for _, label in series]
    names = dict.fromkeys(name for labels in parsed for name in labels)
    told = [name for name in names if len({labels.get(name) for labels in parsed}) > 1]
    if not told or not all(parsed):
        return [label for _, label in series]
    if len(told) == 1:
        return [labels.get(told[0], NOTHING) for labels in parsed]
    return [", ".join(f"{name} {labels[name]}" for name in told if name in labels) for labels in parsed]


def _rows(samples: Iterable[Sample], shown: Sequence[tuple[str, str]]) -> Iterable[tuple[str, ...]]:
    for sample in samples:
        yield clock(round(sample.at_s, 1)), *(number(sample.values.get(key)) for key, _ in shown)


def _largest(samples: Sequence[Sample], series: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """At most MOST_LINES, in the order they came."""
    peaks: Mapping[str, float] = {
        key: max((v or 0.0 for v in _values(samples, key)), default=0.0) for key, _ in series
    }
    kept = set(sorted(peaks, key=lambda key: (-peaks[key], key))[:MOST_LINES])
    return [(key, label) for key, label in series if key in kept]


def _values(samples: Iterable[Sample], key: str) -> list[float | None]:
    return [sample.values.get(key) for sample in samples]
