"""Two sides' changes to one JSON object come together key by key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khlone.json_merge import MISSING, merge, same, value_at, with_value

DEPTHS = {"servers": 2, "projects": 4}


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged", "changed", "conflicts"),
    [
        ({}, {}, {"a": 1}, {"a": 1}, ["a"], []),
        ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 2}, ["a"], []),
        ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}, [], []),
        ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}, [], ["a"]),
        ({"a": 1}, {"a": 2}, {"a": 2}, {"a": 2}, [], []),
        ({"a": 1}, {"a": 1}, {}, {}, ["a"], []),
        ({"a": 1}, {"a": 2}, {}, {"a": 2}, [], ["a"]),
        ({"a": 1}, {}, {"a": 2}, {}, [], ["a"]),
        ({"a": True}, {"a": True}, {"a": 1}, {"a": 1}, ["a"], []),
        ({"a": {"x": 1}}, {"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 2}}, ["a"], []),
        (
            {"servers": {"x": {"c": 1}}},
            {"servers": {"x": {"c": 1}, "mine": {}}},
            {"servers": {"x": {"c": 2}, "new": {"c": 3}}},
            {"servers": {"x": {"c": 2}, "mine": {}, "new": {"c": 3}}},
            ["servers.x", "servers.new"],
            [],
        ),
        ({}, {}, {"servers": {"x": {}}}, {"servers": {"x": {}}}, ["servers.x"], []),
        (
            {"projects": {"/r": {"m": {"a": 1}}}},
            {"projects": {"/r": {"m": {"a": 1}, "cost": 3}, "/o": {}}},
            {"projects": {"/r": {"m": {"a": 1, "b": 2}}}},
            {"projects": {"/r": {"m": {"a": 1, "b": 2}, "cost": 3}, "/o": {}}},
            ["projects./r.m.b"],
            [],
        ),
        ({"l": [1, 2]}, {"l": [1, 2, 3]}, {"l": [2, 4]}, {"l": [2, 3, 4]}, ["l"], []),
        ({"l": [{}]}, {"l": [{}, 1]}, {"l": [{}, 2]}, {"l": [{}, 1]}, [], ["l"]),
    ],
)
def test_a_change_of_one_side_counts_and_of_both_is_a_conflict(
    base: dict[str, Any],
    ours: dict[str, Any],
    theirs: dict[str, Any],
    merged: dict[str, Any],
    changed: list[str],
    conflicts: list[str],
) -> None:
    found = merge(base, ours, theirs, DEPTHS)

    assert found.content == merged
    assert same(dict(found.content), merged)
    assert [".".join(path) for path in found.changed] == changed
    assert [".".join(path) for path in found.conflicts] == conflicts


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("xy"), inner, max_size=2),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "servers", "projects"]), VALUES, max_size=3)


@given(OBJECTS, OBJECTS)
def test_one_side_that_changed_nothing_takes_the_other(base: dict[str, Any], changed: dict[str, Any]) -> None:
    forward, back = merge(base, base, changed, DEPTHS), merge(base, changed, base, DEPTHS)

    assert same(dict(back.content), changed)
    assert (back.changed, back.conflicts, forward.conflicts) == ([], [], [])
    assert same(dict(forward.content), changed)


@given(OBJECTS, OBJECTS, OBJECTS)
def test_what_is_not_said_to_have_changed_has_not(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    found = merge(base, ours, theirs, DEPTHS)

    again: dict[str, Any] = ours
    for path in found.changed:
        again = with_value(again, path, value_at(found.content, path))
    assert same(again, dict(found.content))


def test_a_value_is_taken_out_by_putting_nothing_there() -> None:
    assert with_value({"a": {"b": 1, "c": 2}}, ("a", "b"), MISSING) == {"a": {"c": 2}}
    assert value_at({"a": 1}, ("a", "b")) is MISSING
