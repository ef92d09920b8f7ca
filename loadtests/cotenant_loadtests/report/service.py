"""Who was served how much while tenants competed."""

from collections.abc import Mapping

from cotenant_loadtests.report.markup import Markup, element, joined, named
from cotenant_loadtests.report.picture import picture, section
from cotenant_loadtests.report.plot import percent_of
from cotenant_loadtests.report.rows import row, rows
from cotenant_loadtests.report.tables import table
from cotenant_loadtests.report.wording import duration, number, percent, plural
from cotenant_loadtests.results import Results

MOST_BARS = 12


def service(results: Results) -> Markup | None:
    """None where tenants never competed."""
    fairness = results.fairness
    if fairness.jain is None or not fairness.tokens:
        return None
    what = "Completion tokens" if fairness.service == "tokens" else "Answers"
    cells = [(named(tenant), number(tokens), percent(share)) for tenant, tokens, share in shares(fairness.tokens)]
    return section(
        "service",
        "Service per tenant",
        picture(
            f"Jain's index: {number(fairness.jain)}",
            "Each tenant's service beside its fair part: an equal part, at each moment, among the tenants that had "
            "requests waiting or running. 1: each got its part; 1/n: one of n got everything. The bars are whole "
            "amounts: a tenant that asks for less than its part, or only for a while, has a short bar and is not "
            "treated unfairly.",
            bar_chart(
                "s-service", f"{what} of each tenant while tenants competed", fairness.tokens, fairness.service
            ),
            table=table(f"{what} while tenants competed", ("tenant", fairness.service, "share"), cells),
        ),
        lead=f"{what} in the {duration(fairness.backlogged_s)} in which several tenants had requests "
        "waiting or running.",
    )


def shares(amounts: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """(name, amount, share of all), the largest first."""
    total = sum(amounts.values())
    ordered = sorted(amounts.items(), key=lambda item: (-item[1], item[0]))
    return [(name, amount, amount / total if total else 0.0) for name, amount in ordered]


def bar_chart(slug: str, title: str, amounts: Mapping[str, float], unit: str) -> Markup:
    """Bars beside one another's names; beyond MOST_BARS the rest stand together as others."""
    ordered = shares(amounts)
    shown, rest = (ordered, []) if len(ordered) <= MOST_BARS else (ordered[: MOST_BARS - 1], ordered[MOST_BARS - 1 :])
    bars = [(named(name), name, amount, share) for name, amount, share in shown]
    if rest:
        words = plural(len(rest), "other")
        bars.append((element("em", words), words, sum(row[1] for row in rest), sum(row[2] for row in rest)))
    highest = max((amount for _, _, amount, _ in bars), default=0.0) or 1.0
    return rows(
        [
            row(
                f"{slug}-{i}",
                label,
                joined(
                    element("rect", width="100%", height="100%", class_="track"),
                    element("rect", width=percent_of(amount / highest), height="100%", class_="fill"),
                ),
                joined(number(amount), " ", element("small", percent(share))),
                title=f"{title}: {name}",
                told=f"{number(amount)} {unit}",
                height=14,
            )
            for i, (label, name, amount, share) in enumerate(bars)
        ]
    )
