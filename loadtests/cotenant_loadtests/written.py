"""What a run leaves in its folder.

```
report.html     a page that opens offline       results.json    everything that was measured
requests.csv    a row for each request          junit.xml       the gate, for CI
plan.jsonl      who sent what when: `run --from-plan` sends it again
```
"""

from pathlib import Path

from cotenant_loadtests.exports import write_requests
from cotenant_loadtests.junit import write_junit
from cotenant_loadtests.one_run import Measured
from cotenant_loadtests.plan_file import write_plan
from cotenant_loadtests.report import write_report
from cotenant_loadtests.results_file import write_results
from cotenant_loadtests.spec import Scenario


def write_run(folder: Path, scenario: Scenario, measured: Measured, *, requests: str) -> None:
    """`requests`: `csv`, `parquet` or `none`. What matters most is written first."""
    write_results(folder / "results.json", measured.results)
    write_report(folder / "report.html", measured.results)
    write_junit(folder / "junit.xml", measured.results)
    write_plan(folder / "plan.jsonl", scenario, measured.output.plan)
    if requests != "none":
        write_requests(folder / f"requests.{requests}", measured.output)
