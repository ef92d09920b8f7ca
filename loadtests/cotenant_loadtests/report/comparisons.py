"""What the commands beside `run` found, from `extras`."""

from cotenant_loadtests.report.markup import Markup
from cotenant_loadtests.results import Results


def comparisons(results: Results) -> Markup | None:
    return None
