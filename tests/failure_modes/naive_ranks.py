"""Schedulers that report at the wrong moments; made where vLLM is, by functions."""

from __future__ import annotations

from typing import Any


def reports_always() -> type:
    """dpbal's own, which reports when it has taken in what a step gave, tokens or none."""
    from dpbal.backends.vllm.rank.scheduler import ReportingScheduler

    return ReportingScheduler


def samples_before_the_end() -> type:
    """smg #2131: the load that goes with a rank's last tokens is read before they end a request."""
    from dpbal.backends.vllm.rank.scheduler import ReportingScheduler

    class SamplesBeforeTheEnd(ReportingScheduler):
        is_quiet = False

        def update_from_output(self, scheduled: Any, given: Any) -> Any:
            if scheduled.total_num_scheduled_tokens:
                self._publish()
            self.is_quiet = True
            return super().update_from_output(scheduled, given)

        def _publish(self) -> None:
            if not self.is_quiet:
                super()._publish()
            self.is_quiet = False

    return SamplesBeforeTheEnd


def reports_batches() -> type:
    """SGLang before ``on_idle`` reported: loads travel with batches, and there is none."""
    from dpbal.backends.vllm.rank.scheduler import ReportingScheduler

    class ReportsBatches(ReportingScheduler):
        is_quiet = False

        def update_from_output(self, scheduled: Any, given: Any) -> Any:
            self.is_quiet = scheduled.total_num_scheduled_tokens == 0
            return super().update_from_output(scheduled, given)

        def _publish(self) -> None:
            if not self.is_quiet:
                super()._publish()

    return ReportsBatches


def reports_steps() -> type:
    """dpbal before it looked at pauses: who takes no step says nothing."""
    from dpbal.backends.vllm.rank.scheduler import ReportingScheduler

    class ReportsSteps(ReportingScheduler):
        is_quiet = False

        def add_request(self, request: Any) -> None:
            self.is_quiet = True
            super().add_request(request)
            self.is_quiet = False

        def _publish(self) -> None:
            if not self.is_quiet:
                super()._publish()

    return ReportsSteps


def reports_every_turn() -> type:
    """SGLang #39315: ``on_idle`` reported in every turn of the loop, 10,470 times a second."""
    from dpbal.backends.vllm.rank.scheduler import ReportingScheduler

    class ReportsEveryTurn(ReportingScheduler):
        def pace(self, *given: Any) -> None:
            super().pace(*given)
            self._publish()

    return ReportsEveryTurn
