"""Whatever fails together is found: minimal sets, nothing blamed that passes, as few questions as a search needs."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from khlone.operations import batches

COUNTS = st.integers(min_value=1, max_value=24)


def plan(count: int) -> st.SearchStrategy[list[frozenset[int]]]:
    """Sets of numbers that fail together."""
    one = st.frozensets(st.integers(min_value=0, max_value=count - 1), min_size=1, max_size=3)
    return st.lists(one, max_size=4)


@given(st.data())
def test_what_lands_passes_and_each_culprit_is_minimal(data: st.DataObject) -> None:
    count = data.draw(COUNTS)
    planted = data.draw(plan(count))

    def fails(selection: Sequence[int]) -> bool:
        return any(group <= set(selection) for group in planted)

    landing, culprits = batches.settle(count, fails)

    assert not fails(landing)
    assert sorted([*landing, *(one for group in culprits for one in group)]) == list(range(count))
    for group in culprits:
        assert fails(group)
        assert not any(fails([other for other in group if other != one]) for one in group if len(group) > 1)


@given(st.data())
def test_by_the_setting_the_first_of_each_culprit_stays(data: st.DataObject) -> None:
    count = data.draw(COUNTS)
    planted = [group for group in data.draw(plan(count)) if len(group) > 1]

    def fails(selection: Sequence[int]) -> bool:
        return any(group <= set(selection) for group in planted)

    landing, culprits = batches.settle(count, fails, first_lands=True)

    assert not fails(landing)
    assert {one for group in culprits for one in group[1:]} | set(landing) == set(range(count))


@given(COUNTS, st.data())
def test_no_selection_is_asked_twice_and_a_pair_is_found_by_few_questions(count: int, data: st.DataObject) -> None:
    pair = data.draw(st.frozensets(st.integers(min_value=0, max_value=count - 1), min_size=1, max_size=2))
    asked: list[tuple[int, ...]] = []

    def fails(selection: Sequence[int]) -> bool:
        asked.append(tuple(selection))
        return pair <= set(selection)

    batches.settle(count, fails)

    assert len(asked) == len(set(asked))
    assert all(list(one) == sorted(one) for one in asked)
    assert len(asked) <= 5 + 4 * count.bit_length()


@given(st.data())
def test_answers_that_contradict_each_other_still_come_to_an_end(data: st.DataObject) -> None:
    count = data.draw(st.integers(min_value=1, max_value=8))
    answers = data.draw(st.randoms(use_true_random=False))

    landing, culprits = batches.settle(count, lambda _: answers.random() < 0.5)

    assert sorted([*landing, *(one for group in culprits for one in group)]) == list(range(count))
