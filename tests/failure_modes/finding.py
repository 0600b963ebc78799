"""Turns a check into a test that dpbal passes and that finds what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple

import pytest

Check = Callable[..., None]


class Subject(NamedTuple):
    """What a check is run on.

    Attributes:
        thing: The implementation.
        finding: What the check must say of it; None where it must have nothing to say.
    """

    thing: Any
    finding: str | None = None


def finds(ours: Any, naive: Mapping[Any, str]) -> Callable[[Check], Check]:
    """Make a check of a ``subject`` a test of several.

    Args:
        ours: dpbal's, which must pass: one, several by name, or several as pytest's parameters.
        naive: The same thing as others had it, each with a pattern of what is found.
    """
    params = _params(ours)
    for thing, finding in naive.items():
        name = getattr(thing, "__name__", None) or thing.name
        params.append(pytest.param(Subject(thing, finding), id=name))

    def as_test(check: Check) -> Check:
        @wraps(check)
        def test(*, subject: Subject, **fixtures: Any) -> None:
            if subject.finding is None:
                check(subject=subject.thing, **fixtures)
                return
            with pytest.raises(AssertionError, match=subject.finding):
                check(subject=subject.thing, **fixtures)

        parametrized: Check = pytest.mark.parametrize("subject", params)(test)
        return parametrized

    return as_test


def _params(ours: Any) -> list[Any]:
    if isinstance(ours, Mapping):
        return [pytest.param(Subject(thing), id=name) for name, thing in ours.items()]
    if isinstance(ours, Sequence):
        return [pytest.param(Subject(*p.values), id=p.id, marks=p.marks) for p in ours]
    return [pytest.param(Subject(ours), id="dpbal")]
