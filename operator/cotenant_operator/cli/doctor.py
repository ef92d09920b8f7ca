"""`cotenant doctor`: what this machine, or a cluster, lacks."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cotenant_operator.cli.options import (
    EXIT_FAILED,
    Context,
    Kubeconfig,
    OperatorNamespace,
    Output,
    Shown,
    State,
    show,
)

if TYPE_CHECKING:
    from cotenant_operator.cli.world import Cluster
    from cotenant_operator.doctor.checks import Finding


def doctor(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that the gateway of `up` shall have.")] = 8080,
    hub: Annotated[bool, typer.Option("--hub", help="Also ask the hub: does it answer, is the token good?")] = False,
    state: State = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    operator_namespace: OperatorNamespace = None,
    output: Shown = Output.TABLE,
) -> int:
    """Say what this machine, or a cluster, lacks, with the command that fixes it. Changes nothing."""
    from cotenant_operator.cli.world import find_world
    from cotenant_operator.doctor.checks import examine
    from cotenant_operator.doctor.probe import look

    world = find_world(state, kubeconfig, context, operator_namespace)
    if isinstance(world, Path):
        return _show(examine(look(world, port=port, hub=hub)), output)
    return _show(_examine_cluster(world, operator_namespace), output)


def _examine_cluster(cluster: "Cluster", namespace: str | None) -> "list[Finding]":
    from cotenant_operator.crd import CRDS, render_crd
    from cotenant_operator.doctor.cluster_checks import examine_cluster
    from cotenant_operator.doctor.cluster_probe import look_at_cluster
    from cotenant_operator.objects import SYSTEM_NAMESPACE

    seen = look_at_cluster(
        cluster.api,
        namespace=namespace or SYSTEM_NAMESPACE,
        now_s=time.time(),
        wanted_crds=[render_crd(crd) for crd in CRDS],
    )
    return examine_cluster(seen)


def _show(findings: "list[Finding]", output: Output) -> int:
    from cotenant_operator.doctor.report import finding_rows, findings_document, fixes

    show(finding_rows(findings, wide=output is Output.WIDE), findings_document(findings), output)
    if output in (Output.TABLE, Output.WIDE):
        todo = fixes(findings)
        typer.echo("\nTo do:\n" + "\n".join(f"  {line}" for line in todo) if todo else "\nNothing is lacking.")
    return EXIT_FAILED if any(finding.level == "problem" for finding in findings) else 0
