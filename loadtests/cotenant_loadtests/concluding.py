"""The end of a command beside `run`: what it found is written and printed, and becomes an exit code.

```
report.html     a page that opens offline       results.json    with what was found in `extras`
junit.xml       the gate, for CI
```
"""

from pathlib import Path

from cotenant_loadtests.compare import too_few
from cotenant_loadtests.extras import Comparison, Found
from cotenant_loadtests.findings import Findings, findings_of
from cotenant_loadtests.one_run import exit_code
from cotenant_loadtests.results import Results
from cotenant_loadtests.run_output import Failed
from cotenant_loadtests.terminal import complain, print_table, say
from cotenant_loadtests.writing import refuse_unwritten, report_at, write_each


def conclude(folder: Path, results: Results, found: Found) -> int:
    """`results` with `found` among its extras. Returns the exit code. Raises UnwrittenError."""
    from cotenant_loadtests.written import result_writers

    unwritten = write_each(result_writers(folder, results))
    print_findings(findings_of(found))
    interrupted = "interrupted; " if results.interrupted else ""
    say(f"{interrupted}{_verdict(results, found)}; {report_at(folder / 'report.html', unwritten)}")
    refuse_unwritten(unwritten)
    return exit_code(results)


def _verdict(results: Results, found: Found) -> str:
    if isinstance(found, Comparison) and results.verdict == "passed" and too_few(found.rounds) is not None:
        return "too few rounds: nothing is shown"
    return results.verdict.replace("_", " ")


def print_findings(findings: Findings) -> None:
    """Tables and sentences on stdout, what is not valid on stderr."""
    for header, rows in findings.tables:
        if rows:
            say()
            print_table(header, rows)
    say()
    for sentence in findings.sentences:
        say(sentence)
    for problem in findings.problems:
        complain("not valid", problem)


def in_short(results: Results | Failed) -> str:
    """One run, in a line."""
    if isinstance(results, Failed):
        return f"failed: {results.why}"
    total = results.total
    ttft = f"{total.ttft_ms.p50:.1f} / {total.ttft_ms.p99:.1f} ms" if total.ttft_ms.count else "none"
    valid = "" if results.validity.valid else "; NOT VALID"
    return f"{total.scheduled:,} requests, {total.success_rate:.2%} succeeded, TTFT p50 / p99 {ttft}{valid}"
