"""What the commands share: options, formats, exit codes, and where the state directory is."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXIT_FAILED = 1
EXIT_MANIFESTS = 2
"""A mistake in files or flags."""
EXIT_REFUSED = 3
EXIT_INTERRUPTED = 130


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


Files = Annotated[list[Path], typer.Option("--file", "-f", help="YAML file, or a folder of them. Repeatable.")]
State = Annotated[
    Path | None,
    typer.Option("--state", help="State directory. Default: $COTENANT_STATE or ~/.local/state/cotenant."),
]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="Kubeconfig of a cluster. Default: $KUBECONFIG or ~/.kube/config.")
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig. Default: the current one.")]
InNamespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Only this namespace of a cluster. Default: all you may see.")
]
OperatorNamespace = Annotated[
    str | None, typer.Option(help="Namespace of a cluster that cotenant is installed in. Default: cotenant-system.")
]
Shown = Annotated[Output, typer.Option("--output", "-o", help="Format.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")]


def default_state() -> Path:
    """$COTENANT_STATE, else ~/.local/state/cotenant."""
    given = os.environ.get("COTENANT_STATE")
    return Path(given).expanduser() if given else Path.home() / ".local" / "state" / "cotenant"


def show(table: tuple[tuple[str, ...], list[tuple[str, ...]]], document: object, output: Output) -> int:
    """Print the one that was asked for: rows, or the same as JSON or YAML. Returns the exit code 0."""
    from cotenant_operator.output import as_json, as_yaml, print_table

    if output is Output.JSON:
        sys.stdout.write(as_json(document))
    elif output is Output.YAML:
        sys.stdout.write(as_yaml(document))
    else:
        print_table(*table)
    return 0
