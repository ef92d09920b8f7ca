"""`cotenant doctor`: what this machine lacks."""

from typing import Annotated

import typer

from cotenant_operator.cli.options import EXIT_FAILED, Output, Shown, State, default_state, show


def doctor(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that the gateway shall have.")] = 8080,
    hub: Annotated[bool, typer.Option("--hub", help="Also ask the hub: does it answer, is the token good?")] = False,
    state: State = None,
    output: Shown = Output.TABLE,
) -> int:
    """Say what this machine lacks, with the command that fixes it. Changes nothing."""
    from cotenant_operator.doctor.checks import examine
    from cotenant_operator.doctor.probe import look
    from cotenant_operator.doctor.report import finding_rows, findings_document, fixes

    findings = examine(look(state or default_state(), port=port, hub=hub))
    show(finding_rows(findings, wide=output is Output.WIDE), findings_document(findings), output)
    if output in (Output.TABLE, Output.WIDE):
        todo = fixes(findings)
        typer.echo("\nTo do:\n" + "\n".join(f"  {line}" for line in todo) if todo else "\nNothing is lacking.")
    return EXIT_FAILED if any(finding.level == "problem" for finding in findings) else 0
