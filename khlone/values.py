"""How is a frozen value declared without paying for it at every start?

`dataclass(frozen=True, slots=True, kw_only=True)` of the standard library writes and
compiles six functions for each class: 1.0 ms a class in CPython 3.11, 45 ms for the
classes that `merge` loads. The decorator here gives the same classes (`dataclasses.fields`,
`replace`, `asdict` and `is_dataclass` work on them) one set of shared functions:
0.05 ms a class. Type checkers see the standard one
(docs/decisions/0003-values-without-generated-code.md).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool, slots: bool, kw_only: bool):
        """A class decorator; all three options must be true, so that a reader sees what he gets."""
        if not (frozen and slots and kw_only):
            raise TypeError("values are frozen, slotted and keyword-only")
        return _built


_MISSING = dataclasses.MISSING
#: The mark of an ordinary field, as against a class variable: what `dataclasses.fields` selects.
_ORDINARY = dataclasses._FIELD  # type: ignore[attr-defined]


def _built(cls: type) -> type:
    """The class again, with slots, fields and the shared functions."""
    annotations = vars(cls).get("__annotations__", {})
    namespace = {key: item for key, item in cls.__dict__.items() if key not in ("__dict__", "__weakref__")}
    fields = {}
    for name, annotation in annotations.items():
        fields[name] = _field(name, annotation, namespace.pop(name, _MISSING))
    namespace |= _SHARED
    namespace["__slots__"] = tuple(fields)
    namespace["__dataclass_fields__"] = fields
    namespace["__dataclass_params__"] = _PARAMS
    made = type(cls)(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    made._spec = tuple(  # type: ignore[attr-defined]
        (name, made.__dict__[name].__set__, field.default, field.default_factory) for name, field in fields.items()
    )
    return made


def _field(name: str, annotation: object, default: object) -> dataclasses.Field[Any]:
    field: Any = default if isinstance(default, dataclasses.Field) else dataclasses.field(default=default)
    field.name = name
    field.type = annotation
    field.kw_only = True
    field._field_type = _ORDINARY
    return cast("dataclasses.Field[Any]", field)


def _init(self: Any, **given: Any) -> None:
    """Set every field by keyword, else by its default."""
    for name, put, default, factory in self._spec:
        if name in given:
            put(self, given.pop(name))
        elif default is not _MISSING:
            put(self, default)
        elif factory is not _MISSING:
            put(self, factory())
        else:
            raise TypeError(f"{type(self).__name__}() is missing {name!r}")
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
    return bool(_values(self) == _values(other))


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse(_self: object, name: str, *_: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}")


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Standard:
    """Where the standard library's own parameters of such a class are taken from."""


_PARAMS = _Standard.__dataclass_params__  # type: ignore[attr-defined]
