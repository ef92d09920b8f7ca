"""What an operator tells of its pools, and that nothing of a pool that is gone stays."""

from types import SimpleNamespace
from typing import Any

from cotenant_operator.actions import Actions
from cotenant_operator.operator_metrics import OperatorMetrics
from cotenant_serving.contract import PoolStatus, Rung

SERIES = "cotenant_operator_weights_bytes_per_second{"


def given(rates: dict[Rung, float]) -> Any:
    status = PoolStatus(pool="default", epoch="e", generation=1, rates=rates)
    seen = {"default-1": SimpleNamespace(status=status), "default-2": SimpleNamespace(status=None)}
    return SimpleNamespace(objects={}, world=SimpleNamespace(conductors=seen))


def rates(metrics: OperatorMetrics) -> list[str]:
    return [line for line in metrics.text().decode().splitlines() if line.startswith(SERIES)]


def test_the_rates_at_which_a_pool_gets_its_weights_go_with_the_pool() -> None:
    metrics = OperatorMetrics(leads=lambda: True, watched=(), calls=dict)
    metrics.pool("default", given({"download": 1e8}), Actions())
    assert rates(metrics) == [SERIES + 'pool="default",rung="download"} 1e+08']
    metrics.forget_pool("default")
    assert rates(metrics) == []
