"""Studies compose a config once for all draws; it must be the one that is composed anew."""

from __future__ import annotations

from dpbal.composition import compose
from experiments.cells import composed

LINES = ("workload=azure_conv", "workload.windows=10", "balancer=fewest_requests")


def test_a_composed_config_is_that_of_its_lines() -> None:
    for window, delay_s in ((5, 0.01), (8, 2.0)):
        drawn = (f"workload.window={window}", f"transport.delay_s={delay_s}", "seed=3")
        lines = ("transport=delayed", *LINES, *drawn)
        assert composed(*lines) == compose(*lines)


def test_what_is_changed_in_one_is_not_changed_in_the_next() -> None:
    lines = (*LINES, "workload.window=7")
    composed(*lines).workload["rate"] = 12.0
    assert composed(*lines) == compose(*lines)
