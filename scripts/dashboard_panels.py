"""What a Grafana dashboard of the chart is made of: rows of panels, each with its queries."""

from dataclasses import dataclass

RATE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph over time."""

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]
    """(PromQL, legend) of each line or family of lines."""
    unit: str = "short"
    """As Grafana names units: short, reqps, percentunit, s, bytes."""


@dataclass(frozen=True, slots=True)
class Dashboard:
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[tuple[str, str], ...] = ()
    """(name, metric that has it as a label)."""
