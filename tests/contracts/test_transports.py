"""What every transport must say of its timing, and which values it refuses."""

from __future__ import annotations

import pytest

import dpbal
from dpbal.errors import ConfigError
from dpbal.parts import build
from dpbal.transports import TRANSPORTS, Timing


@pytest.mark.parametrize("name", sorted(TRANSPORTS))
def test_timing_is_possible(name: str) -> None:
    timing = TRANSPORTS.build(name, {}).timing
    assert timing.interval_steps >= 1
    assert min(timing.interval_s, timing.delay_s, timing.jitter_s) >= 0
    assert 0 <= timing.loss < 1


def test_local_is_every_step_at_once() -> None:
    assert TRANSPORTS.build("local", {}).timing == Timing(
        interval_steps=1,
        publish_on_prefill=False,
        publish_on_idle=True,
        interval_s=0,
        delay_s=0,
        jitter_s=0,
        loss=0,
    )


def test_delayed_has_the_timing_that_it_is_given() -> None:
    fields = {
        "interval_steps": 3,
        "publish_on_prefill": True,
        "publish_on_idle": False,
        "interval_s": 0.25,
        "delay_s": 0.01,
        "jitter_s": 0.02,
        "loss": 0.125,
    }
    assert TRANSPORTS.build("delayed", fields).timing == Timing(
        3, True, False, 0.25, 0.01, 0.02, 0.125
    )


def test_delayed_is_local_until_told_otherwise() -> None:
    assert TRANSPORTS.build("delayed", {}).timing == TRANSPORTS.build("local", {}).timing


@pytest.mark.parametrize(
    ("choice", "timing"),
    [
        ("gather_40", Timing(interval_steps=40, publish_on_idle=False)),
        ("broadcast_100ms", Timing(interval_s=0.1)),
        ("poll_1s", Timing(interval_s=1.0)),
        ("snapshot_15", Timing(interval_steps=15, publish_on_prefill=True, interval_s=0.02)),
    ],
)
def test_peers_timings(choice: str, timing: Timing) -> None:
    assert build("transport", dpbal.compose(f"transport={choice}").transport).timing == timing


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("interval_steps", 0, "interval_steps must be at least 1, got 0"),
        ("interval_s", -0.1, "interval_s must be a time of 0 seconds or more, got -0.1"),
        ("delay_s", -1.0, "delay_s must be a time of 0 seconds or more, got -1.0"),
        ("delay_s", float("nan"), "delay_s must be a finite number, got nan"),
        ("jitter_s", float("inf"), "jitter_s must be a finite number, got inf"),
        ("loss", 1.0, "loss is a probability and must be from 0 to below 1, got 1.0"),
        ("loss", -0.5, "loss is a probability"),
    ],
)
def test_impossible_timings_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TRANSPORTS.build("delayed", {field: value})
