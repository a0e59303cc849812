"""An element goes into a JSON text and out again, and every other byte stays."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khlone import json_text

PATH = ("hooks", "Made")
OURS = {"hooks": [{"command": 'ours "{}" é'}]}


def is_ours(element: Any) -> bool:
    """Whether an element is the one that was put in."""
    return bool(element == OURS)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{}\n",
        '{"a":1}',
        '{ "a" : 1 }',
        '{"hooks":{"Other":[]}}',
        '{\n  "a": "}",\n  "hooks": {\n    "Made": [\n      {"x": 1}\n    ]\n  }\n}\n',
        '{\r\n\t"hooks": {\r\n\t\t"Made": ["[,"],\r\n\t\t"b": 2\r\n\t},\r\n\t"z": 1\r\n}',
    ],
)
def test_what_was_put_in_goes_out_without_a_trace(text: str) -> None:
    made = json_text.appended(text, PATH, OURS)

    assert json.loads(made)["hooks"]["Made"][-1] == OURS
    assert json_text.without(made, PATH, is_ours) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
OBJECT = st.dictionaries(st.text(), JSON)


@given(
    rest=OBJECT,
    hooks=st.dictionaries(st.text(), JSON),
    listed=st.lists(JSON),
    indent=st.sampled_from([None, 0, 1, 2, "\t"]),
)
def test_nothing_else_changes_whatever_the_text_holds(
    rest: dict[str, Any], hooks: dict[str, Any], listed: list[Any], indent: Any
) -> None:
    known = {**rest, "hooks": {**hooks, "Made": listed}}
    text = json.dumps(known, indent=indent)

    made = json_text.appended(text, PATH, OURS)

    assert json.loads(made) == {**known, "hooks": {**known["hooks"], "Made": [*listed, OURS]}}
    assert json.loads(json_text.without(made, PATH, lambda one: one == OURS)).get("hooks", {}).get("Made", []) == [
        one for one in listed if one != OURS
    ]
    if listed:
        assert json_text.without(made, PATH, is_ours) == text


@pytest.mark.parametrize("text", ["[]", "{", '{"hooks": []}', '{"hooks": {"Made": {}}}', "// no\n{}", '{"a": 1,}'])
def test_a_text_that_is_something_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        json_text.appended(text, PATH, OURS)


def test_an_absent_text_becomes_a_document() -> None:
    assert json.loads(json_text.appended("", PATH, OURS)) == {"hooks": {"Made": [OURS]}}
