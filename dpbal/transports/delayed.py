"""Reports that leave seldom, arrive late, or not at all."""

from __future__ import annotations

from dataclasses import dataclass

from dpbal.transports.base import TRANSPORTS, Timing, Transport


@TRANSPORTS.register("delayed")
@dataclass
class Delayed(Transport):
    """Reports with an interval, a delay, jitter and loss; the defaults are those of ``local``.

    A report is published at the end of every ``interval_steps``-th step (and of steps with prefill,
    if so set), arrives ``delay_s`` plus up to ``jitter_s`` later unless it is lost, and is seen at
    the next multiple of ``interval_s``.

    Args:
        interval_steps: A rank publishes after every that many of its steps, at least 1.
        publish_on_prefill: Publish after every step with prefill too.
        publish_on_idle: Publish after the step that left nothing to do too; without it the last
            word of an idle rank may be that it is busy.
        interval_s: Dispatchers look at multiples of this many seconds; 0 is at once.
        delay_s: Seconds from publishing to arrival.
        jitter_s: Up to this many seconds more, uniform.
        loss: Probability that a report is lost, from 0 to below 1.

    Raises:
        ValueError: For a value outside its range.
    """

    interval_steps: int = 1
    publish_on_prefill: bool = False
    publish_on_idle: bool = True
    interval_s: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        if self.interval_steps < 1:
            raise ValueError(f"interval_steps must be at least 1, got {self.interval_steps}")
        for name in ("interval_s", "delay_s", "jitter_s"):
            seconds = getattr(self, name)
            if not 0 <= seconds < float("inf"):
                raise ValueError(f"{name} must be a time of 0 seconds or more, got {seconds}")
        if not 0 <= self.loss < 1:
            raise ValueError(
                f"loss is a probability and must be from 0 to below 1, got {self.loss}"
            )

    @property
    def timing(self) -> Timing:
        """The fields, as the simulator takes them."""
        return Timing(
            interval_steps=self.interval_steps,
            publish_on_prefill=self.publish_on_prefill,
            publish_on_idle=self.publish_on_idle,
            interval_s=self.interval_s,
            delay_s=self.delay_s,
            jitter_s=self.jitter_s,
            loss=self.loss,
        )
