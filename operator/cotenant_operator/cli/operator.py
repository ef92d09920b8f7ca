"""`cotenant operator`: the program in the operator's pod."""

from pathlib import Path
from typing import Annotated

import typer


def operator(
    settings: Annotated[Path | None, typer.Option(help="YAML file of settings, as the chart writes it.")] = None,
    namespace: Annotated[
        str, typer.Option(envvar="POD_NAMESPACE", help="Where RayClusters, Secrets and gateways stand.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address of its HTTP API.")] = "0.0.0.0",  # noqa: S104 - a pod's own
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of its HTTP API.")] = 8600,
    kubeconfig: Annotated[Path | None, typer.Option(help="Default: the pod's own account, else $KUBECONFIG.")] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> int:
    """Run models in a Kubernetes cluster, until SIGTERM. The Helm chart starts it."""
    try:
        from cotenant_operator.controller import run
    except ImportError as error:
        from cotenant_operator.failure import Failure

        raise Failure(f"{error.name} is not installed. Run: pip install 'cotenant[operator]'") from error
    from cotenant_operator.local import say_on_stderr
    from cotenant_operator.operator_settings import read_settings

    return run(
        read_settings(settings, namespace=namespace),
        host=host,
        port=port,
        kubeconfig=kubeconfig,
        context=context,
        say=say_on_stderr,
    )
