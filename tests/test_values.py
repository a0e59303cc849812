"""Values behave like the frozen, slotted, keyword-only dataclasses that type checkers take them for."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from khlone import values
from khlone.model import Holds, Kept
from khlone.profiles import AgentProfile


@values.dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """The class under test."""

    number: int
    text: str = "t"
    names: list[str] = values.field(default_factory=list)

    @property
    def double(self) -> int:
        """A property stays one."""
        return self.number * 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """What it is compared with."""

    number: int
    text: str = "t"
    names: list[str] = dataclasses.field(default_factory=list)

    @property
    def double(self) -> int:
        """A property stays one."""
        return self.number * 2


BOTH = pytest.mark.parametrize("kind", [Ours, Standard])


@BOTH
def test_fields_come_by_keyword_and_defaults_are_made_anew(kind: Any) -> None:
    one, other = kind(number=1), kind(number=1, text="x", names=["n"])

    assert (one.number, one.text, one.names, one.double) == (1, "t", [], 2)
    assert (other.text, other.names) == ("x", ["n"])
    assert one.names is not kind(number=1).names


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [lambda kind: kind(), lambda kind: kind(number=1, other=2), lambda kind: kind(1)],
    ids=["missing", "unknown", "positional"],
)
def test_a_missing_an_unknown_or_a_positional_field_is_an_error(kind: Any, wrong: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError):
        wrong(kind)


@BOTH
def test_nothing_can_be_changed_or_added(kind: Any) -> None:
    one = kind(number=1)

    with pytest.raises(dataclasses.FrozenInstanceError):
        one.number = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.number
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):
        one.unheard_of = 2
    assert not hasattr(one, "__dict__")


@BOTH
def test_equal_values_are_equal_and_hash_alike(kind: Any) -> None:
    assert kind(number=1) == kind(number=1)
    assert kind(number=1) != kind(number=2)
    assert kind(number=1) != "1"
    assert kind(number=1) != Kept(name="a", code="b", message="c")
    assert hash(kind(number=1, names=())) == hash(kind(number=1, names=()))


@BOTH
def test_the_functions_of_dataclasses_work(kind: Any) -> None:
    one: Any = kind(number=1, names=["n"])

    assert [field.name for field in dataclasses.fields(kind)] == ["number", "text", "names"]
    assert dataclasses.replace(one, number=2) == kind(number=2, names=["n"])
    assert dataclasses.asdict(one) == {"number": 1, "text": "t", "names": ["n"]}
    assert repr(one) == f"{kind.__qualname__}(number=1, text='t', names=['n'])"


@BOTH
def test_a_value_can_be_copied_and_pickled(kind: Any) -> None:
    one = kind(number=1, names=["n"])

    assert copy.copy(one) == one
    assert copy.deepcopy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one


def test_replace_and_field_names_are_those_of_dataclasses() -> None:
    kept = Kept(name="a", code="b", message="c")

    assert values.replace(kept, code="x") == dataclasses.replace(kept, code="x")
    assert values.field_names(kept) == tuple(field.name for field in dataclasses.fields(kept))
    assert values.field_names(Path("a")) == ()
    assert dataclasses.is_dataclass(Kept)
    with pytest.raises(TypeError):
        values.replace(kept, unheard_of=1)  # type: ignore[call-arg]


def test_what_is_not_frozen_slotted_and_keyword_only_is_refused() -> None:
    with pytest.raises(TypeError):
        values.dataclass(frozen=False, slots=True, kw_only=True)(Holds)


def test_a_plugin_can_build_on_a_value_of_the_model() -> None:
    profile = AgentProfile(name="mine")

    assert dataclasses.replace(profile, executable="mine").environment == {}
