"""What a comparison may be asked to do: its sides, and over what verdicts are corrected."""

from __future__ import annotations

from enum import StrEnum


class By(StrEnum):
    """What one side of a comparison is."""

    combination = "combination"
    """Runs whose config is the same but for seed, window and name."""
    argument = "argument"
    """Runs that one word of the command line named, such as those of another version."""


class Correction(StrEnum):
    """Over what Holm's correction is made, so that the level holds for all of it together."""

    holm = "holm"
    """The metrics of one combination."""
    holm_all = "holm-all"
    """All combinations and metrics under one setting."""
    none = "none"
    """Nothing: the level holds for each verdict by itself."""
