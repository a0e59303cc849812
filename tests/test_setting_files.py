"""The line in which a setting stands is the one that a reader would point at."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from khlone.setting_files import flatten, git_lines, toml_lines

TOML = '''# a comment
agent = "a"   # why
"plugins.timeout" = 60
list = [
  "one",
  # [not.a.table]
  "two",
]
text = """
[gate]
required = false
"""

[gate]
required = true
dotted.key = 1

[ agents . "my.own" ]
variable = "X"
[[rows]]
cell = 1
'''
GIT = """[core]
\tagent = not this
[khlone]
\tagent = first
\tagent = second ; the last counts
[khlone "gate"] required
[khlone "agents.Mine"]
\tvariable = A \\
\tcommand
\tcommand = "run # it"
[Khlone.limits]
  sessions=3
"""


def test_a_key_of_toml_is_found_where_its_value_begins() -> None:
    assert toml_lines(TOML) == {
        "agent": 2,
        "plugins.timeout": 3,
        "list": 4,
        "text": 9,
        "gate.required": 15,
        "gate.dotted.key": 16,
        "agents.my.own.variable": 19,
        "rows.cell": 21,
    }


def test_a_key_of_git_is_found_where_it_stands_last() -> None:
    found = git_lines(GIT)

    assert (found["agent"], found["gate.required"], found["agents.mine.command"]) == (5, 6, 10)
    assert found["limits.sessions"] == 12


KEY = st.sampled_from(["a", "b", '"c.d"', "e.f"])
VALUE = st.sampled_from(["1", '"x"', "true", "[1,\n 2]", '"""\nb = 1\n[c]\n"""', "{ g = 1 }"])
STATEMENT = st.one_of(
    st.builds("{} = {}".format, KEY, VALUE), st.builds("[{}]".format, KEY), st.sampled_from(["# a = 1", ""])
)


@given(statements=st.lists(STATEMENT, max_size=8))
def test_every_key_of_a_file_that_can_be_read_has_a_line(statements: list[str]) -> None:
    text = "\n".join(statements)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return

    assert set(toml_lines(text)) == {key for key, _ in flatten(document)}


@pytest.mark.parametrize("text", ["a = ", "[", "\udcff", "a = 1\nb = [\n" + "1,\n" * 1000])
def test_what_cannot_be_read_has_no_lines_and_no_end(text: str) -> None:
    assert set(toml_lines(text)) <= {"a"}
