"""Ranks again, in plain Python and without caching: slow, short, and independent of the core.

Nothing is kept that can be counted from the requests themselves, so there is no bookkeeping that
could go wrong in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf, nan
from typing import NamedTuple

from dpbal.step_time import StepTime


@dataclass(eq=False)
class Job:
    """A request on the rank."""

    arrival_s: float
    prompt: int
    output: int
    expected: int = 0  # tokens that are believed cached while it waits; nothing is
    generated: int = 0
    computed: int = 0
    blocks: int = 0
    preemptions: int = 0
    failed: bool = False
    decoding: bool = False  # has emitted since it was last admitted
    first_token_s: float = nan
    finish_s: float = nan

    @property
    def size(self) -> int:
        """Tokens that are known: the prompt and what was generated."""
        return self.prompt + self.generated


class Work(NamedTuple):
    """What a rank does in a step."""

    prefill: int
    decodes: int
    kv: int
    pairs: float


@dataclass
class Rank:
    """A vLLM V1 scheduler."""

    max_tokens: int
    max_seqs: int
    block_size: int
    total_blocks: int
    running: list[Job] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)
    inbox: list[Job] = field(default_factory=list)
    tokens: dict[int, int] = field(default_factory=dict)  # of the step that runs, by id(job)

    def receive(self, now_s: float) -> None:
        """Queue what has arrived, but for what could never fit."""
        for job in self.inbox:
            if self._blocks(job.prompt + job.output - 1) <= self.total_blocks:
                self.waiting.append(job)
            else:
                job.failed = True
                job.finish_s = now_s
        self.inbox = []

    def _blocks(self, tokens: int) -> int:
        return ceil(tokens / self.block_size)

    @property
    def free(self) -> int:
        """Free KV blocks."""
        return self.total_blocks - sum(job.blocks for job in self.running)

    def schedule(self) -> Work:
        """Fill the next step."""
        left = self.max_tokens
        self.tokens = {}
        preempted = False
        prefill, decodes, kv, pairs = 0, 0, 0, 0.0
        for job in list(self.running):
            if job not in self.running:
                break
            tokens = min(job.size - job.computed, left)
            if tokens == 0:
                continue
            needed = self._blocks(job.computed + tokens)
            while needed - job.blocks > self.free and job in self.running:
                preempted = True
                victim = self.running.pop()
                victim.blocks = victim.computed = victim.expected = 0
                victim.decoding = False
                victim.preemptions += 1
                self.waiting.insert(0, victim)
            if job not in self.running:
                break
            job.blocks = needed
            self.tokens[id(job)] = tokens
            left -= tokens
            if job.decoding:
                decodes += 1
                kv += job.computed + 1
            else:
                prefill += tokens
                pairs += tokens * job.computed + tokens**2 / 2
        while not preempted and self.waiting and len(self.running) < self.max_seqs and left > 0:
            job = self.waiting[0]
            if self._blocks(job.size) > self.free:
                break
            self.running.append(self.waiting.pop(0))
            job.expected = 0
            tokens = min(job.size, left)
            job.blocks = self._blocks(tokens)
            self.tokens[id(job)] = tokens
            left -= tokens
            prefill += tokens
            pairs += tokens**2 / 2
        return Work(prefill, decodes, kv, pairs)

    def complete(self, now_s: float) -> None:
        """End the step."""
        for job in list(self.running):
            job.computed += self.tokens.get(id(job), 0)
            if id(job) not in self.tokens or job.computed < job.size:
                continue
            if job.generated == 0:
                job.first_token_s = now_s
            job.generated += 1
            job.decoding = True
            if job.generated == job.output:
                job.finish_s = now_s
                self.running.remove(job)

    def report(self, t: StepTime, now_s: float) -> dict[str, float]:
        """What the rank would say of itself."""
        prefills = [job for job in self.running + self.waiting if not job.decoding]
        decodes = [job for job in self.running if job.decoding]
        pairs = sum((job.size**2 - job.computed**2 - job.expected**2) / 2 for job in prefills)
        tokens = sum(job.size - job.computed - job.expected for job in prefills)
        kv = sum(job.size for job in decodes)
        tokenless = [job.arrival_s for job in prefills if job.generated == 0]
        return {
            "running": len(self.running),
            "waiting": len(self.waiting),
            "holding_tokens": sum(job.size for job in self.running + self.waiting),
            "waiting_tokens": sum(job.size for job in self.waiting),
            "kv_used_tokens": (self.total_blocks - self.free) * self.block_size,
            "prefill_tokens": tokens,
            "prefill_s": t.prefill_s_per_token * tokens + t.attention_s_per_pair * pairs,
            "decode_seqs": len(decodes),
            "decode_s": t.decode_s_per_seq * len(decodes) + t.kv_s_per_token * kv,
            "oldest_wait_s": now_s - min(tokenless, default=now_s),
        }


@dataclass
class Group:
    """Ranks that step together; one alone is an independent rank.

    Attributes:
        ends_s: When steps ended.
        reports: After each of them, what every rank would say of itself.
        local_s: Each rank's own part of them.
    """

    step_time: StepTime
    ranks: list[Rank]
    ends_s: list[float] = field(default_factory=list)
    reports: list[list[dict[str, float]]] = field(default_factory=list)
    local_s: list[list[float]] = field(default_factory=list)
    end_s: float = inf

    def run(self, jobs: list[tuple[int, Job]]) -> None:
        """Work off all jobs, in order of arrival, each on the rank given."""
        for rank, job in jobs:
            self._run_until(job.arrival_s)
            self.ranks[rank].inbox.append(job)
            if self.end_s == inf:
                self._start(job.arrival_s)
        self._run_until(inf)

    def _run_until(self, until_s: float) -> None:
        while self.end_s <= until_s and self.end_s < inf:
            now_s = self.end_s
            for rank in self.ranks:
                rank.complete(now_s)
            self.ends_s.append(now_s)
            self.reports.append([rank.report(self.step_time, now_s) for rank in self.ranks])
            self._start(now_s)

    def _start(self, now_s: float) -> None:
        for rank in self.ranks:
            rank.receive(now_s)
        if any(rank.running or rank.waiting for rank in self.ranks):
            self.end_s = now_s + self._step_s([rank.schedule() for rank in self.ranks])
        else:
            self.end_s = inf

    def _step_s(self, works: list[Work]) -> float:
        t = self.step_time
        sizes = [work.prefill + work.decodes for work in works]
        local_s = [
            t.fixed_s
            + t.prefill_s_per_token * work.prefill
            + t.decode_s_per_seq * work.decodes
            + t.kv_s_per_token * work.kv
            + t.attention_s_per_pair * work.pairs
            if size
            else 0.0
            for work, size in zip(works, sizes, strict=True)
        ]
        self.local_s.append(local_s)
        tokens = max(sizes) if t.pad_to_largest else sum(sizes) / len(sizes)
        is_mixed = any(work.prefill for work in works) and any(work.decodes for work in works)
        penalty_s = t.mixed_penalty_s if is_mixed else 0.0
        return max(local_s) + t.common_fixed_s + t.common_s_per_token * tokens + penalty_s
