"""Which world a command looks at: the `cotenant up` of this machine, or a Kubernetes cluster. Pure.

What is named wins. Nothing named: the `up` that runs, else the cluster that a kubeconfig names, else this machine.
"""

from dataclasses import dataclass
from pathlib import Path

from cotenant_operator.failure import FlagError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a command."""

    state: Path | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    @property
    def names_cluster(self) -> bool:
        return not (self.kubeconfig is None and self.context is None and self.namespace is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What a look around has found."""

    default_state: Path
    state_is_named: bool = False
    """$COTENANT_STATE is set."""
    up_runs: bool = False
    """On the default state directory."""
    kubeconfigs: tuple[Path, ...] = ()
    """Files of $KUBECONFIG, or ~/.kube/config; those that exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThisMachine:
    state: Path
    note: str = ""
    """What a person should know of the choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InCluster:
    kubeconfigs: tuple[Path, ...]
    context: str | None = None
    """None: the current one."""
    namespace: str | None = None
    """None: all that may be seen."""
    named: bool = True
    """False: it is only what was found, and may have nothing to do with cotenant."""


def choose_world(asked: Asked, around: Around) -> ThisMachine | InCluster:
    """Raises FlagError when the options name both worlds, or a cluster of which there is no kubeconfig."""
    if asked.names_cluster:
        if asked.state is not None:
            raise FlagError(
                "--state names the `cotenant up` of this machine, --kubeconfig, --context and --namespace a cluster; "
                "use one"
            )
        return InCluster(
            kubeconfigs=_named_kubeconfigs(asked, around), context=asked.context, namespace=asked.namespace
        )
    state = asked.state or around.default_state
    if asked.state is not None or around.state_is_named or not (around.up_runs or around.kubeconfigs):
        return ThisMachine(state=state)
    if around.up_runs:
        return ThisMachine(state=state, note=_BOTH if around.kubeconfigs else "")
    return InCluster(kubeconfigs=around.kubeconfigs, named=False)


def _named_kubeconfigs(asked: Asked, around: Around) -> tuple[Path, ...]:
    if asked.kubeconfig is not None:
        return (asked.kubeconfig,)
    if not around.kubeconfigs:
        raise FlagError(
            "there is no kubeconfig: $KUBECONFIG names none and ~/.kube/config does not exist; give --kubeconfig FILE"
        )
    return around.kubeconfigs


def nothing_runs(state: Path) -> str:
    """What to do when nothing has been found on this machine."""
    return (
        f"nothing runs on the state directory {state}. Start it with `cotenant up -f FILE`, or name another one with "
        "--state DIR. Commands that look at what runs can show a cluster instead: --context NAME, --kubeconfig FILE."
    )


_BOTH = "this is the `cotenant up` of this machine; --context NAME shows a cluster"
