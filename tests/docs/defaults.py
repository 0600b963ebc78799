"""The table of every key and its default, from ``conf/`` and the docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from omegaconf import OmegaConf

from dpbal.config import Capacity, Config, Group, LedgerConfig, Slo
from dpbal.overrides import CONF
from dpbal.parts import FAMILIES, registry
from dpbal.step_time import StepTime

GROUPS = (*FAMILIES, "profile", "preset", "sweep", "experiment")


def defaults() -> str:
    """One table of every key of every group."""
    rows = ["| type | default | what it is |", "|---|---|---|"]
    root = _root()
    for part, keys in (("group", Group), ("ledger", LedgerConfig), ("slo", Slo)):
        for name, meaning in arguments(keys).items():
            rows.append(_row(f"{part}.{name}", root[part][name], meaning))
    meanings = arguments(Config)
    rows.append(_row("capacity", root["capacity"], meanings["capacity"]))
    for name, meaning in arguments(Capacity).items():
        rows.append(_row(f"capacity.{name}", getattr(Capacity(), name), meaning))
    for name in ("seed", "compare", "progress", "name"):
        rows.append(_row(name, root[name], meanings[name]))
    for group in GROUPS:
        rows += _group(group, meanings.get(group, ""))
    return "\n".join(rows)


def load(group: str, name: str) -> dict[str, Any]:
    """The values of one choice, without its defaults list."""
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return {key: value for key, value in values.items() if key != "defaults"}


def choices(group: str) -> list[str]:
    """Names of a group's choices."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def arguments(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__doc__ or "")
        section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", text, re.MULTILINE)
        for name, meaning in re.findall(
            r"^    (\w+): (.*(?:\n     .*)*)", section[1] if section else "", re.MULTILINE
        ):
            text = " ".join(meaning.split()).replace("``", "`")
            found[name] = re.sub(r"\bNone\b", "`null`", text)
    return found


def _root() -> dict[str, Any]:
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml"))
    return dict(values)


def default_choice(group: str) -> str | None:
    for entry in _root()["defaults"]:
        if isinstance(entry, dict) and group in entry:
            chosen: str | None = entry[group]
            return chosen
    raise KeyError(group)


def _row(typed: str, value: Any, meaning: str) -> str:
    return f"| `{typed}` | {_shown(value)} | {meaning.replace('|', chr(92) + '|')} |"


def _shown(value: Any) -> str:
    """A value as it would be typed; a mixture of lengths in words."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Enum):
        return f"`{value.name}`"
    if isinstance(value, dict) and "parts" in value:
        parts = [
            f"{part['share']:g} x {part['mean_tokens']:g} (sigma {part['sigma']:g})"
            for part in value["parts"]
        ]
        return f"{' + '.join(parts)}, {value['min_tokens']:,} to {value['max_tokens']:,} tokens"
    if isinstance(value, dict):
        return "`{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}`"
    return f"`{value}`"


def _group(group: str, meaning: str) -> Iterator[str]:
    default = default_choice(group)
    also = ", ".join(f"`{name}`" for name in choices(group) if name != default)
    says = f"{meaning} Also: {also}." if also else meaning
    yield f"| **`{group}=`** | **{_shown(default)}** | {says.strip()} |"
    yield from _fields(group)
    if group == "profile":
        return
    for name in choices(group):
        differs = _differences(group, name)
        if differs:
            yield f"| `{group}={name}` | {differs} | {_comment(group, name)} |"


def _fields(group: str) -> Iterator[str]:
    """The keys of a group's components, each class once, with whose they are."""
    names_of: dict[type, list[str]] = {}
    for name in choices(group):
        cls = _class(group, name)
        if cls is not None:
            names = names_of.setdefault(cls, [])
            registered = load(group, name).get("name", name)
            if registered not in names:
                names.append(registered)
    owners: dict[tuple[str, str, str], list[str]] = {}
    for cls, names in names_of.items():
        meanings = arguments(cls)
        for key, value in _defaults_of(cls).items():
            if group == "profile":
                value = load(group, default_choice(group) or "")[key]
            if isinstance(value, str | dict) and cls is StepTime:
                continue
            owners.setdefault((key, _shown(value), meanings[key]), []).extend(names)
    everyone = [name for names in names_of.values() for name in names]
    for (key, shown, meaning), names in owners.items():
        whose = "" if len(names) == len(everyone) else f"({', '.join(names)}) "
        yield f"| `{group}.{key}` | {shown} | {whose}{meaning} |"


def _class(group: str, name: str) -> type | None:
    if group == "profile":
        return StepTime
    if group not in FAMILIES:
        return None
    cls: type = registry(group)[load(group, name)["name"]]
    return cls


def _defaults_of(cls: type) -> dict[str, Any]:
    # a component may need more than its defaults to be valid, so none is made
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        made = field.default_factory() if callable(field.default_factory) else field.default
        values[field.name] = dataclasses.asdict(made) if dataclasses.is_dataclass(made) else made  # type: ignore[arg-type]
    return values


def _differences(group: str, name: str) -> str:
    """What a choice sets that its class does not, and which other choices it brings."""
    text: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    sets = []
    for entry in text.pop("defaults", []):
        if isinstance(entry, dict):
            for key, value in entry.items():
                other = re.sub(r"^override /|@.*$", "", key)
                sets.append(f"`{other}={value}`")
    cls = _class(group, name)
    known = {} if cls is None else _defaults_of(cls)
    if cls is not None:
        registered = text.pop("name")
        if registered != name:
            sets.insert(0, f"`{registered}`")
    for key, value in text.items():
        was = known.get(key)
        if (was.name if isinstance(was, Enum) else was) == value:
            continue
        sets += _settings(key, value)
    return ", ".join(sets)


def _settings(key: str, value: Any) -> list[str]:
    if key == "hydra":
        return [f"a sweep of `{k}={v}`" for k, v in value["sweeper"]["params"].items()]
    if isinstance(value, dict) and "parts" not in value and key != "terms":
        return [setting for k, v in value.items() for setting in _settings(f"{key}.{k}", v)]
    shown = _shown(value)
    return [f"`{key}={shown[1:-1]}`" if shown.startswith("`") else f"{key}: {shown}"]


def _comment(group: str, name: str) -> str:
    """The first sentence of the comment that a file begins with."""
    lines = []
    for line in (CONF / group / f"{name}.yaml").read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return re.sub(r"(?<=\.) .*", "", " ".join(lines))
