"""How is an element put into, or taken out of, a JSON file of somebody else's so that every other byte stays?

The text is cut at the places where its parts begin and end; nothing is written anew but
what is put in. Both raise ValueError for a text that is no JSON object, or that has
something else where an object or an array is wanted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

#: Where a member or an element begins (its key, if it has one), where its value begins, and where that ends.
_Span: TypeAlias = tuple[int, int, int]

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
_INDENT = "  "


def appended(text: str, path: Sequence[str], element: object) -> str:
    """The text with an element more at the end of the array at a path of keys, made where it is not there."""
    if not text.strip():
        return json.dumps(_nested(path, [element]), indent=len(_INDENT)) + "\n"
    at = _root(text)
    for depth, key in enumerate(path):
        known = _members(text, at)
        if key not in known:
            member = f"{json.dumps(key)}: {{}}"
            return _with(text, at, list(known.values()), member, _nested(path[depth + 1 :], [element]))
        at = known[key][1]
    return _with(text, at, _elements(text, at), None, element)


def without(text: str, path: Sequence[str], is_meant: Callable[[Any], bool]) -> str:
    """The text without the elements at that path that are meant, and without what is empty by that."""
    found = _find(text, path)
    for span in reversed(found[1] if found else []):
        if is_meant(_DECODER.raw_decode(text, span[1])[0]):
            text = _cut(text, path, span)
    return text


def _cut(text: str, path: Sequence[str], span: _Span) -> str:
    found = _find(text, path)
    assert found is not None
    at, spans = found
    depth = len(path)
    # An array, and then an object, with nothing else in it goes as a whole.
    while len(spans) == 1 and depth > 0:
        depth -= 1
        at = _root(text)
        for key in path[:depth]:
            at = _members(text, at)[key][1]
        known = _members(text, at)
        span, spans = known[path[depth]], list(known.values())
    number = spans.index(span)
    if len(spans) == 1:
        return text[: at + 1] + text[_after(text, span[2]) :]
    if number:
        return text[: spans[number - 1][2]] + text[span[2] :]
    return text[: span[0]] + text[spans[1][0] :]


def _find(text: str, path: Sequence[str]) -> tuple[int, list[_Span]] | None:
    """Where the array at a path begins, and its elements; `None` where it is not there."""
    at = _root(text)
    for key in path:
        known = _members(text, at)
        if key not in known:
            return None
        at = known[key][1]
    return at, _elements(text, at)


def _with(text: str, at: int, spans: Sequence[_Span], key: str | None, value: object) -> str:
    """The text with one part more at the end of the object or array that begins at `at`; `key` has a `{}` to fill."""
    outer = text[text.rfind("\n", 0, at) + 1 : at]
    outer = outer[: len(outer) - len(outer.lstrip(" \t"))]
    space = text[at + 1 : spans[0][0]] if spans else f"\n{outer}{_INDENT}"
    inner = space[space.rfind("\n") + 1 :] if "\n" in space else None
    said = json.dumps(value, indent=None if inner is None else len(_INDENT))
    said = said if inner is None else said.replace("\n", f"\n{inner}")
    part = said if key is None else key.replace("{}", said)
    if spans:
        end = spans[-1][2]
        return f"{text[:end]},{space if space else ' '}{part}{text[end:]}"
    return f"{text[: at + 1]}{space}{part}\n{outer}{text[_after(text, at + 1) :]}"


def _nested(path: Sequence[str], value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


def _root(text: str) -> int:
    if not isinstance(json.loads(text), dict):
        raise ValueError("it is no JSON object")
    return _after(text, 0)


def _after(text: str, at: int) -> int:
    """The next place that is not white space."""
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _members(text: str, at: int) -> dict[str, _Span]:
    """The members of the object at a place, by their key; of several with one key the last counts."""
    if text[at] != "{":
        raise ValueError("there is no object where one is wanted")
    found: dict[str, _Span] = {}
    at = _after(text, at + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        value = _after(text, _after(text, end) + 1)
        last = _DECODER.raw_decode(text, value)[1]
        found[key] = (at, value, last)
        at = _next(text, last)
    return found


def _elements(text: str, at: int) -> list[_Span]:
    if text[at] != "[":
        raise ValueError("there is no array where one is wanted")
    found = []
    at = _after(text, at + 1)
    while text[at] != "]":
        last = _DECODER.raw_decode(text, at)[1]
        found.append((at, at, last))
        at = _next(text, last)
    return found


def _next(text: str, at: int) -> int:
    at = _after(text, at)
    return _after(text, at + 1) if text[at] == "," else at
