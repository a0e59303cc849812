"""How is a frozen value declared without paying for it at every start?

`dataclass(frozen=True, slots=True, kw_only=True)` of the standard library writes and
compiles six functions for each class, and importing it brings `inspect` along: 1.0 ms a
class and 10 ms on top in CPython 3.11. The decorator here gives the same classes one set
of shared functions: 0.03 ms a class. `dataclasses.fields`, `replace`, `asdict` and
`is_dataclass` work on them; type checkers see the standard decorator
(docs/decisions/0003-values-without-generated-code.md).
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
else:

    def dataclass(*, frozen: bool, slots: bool, kw_only: bool):
        """A class decorator; all three options must be true, so that a reader sees what he gets."""
        if not (frozen and slots and kw_only):
            raise TypeError("values are frozen, slotted and keyword-only")
        return _built

    def field(*, default_factory):
        """A default that is made anew for each value."""
        return _Factory(default_factory)

    def replace(value, /, **changes):
        """The same value with some fields changed."""
        return type(value)(**{name: getattr(value, name) for name in field_names(value)} | changes)


#: Stands for "no default"; no field has it.
_REQUIRED = object()


class _Factory:
    """The mark of a default that is made anew for each value."""

    __slots__ = ("make",)

    def __init__(self, make: Any) -> None:
        self.make = make


def field_names(value: object) -> tuple[str, ...]:
    """The names of the fields of a value, or of a class of them, in their order; empty for anything else."""
    spec: tuple[Any, ...] = getattr(value if isinstance(value, type) else type(value), "_spec", ())
    return tuple(one[0] for one in spec)


def plain(value: object) -> object:
    """A value as JSON can hold it: dataclasses as objects, paths and enums as texts."""
    names = field_names(value)
    if names:
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    return value


class _Fields:
    """What the functions of `dataclasses` look at, made when one of them first does."""

    def __get__(self, _: object, owner: Any) -> dict[str, Any]:
        import dataclasses

        found: dict[str, Any] = {}
        for name, _put, default, annotation in owner._spec:
            made: Any = dataclasses.field()
            if isinstance(default, _Factory):
                made = dataclasses.field(default_factory=default.make)
            elif default is not _REQUIRED:
                made = dataclasses.field(default=default)
            made.name, made.type, made.kw_only = name, annotation, True
            # The mark of an ordinary field, as against a class variable.
            made._field_type = dataclasses._FIELD  # type: ignore[attr-defined]
            found[name] = made
        owner.__dataclass_fields__ = found
        return found


def _built(cls: type) -> type:
    """The class again, with slots, fields and the shared functions."""
    annotations = vars(cls).get("__annotations__", {})
    namespace = {key: item for key, item in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    defaults = [namespace.pop(name, _REQUIRED) for name in annotations]
    namespace |= _SHARED
    namespace["__slots__"] = tuple(annotations)
    namespace["__dataclass_fields__"] = _Fields()
    made: Any = type(cls)(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    made._spec = tuple(
        (name, vars(made)[name].__set__, default, annotation)
        for (name, annotation), default in zip(annotations.items(), defaults, strict=True)
    )
    return made  # type: ignore[no-any-return]


def _init(self: Any, **given: Any) -> None:
    """Set every field by keyword, else by its default."""
    for name, put, default, _ in self._spec:
        if name in given:
            put(self, given.pop(name))
        elif default is _REQUIRED:
            raise TypeError(f"{type(self).__name__}() is missing {name!r}")
        else:
            put(self, default.make() if isinstance(default, _Factory) else default)
    if given:
        raise TypeError(f"{type(self).__name__}() has no {', '.join(map(repr, given))}")


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, one[0]) for one in self._spec)


def _repr(self: Any) -> str:
    shown = ", ".join(f"{one[0]}={getattr(self, one[0])!r}" for one in self._spec)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse(_self: object, name: str, *_: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot change field {name!r}")


def _getstate(self: Any) -> tuple[Any, ...]:
    return _values(self)


def _setstate(self: Any, state: tuple[Any, ...]) -> None:
    for one, item in zip(self._spec, state, strict=True):
        one[1](self, item)


_SHARED = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}
