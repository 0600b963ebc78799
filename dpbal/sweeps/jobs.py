"""Turns what is swept into jobs, each with the name of its directory."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpbal.errors import ConfigError
from dpbal.overrides import discrete_values, merge, parse
from dpbal.sweeps.draws import draw

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

LONGEST_NAME = 180
"""Characters of a directory's name; file systems take 255 bytes."""

UNNAMED = re.compile(r"[~+]*(hydra|sweep|progress|tracker)\b")
"""Overrides that change no result, so that the directory does not bear them."""

CROSSED = "seed"
"""Never drawn: every draw is run with every seed, so that draws can be compared in pairs."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    Attributes:
        overrides: As they would be typed for this run alone.
    """

    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of its directory: its overrides in the order of the alphabet.

        It depends on nothing else, so that a sweep with more values has those of its runs that it
        had before where they were.
        """
        named = sorted(line for line in self.overrides if not UNNAMED.match(line))
        whole = ",".join(named) or "default"
        plain = re.sub(r"[^\w.,=+-]", "_", whole, flags=re.ASCII)
        if plain == whole and len(whole) <= LONGEST_NAME:
            return whole
        digest = hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()
        return f"{plain[: LONGEST_NAME - len(digest) - 1]}-{digest}"


def expand(
    params: Mapping[str, Any],
    arguments: Sequence[str],
    samples: int | None = None,
    seed: int = 0,
    loader: ConfigLoader | None = None,
) -> list[Job]:
    """The jobs of a sweep, in the order of their values, each once.

    Args:
        params: Values by key, as the config has them.
        arguments: Overrides as typed; a key here takes the place of the same one in ``params``.
        samples: Draws of a random search; None for every combination.
        seed: Of the draws.
        loader: Knows what ``glob(*)`` stands for.

    Raises:
        ConfigError: For a sweep of nothing, of what changes no result, or of what cannot be listed
            or drawn.
    """
    saved = parse([f"{key}={value}" for key, value in params.items()], loader)
    overrides = {o.key_or_group: o for o in merge(saved, parse(arguments, loader))}
    drawn: list[dict[str, str]] = [{}]
    if samples is not None:
        choices = {k: o for k, o in overrides.items() if o.is_sweep_override() and k != CROSSED}
        drawn = draw(choices, samples, seed)
    jobs = []
    for values in drawn:
        lists = [[values[k]] if k in values else _listed(o) for k, o in overrides.items()]
        jobs += [Job(tuple(lines)) for lines in itertools.product(*lists)]
    if not jobs:
        raise ConfigError("the sweep is empty: one of its values matches nothing")
    distinct = list(dict.fromkeys(jobs))
    _check_names(distinct)
    return distinct


def _check_names(jobs: list[Job]) -> None:
    """Refuse jobs that would write into one directory."""
    named: dict[str, Job] = {}
    for job in jobs:
        other = named.setdefault(job.name, job)
        if other is not job:
            pairs = zip(other.overrides, job.overrides, strict=True)
            one, two = next(pair for pair in pairs if pair[0] != pair[1])
            raise ConfigError(
                f"{one} and {two} give the same results, so a sweep runs only one of them; "
                f"give {one.partition('=')[0]} one value"
            )


def _listed(override: Override) -> list[str]:
    if override.is_interval_sweep():
        raise ConfigError(
            f"{override.input_line} is a range to draw from; say how often: "
            "hydra.sweeper.samples=20"
        )
    return discrete_values(override)
