"""Picks the combination that the others of its block are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dpbal.comparison.grouping import POLICY, Block, Combination, shown
from dpbal.errors import ConfigError, unknown

DEFAULT = "round_robin"


@dataclass(frozen=True)
class Wanted:
    """What the user said of the baseline.

    Attributes:
        text: As typed, or None for the default.
        pairs: Keys and values, or empty where ``text`` is a name.
    """

    text: str | None
    pairs: tuple[tuple[str, str], ...]

    @property
    def across(self) -> list[str]:
        """Keys of the setting in it: they are compared, so they do not divide the runs."""
        keys = [key for key, _ in self.pairs if key.partition(".")[0] not in POLICY]
        # the constants of a profile belong together
        return ["profile" if key.startswith("profile.") else key for key in keys]


def parse(text: str | None, combinations: Iterable[Combination]) -> Wanted:
    """Read ``NAME`` or ``key=value,key=value``.

    Raises:
        ConfigError: If there is no such key, or no combination has the value.
    """
    everyone = list(combinations)
    if text is None or "=" not in text or text in {c.label for c in everyone}:
        return Wanted(text, ())
    pairs = []
    for word in text.split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not equals or not key:
            raise ConfigError(f"--baseline {text}: expected key=value,key=value, got {word!r}")
        key = key.removesuffix(".name")
        known = {k.removesuffix(".name") for c in everyone for k in (*c.config, *c.choices)}
        if key not in known:
            hint = unknown("key", key, known).partition(" Known: ")[0].rstrip(".")
            differing = ", ".join(_differing(everyone)) or "none"
            raise ConfigError(f"--baseline {text}: {hint}. Keys that differ here: {differing}")
        if not any(_has(c, key, value) for c in everyone):
            values = sorted({name for c in everyone for name in _values(c, key)})
            raise ConfigError(f"--baseline {text}: {unknown(key, value, values)}")
        pairs.append((key, value))
    return Wanted(text, tuple(pairs))


def candidates(block: Block, wanted: Wanted) -> list[Combination]:
    """Combinations of a block that fit, the best fit first: label, then balancer, then name."""
    everyone = block.combinations
    if wanted.pairs:
        return [c for c in everyone if all(_has(c, key, value) for key, value in wanted.pairs)]
    if wanted.text is None:
        return [c for c in everyone if DEFAULT in (c.balancer, c.label)] or everyone[:1]
    tests: tuple[Callable[[Combination], object], ...] = (
        lambda c: c.label,
        lambda c: c.balancer,
        lambda c: c.policy["balancer.name"],
    )
    for test in tests:
        found = [c for c in everyone if test(c) == wanted.text]
        if found:
            return found
    return []


def remarks(wanted: Wanted, fits: Sequence[Combination]) -> list[str]:
    """What to say where several combinations fit: the first is taken."""
    if len(fits) == 1:
        return []
    return [
        f"{len(fits)} combinations are {wanted.text or DEFAULT}; the baseline is the first of "
        f"them, {fits[0].label}; name another with --baseline"
    ]


def missing(wanted: Wanted, found: Iterable[Block]) -> ConfigError:
    """What to say where no block has the baseline."""
    names: set[str] = set()
    for block in found:
        names.update(c.label for c in block.combinations)
    if wanted.pairs:
        return ConfigError(
            f"--baseline {wanted.text}: no combination has all of these; there are "
            + ", ".join(sorted(names))
        )
    return ConfigError(f"--baseline: {unknown('combination', wanted.text or '', names)}")


def _differing(combinations: list[Combination]) -> list[str]:
    keys = {key for one in combinations for key in one.config}
    return sorted(
        key.removesuffix(".name")
        for key in keys
        if len({one.config.get(key) for one in combinations}) > 1
    )


def _has(combination: Combination, key: str, value: str) -> bool:
    found = _values(combination, key)
    if value in found:
        return True
    try:
        number = float(value)
    except ValueError:
        return False
    own = combination.config.get(key)
    return isinstance(own, int | float) and not isinstance(own, bool) and own == number


def _values(combination: Combination, key: str) -> list[str]:
    """What ``key=`` may be called: the choice of a group, its component's name, or the value."""
    found = []
    if key in combination.choices:
        found.append(combination.choices[key])
    for name in (key, f"{key}.name"):
        if name in combination.config:
            found.append(shown(combination.config[name]))
    return found
