"""`report.html`: one self-contained page that says whether the numbers may be believed, what was missed, and why.

    Results ─▶ sections (verdict, timelines, percentiles, …) ─▶ page ─▶ report.html
               scales → plot → picture

Everything is drawn here, as HTML and inline SVG: no script, no font, no address.
"""

from pathlib import Path

from cotenant_loadtests.report.page import render_report
from cotenant_loadtests.results import Results

__all__ = ["render_report", "write_report"]


def write_report(path: Path, results: Results) -> None:
    """Writes the page whole or not at all. Raises OSError."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(render_report(results), encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
