"""The study's rows as Markdown: up to which age reports help, and by how much at each."""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple

import polars

from dpbal.comparison.statistics import Estimate
from experiments.effects import effect, remark, shown_change, table
from experiments.held_out import KINDS
from experiments.staleness.cells import AGES_S, BASELINE, HOW, RANDOM, RULES, Setting

TITLES = {"one": "One front end", "four": "Four front ends"}
WORDS = {"late": "late", "seldom": "looked at every so often"}
JUDGED = ("TTFT s", "TTFT p99 s", "E2E s")


class Line(NamedTuple):
    """One way to choose ranks, at every age.

    Attributes:
        rule: Its balancer.
        ledger: Its mode.
        how: How reports come to be old.
    """

    rule: str
    ledger: str
    how: str

    def policy(self, age_s: float) -> str:
        """Its name at an age."""
        return Setting(self.rule, self.ledger, self.how, age_s).name

    def effect(self, rows: polars.DataFrame, age_s: float, column: str) -> Estimate:
        """The change against round robin at an age."""
        return effect(rows, self.policy(age_s), BASELINE, column)


def text(question: str, rows: polars.DataFrame) -> str:
    """Markdown of a question."""
    if question == "ties":
        return "\n".join(_ties(rows))
    lines = [f"### {TITLES[question]}\n"]
    lines.append(
        f"Ages in s up to which the interval lies below `{BASELINE}`, and from which it lies "
        "above it for good; - where at no age:\n"
    )
    for column in JUDGED:
        lines += _spans(rows, column)
    for kind in KINDS:
        own = rows.filter(polars.col("kind") == kind)
        base = own.filter(polars.col("policy") == BASELINE)
        drawn = effect(own, RANDOM, BASELINE, "TTFT s")
        for how in HOW:
            lines.append(
                f"**{kind}, reports {WORDS[how]}: TTFT**, change against `{BASELINE}`, which has "
                f"{fmean(base['TTFT s']):.3g} s{remark(base)}; `{RANDOM}` {shown_change(drawn)}\n"
            )
            lines += _changes(own, how)
    return "\n".join(lines)


def _ties(rows: polars.DataFrame) -> list[str]:
    lines = ["### Ties, with fresh reports and the ledger\n"]
    for (kind, count), own in rows.group_by(["kind", "dispatchers"], maintain_order=True):
        lines.append(f"**{kind}, front ends: {count}**\n")
        lines += table(own, "policy", BASELINE)
    return lines


def _spans(rows: polars.DataFrame, column: str) -> list[str]:
    heads = [f"{kind}, {how}" for kind in KINDS for how in HOW]
    lines = [f"| {column[:-2]} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for rule, ledger in RULES:
        cells = [
            _span(rows.filter(polars.col("kind") == kind), Line(rule, ledger, how), column)
            for kind in KINDS
            for how in HOW
        ]
        lines.append(f"| {rule}, {ledger} | {' | '.join(cells)} |")
    return [*lines, ""]


def _span(rows: polars.DataFrame, line: Line, column: str) -> str:
    """``to 0.2, from 1``."""
    effects = [line.effect(rows, age_s, column) for age_s in AGES_S]
    better, worse = None, None
    for age_s, found in zip(AGES_S, effects, strict=True):
        if found.high is None or found.high >= 0:
            break
        better = age_s
    for age_s, found in reversed(list(zip(AGES_S, effects, strict=True))):
        if found.low is None or found.low <= 0:
            break
        worse = age_s
    return ", ".join(
        f"{word} {'-' if age_s is None else f'{age_s:g}'}"
        for word, age_s in (("to", better), ("from", worse))
    )


def _changes(rows: polars.DataFrame, how: str) -> list[str]:
    heads = [f"{rule}, {ledger}" for rule, ledger in RULES]
    lines = [f"| age, s | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for age_s in AGES_S:
        cells = []
        for rule, ledger in RULES:
            line = Line(rule, ledger, how)
            runs = rows.filter(polars.col("policy") == line.policy(age_s))
            cells.append(shown_change(line.effect(rows, age_s, "TTFT s")) + remark(runs))
        lines.append(f"| {age_s:g} | {' | '.join(cells)} |")
    return [*lines, ""]
