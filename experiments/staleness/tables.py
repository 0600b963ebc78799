"""The study's rows as Markdown: up to which age reports help, and by how much at each."""

from __future__ import annotations

from statistics import fmean
from typing import NamedTuple

import polars

from dpbal.comparison.statistics import Estimate
from experiments.effects import change, remark, shown_change, table
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

    def runs(self, rows: polars.DataFrame, age_s: float) -> polars.DataFrame:
        """Those at an age, of a kind's rows."""
        return _of(rows, Setting(self.rule, self.ledger, self.how, age_s).name)

    def effect(self, rows: polars.DataFrame, age_s: float, column: str) -> Estimate:
        """The change against round robin at an age."""
        own, base = self.runs(rows, age_s), _of(rows, BASELINE)
        if own["draw"].to_list() != base["draw"].to_list():
            raise ValueError(f"{self} and {BASELINE} did not run on the same draws")
        return change(own[column].to_list(), base[column].to_list())


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
        base, drawn = (_of(own, name) for name in (BASELINE, RANDOM))
        effect = change(drawn["TTFT s"].to_list(), base["TTFT s"].to_list())
        for how in HOW:
            lines.append(
                f"**{kind}, reports {WORDS[how]}: TTFT**, change against `{BASELINE}`, which has "
                f"{fmean(base['TTFT s']):.3g} s{remark(base)}; `{RANDOM}` {shown_change(effect)}\n"
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
    for age_s, effect in zip(AGES_S, effects, strict=True):
        if effect.high is None or effect.high >= 0:
            break
        better = age_s
    for age_s, effect in reversed(list(zip(AGES_S, effects, strict=True))):
        if effect.low is None or effect.low <= 0:
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
            effect = line.effect(rows, age_s, "TTFT s")
            cells.append(shown_change(effect) + remark(line.runs(rows, age_s)))
        lines.append(f"| {age_s:g} | {' | '.join(cells)} |")
    return [*lines, ""]


def _of(rows: polars.DataFrame, policy: str) -> polars.DataFrame:
    return rows.filter(polars.col("policy") == policy).sort("draw")
