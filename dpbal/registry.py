"""Named families of dataclasses: a component's fields are its config schema."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from dpbal.errors import ConfigError, unknown
from dpbal.finite import require_finite

T = TypeVar("T")
C = TypeVar("C", bound=type)


class Registry(Generic[T], Mapping[str, type[T]]):
    """One family of components, by the names that configs use.

    Args:
        kind: What a member is called in messages, such as ``"balancer"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, type[T]] = {}

    def register(self, *names: str) -> Callable[[C], C]:
        """Class decorator: make a dataclass known under one or several names, and return it."""

        def add(cls: C) -> C:
            for name in names:
                if name in self._classes:
                    raise ValueError(f"{self.kind} {name!r} is registered twice")
                self._classes[name] = cls
            return cls

        return add

    def build(self, name: str, /, params: Mapping[str, Any]) -> T:
        """Make the component called ``name`` from plain config values, checked against its fields.

        Raises:
            ConfigError: For an unknown name or field, or a value of the wrong type or range.
        """
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        cls = self[name]
        fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for key in params:
            if key not in fields:
                raise ConfigError(f"{self.kind} {name!r}: {unknown('key', str(key), fields)}")
        try:
            config = OmegaConf.merge(OmegaConf.structured(cls), dict(params))
            require_finite(OmegaConf.to_container(config), self.kind)
            component = OmegaConf.to_object(config)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            where = f" ({self.kind}.{error.full_key})" if error.full_key else ""
            raise ConfigError(f"{self.kind} {name!r}: {reason}{where}") from None
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{self.kind} {name!r}: {error}") from None
        return component  # type: ignore[return-value]

    def describe(self, component: T) -> dict[str, Any]:
        """The node of a config that a component could have been built from.

        Raises:
            ConfigError: If its class is not registered.
        """
        for name, cls in self._classes.items():
            if cls is type(component):
                return {"name": name, **dataclasses.asdict(component)}  # type: ignore[call-overload]
        raise ConfigError(unknown(self.kind, type(component).__name__, self._classes))

    def __getitem__(self, name: str) -> type[T]:
        try:
            return self._classes[name]
        except KeyError:
            raise ConfigError(unknown(self.kind, name, self._classes)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)
