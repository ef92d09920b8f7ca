"""Which world a command looks at."""

from pathlib import Path

import pytest

from cotenant_operator.failure import FlagError
from cotenant_operator.which_world import Around, Asked, InCluster, ThisMachine, choose_world

HOME, CONFIG = Path("/home/me/state"), Path("/home/me/.kube/config")
NOTHING = Around(default_state=HOME)
UP = Around(default_state=HOME, up_runs=True)
KUBE = Around(default_state=HOME, kubeconfigs=(CONFIG,))
BOTH = Around(default_state=HOME, up_runs=True, kubeconfigs=(CONFIG,))


@pytest.mark.parametrize(
    ("asked", "around", "chosen"),
    [
        (Asked(), NOTHING, ThisMachine(state=HOME)),
        (Asked(), UP, ThisMachine(state=HOME)),
        (Asked(), KUBE, InCluster(kubeconfigs=(CONFIG,), named=False)),
        (Asked(state=Path("/s")), KUBE, ThisMachine(state=Path("/s"))),
        (Asked(), Around(default_state=HOME, state_is_named=True, kubeconfigs=(CONFIG,)), ThisMachine(state=HOME)),
        (Asked(context="prod"), BOTH, InCluster(kubeconfigs=(CONFIG,), context="prod")),
        (Asked(namespace="a"), BOTH, InCluster(kubeconfigs=(CONFIG,), namespace="a")),
        (Asked(kubeconfig=Path("/k")), UP, InCluster(kubeconfigs=(Path("/k"),))),
    ],
)
def test_what_is_named_wins_then_what_runs_here_then_the_kubeconfig(
    asked: Asked, around: Around, chosen: ThisMachine | InCluster
) -> None:
    assert choose_world(asked, around) == chosen


def test_where_both_could_be_meant_it_is_said_which_one_is_shown() -> None:
    chosen = choose_world(Asked(), BOTH)
    assert isinstance(chosen, ThisMachine)
    assert "--context NAME shows a cluster" in chosen.note


def test_options_that_name_both_worlds_are_refused() -> None:
    with pytest.raises(FlagError, match="use one"):
        choose_world(Asked(state=Path("/s"), context="prod"), BOTH)


def test_a_context_without_any_kubeconfig_says_how_to_give_one() -> None:
    with pytest.raises(FlagError, match="--kubeconfig FILE"):
        choose_world(Asked(context="prod"), UP)
