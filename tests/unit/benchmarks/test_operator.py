"""How `bench-operator` compares: round by round, so that what slowed one round slows both of its sides."""

from benchmarks.operator import Cost, ratio, row


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    own = Cost(cpu_ms=[1.0, 4.0, 3.0])
    peer = Cost(cpu_ms=[4.0, 8.0, 3.0])
    assert ratio(own, peer) == 0.5


def test_a_row_has_medians_and_the_highest_memory():
    cost = Cost(cpu_ms=[2.0, 1.0, 3.0], delete_cpu_ms=[0.5], seconds=[10.0], mib=[80.0, 90.4])
    assert row("cotenant", cost) == ["cotenant", "2.00", "0.50", "10.00", "90"]
