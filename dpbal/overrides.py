"""What may be typed after ``dpbal-run``: groups and keys that exist, and what to say of others."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbal.errors import ConfigError, unknown

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

_PACKAGE = Path(__file__).parent
CONF = next(d for d in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if d.is_dir())
"""The folder of configs: inside the package in a wheel, beside it in a checkout."""

OPTIONAL = ("preset", "sweep", "experiment")
"""Groups of which nothing need be chosen, and several choices may be."""


def normalise(overrides: list[str]) -> list[str]:
    """Overrides as Hydra takes them.

    ``+group=choice`` becomes ``group=choice``, as every group already has a default, and
    ``preset=null`` goes, as it is the default and Hydra has no word for it.
    """
    groups = {file.parent.relative_to(CONF).as_posix() for file in CONF.rglob("*.yaml")}
    defaults = {f"{sign}{group}=null" for group in OPTIONAL for sign in ("", "+")}
    overrides = [o for o in overrides if o not in defaults]
    return [o[1:] if o[:1] == "+" and o[1:].partition("=")[0] in groups else o for o in overrides]


def parse(overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Read overrides by Hydra's grammar.

    Args:
        overrides: As typed.
        loader: Knows what ``glob(*)`` stands for; without it there is nothing that it stands for.

    Raises:
        ConfigError: For one that is not ``key=value``.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except OverrideParseException as error:
        reason = error.message.splitlines()[0]
        raise ConfigError(f"cannot read {error.override!r}: {reason}; type key=value") from None


def reject_unknown(
    overrides: list[Override], keys: Collection[str], loader: ConfigLoader, search: list[str]
) -> None:
    """Raise an error for the first override whose group, choice or top-level key does not exist.

    Args:
        overrides: What was typed.
        keys: Top-level keys that a config may have.
        loader: Knows the groups and their choices.
        search: Overrides that add folders to those that are searched.

    Raises:
        ConfigError: With the nearest name that does exist.
    """
    from hydra.core.object_type import ObjectType

    groups = set(loader.get_group_options("", ObjectType.GROUP, "config", search)) - {"hydra"}
    chosen: dict[str, str | None] = {}
    for override in overrides:
        key = override.key_or_group
        top = re.split("[./]", key)[0]
        if top == "hydra":
            continue
        if top not in groups and top not in keys:
            raise ConfigError(f"{override.input_line}: {unknown('key', top, groups.union(keys))}")
        if override.value() == {} and not override.is_delete():
            raise ConfigError(
                f"{override.input_line} changes nothing, as keys are added to those that are "
                f"there; type '{key}={{KEY: VALUE}}'"
            )
        if key in groups:
            known = loader.get_group_options(key, ObjectType.CONFIG, "config", search)
            _reject_several(override, chosen.setdefault(key, override.input_line))
            if override.value() is None and not override.is_delete():
                raise ConfigError(
                    f"{override.input_line}: type {key}= and one of {', '.join(known)}"
                )
            if re.search(r"[=,]\s*null\s*,|,\s*null\s*$", override.input_line or ""):
                raise ConfigError(
                    f"{override.input_line}: null is no choice of a sweep; leave it out"
                )
            for choice in _choices(override):
                if choice not in known:
                    raise ConfigError(unknown(key, choice, known))


def merge(saved: Iterable[Override], typed: Iterable[Override]) -> list[Override]:
    """Overrides of which the later take the place of earlier ones of the same key."""
    return list({override.key_or_group: override for override in (*saved, *typed)}.values())


def jobs(overrides: list[Override], is_sweep: bool) -> Iterator[list[str]]:
    """Overrides of jobs that together hold every value of a sweep at least once.

    Yields:
        The first job of the sweep, then one for each further value with the others at their first.

    Raises:
        ConfigError: For several values where ``is_sweep`` is false, and for a sweep of none.
    """
    values = [_values(override) for override in overrides]
    for override, several in zip(overrides, values, strict=True):
        if not several:
            raise ConfigError(f"{override.input_line} matches nothing")
        if override.is_interval_sweep() and not is_sweep:
            raise ConfigError(
                f"{override.input_line} is a range to draw from: add -m and say how often, "
                "hydra.sweeper.samples=20"
            )
        if override.is_sweep_override() and not is_sweep:
            raise ConfigError(
                f"{override.input_line} is a sweep: add -m to run each of its {len(several)} "
                f"values, or type '{override.get_key_element()}=[...]' for one list"
            )
    first = [several[0] for several in values]
    yield first
    for place, several in enumerate(values):
        for value in several[1:]:
            yield [*first[:place], value, *first[place + 1 :]]


def discrete_values(override: Override) -> list[str]:
    """The override, once for each value of its sweep; an interval has no such list."""
    if not override.is_sweep_override():
        return [override.input_line or ""]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _values(override: Override) -> list[str]:
    """The override, once for each value of its sweep, or for both ends of an interval."""
    if not override.is_interval_sweep():
        return discrete_values(override)
    interval: Any = override.value()
    return [f"{override.get_key_element()}={end}" for end in (interval.start, interval.end)]


def _reject_several(override: Override, first: str | None) -> None:
    """Of a list of choices, and of a group that is given twice, Hydra would take the last."""
    key, line = override.key_or_group, override.input_line
    if first != line or first is None:
        lists = f", or several of it as '{key}=[...]'" if key in OPTIONAL else ""
        raise ConfigError(
            f"{first} and {line} exclude each other: give {key} once{lists}, "
            f"or run both with -m {key}=FIRST,SECOND"
        )
    value = override.value()
    if isinstance(value, list) and key not in OPTIONAL:
        names = ",".join(str(name) for name in value)
        raise ConfigError(f"{line}: {key} takes one choice; to run each, type -m {key}={names}")


def _choices(override: Override) -> list[str]:
    """Names that an override of a group chooses."""
    if override.is_delete() or override.is_interval_sweep():
        return []
    value = override.value()
    if override.is_sweep_override():
        value = [getattr(choice, "text", choice) for choice in override.sweep_iterator()]
    chosen = value if isinstance(value, list) else [value]
    return [str(choice) for choice in chosen if choice is not None and not isinstance(choice, dict)]
