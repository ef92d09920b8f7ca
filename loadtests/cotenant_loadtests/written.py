"""What a run leaves in its folder.

```
report.html     a page that opens offline       results.json    everything that was measured
requests.csv    a row for each request          junit.xml       the gate, for CI
plan.jsonl      who sent what when: `run --from-plan` sends it again
```
"""

from collections.abc import Callable
from pathlib import Path

from cotenant_loadtests.exports import write_requests
from cotenant_loadtests.junit import write_junit
from cotenant_loadtests.one_run import Measured
from cotenant_loadtests.plan_file import write_plan
from cotenant_loadtests.report import write_report
from cotenant_loadtests.results import Results
from cotenant_loadtests.results_file import write_results
from cotenant_loadtests.spec import Scenario
from cotenant_loadtests.writing import write_each


def write_run(folder: Path, scenario: Scenario, measured: Measured, *, requests: str) -> dict[Path, str]:
    """`requests`: `csv`, `parquet` or `none`. What matters most is written first. File → why it is not there."""
    results, output = measured.results, measured.output
    writers = result_writers(folder, results)
    writers[folder / "plan.jsonl"] = lambda path: write_plan(path, scenario, output.plan)
    if requests != "none":
        writers[folder / f"requests.{requests}"] = lambda path: write_requests(path, output)
    return write_each(writers)


def result_writers(folder: Path, results: Results) -> dict[Path, Callable[[Path], None]]:
    """For `write_each`: what every command leaves."""
    return {
        folder / "results.json": lambda path: write_results(path, results),
        folder / "report.html": lambda path: write_report(path, results),
        folder / "junit.xml": lambda path: write_junit(path, results),
    }
