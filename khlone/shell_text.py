"""Which words does a shell text consist of, and what may be a path among them?

The text is taken apart as `sh` would: quotes, comments, redirections, where a command
begins, texts within quotes (`sh -c '...'`), and the variables whose values are known.
Every part says where it stands in the text, so that something else can be put there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from khlone.values import dataclass

#: What stands for a value that is known only when the command runs; no path has it.
UNKNOWN = "\0"
_NESTED_MOST = 4
_SEPARATORS = ";|&()`\n"
_BLANK = " \t\r"
#: What makes a quoted word worth being read as a shell text of its own.
_NESTING = _SEPARATORS + _BLANK + "$\"'\\"
_LONGEST = 4096
#: Words after which a command still begins.
_PREFIXES = frozenset(
    [
        "if",
        "then",
        "else",
        "elif",
        "do",
        "while",
        "until",
        "!",
        "time",
        "exec",
        "command",
        "env",
        "nohup",
        "nice",
        "sudo",
        "builtin",
    ]
)
_SOURCES = frozenset({".", "source"})
_INTERPRETER = re.compile(
    r"(?:ba|da|z|k|mk|fi|a|c|tc)?sh|python[0-9.]*|node|ruby|perl|php|lua|deno|bun|tsx|awk|pwsh|osascript"
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*)")


def mentions(text: str, variables: Mapping[str, str]) -> Iterator[Mention]:
    """Every part of the text that may be a path, words before their parts."""
    letters = [Letter(letter=letter, start=at, end=at + 1, quoted=0) for at, letter in enumerate(text)]
    return _mentions(letters, variables, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One letter of a value: where it stands in the text, and in which quoted part (0: none)."""

    letter: str
    start: int
    end: int
    quoted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """A part of a word that may be a path; `interpreter` is the one that it is an operand of."""

    value: str
    span: tuple[int, int] | None
    leads: bool = False
    sourced: bool = False
    interpreter: object | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Word:
    """One word of a command, but for those that `>` writes to; a command may begin with one that leads.

    `span` is where it stands, its quotes included.
    """

    letters: Sequence[Letter]
    span: tuple[int, int] | None
    quoted: bool
    leads: bool

    @property
    def value(self) -> str:
        return "".join(one.letter for one in self.letters)


def _mentions(text: Sequence[Letter], variables: Mapping[str, str], depth: int) -> Iterator[Mention]:
    interpreter: object | None = None
    sourcing = False
    for word in _Words(text, variables, depth):
        if word.leads:
            interpreter, sourcing = None, False
        for letters in _parts(word.letters):
            part = "".join(one.letter for one in letters)
            whole = len(letters) == len(word.letters)
            if part and "\n" not in part and len(part) < _LONGEST:
                yield Mention(
                    value=part,
                    span=word.span if whole else _place(letters),
                    leads=word.leads and whole,
                    sourced=sourcing and whole,
                    interpreter=interpreter if whole else None,
                )
        value = word.value
        if word.quoted and depth < _NESTED_MOST and any(mark in value for mark in _NESTING):
            yield from _mentions(word.letters, variables, depth + 1)
        if _INTERPRETER.fullmatch(os.path.basename(value)):
            interpreter = word
        sourcing = value in _SOURCES


def _parts(letters: Sequence[Letter]) -> Iterator[Sequence[Letter]]:
    """A word, and what stands behind or between its `=`, `:`, `,` and `@`, or behind a short option."""
    yield letters
    starts = [at + 1 for at, one in enumerate(letters) if one.letter in "=:,@"]
    for first, last in zip([0, *starts], [*(at - 1 for at in starts), len(letters)], strict=True):
        if last - first < len(letters):
            yield letters[first:last]
    if len(letters) > 2 and letters[0].letter == "-" and letters[1].letter != "-":
        yield letters[2:]


def _place(letters: Sequence[Letter]) -> tuple[int, int] | None:
    """Where the letters stand, if another word may stand there: begun and ended in the same quotes, or in none."""
    first, last = letters[0], letters[-1]
    return (first.start, last.end) if first.quoted == last.quoted else None


class _Words:
    """The words of a text, in their order."""

    def __init__(self, letters: Sequence[Letter], variables: Mapping[str, str], depth: int) -> None:
        self._letters, self._variables = letters, variables
        self._text = "".join(one.letter for one in letters)
        self._at = 0
        #: Each quoted part has a number of its own, in nested texts too.
        self._quotes = depth * 1_000_000
        self._inside = 0
        self._word: list[Letter] = []
        self._started = 0
        self._has_word = self._is_quoted = False
        #: The `<` or `>` that the next word is the operand of.
        self._redirects = ""
        self._leads = True

    def __iter__(self) -> Iterator[_Word]:
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter in _BLANK + _SEPARATORS + "<>":
                yield from self._end()
                self._leads = self._leads or letter in _SEPARATORS
                if letter not in _BLANK and not (self._redirects and letter == ">"):
                    self._redirects = letter if letter in "<>" else ""
                self._at += 1
            elif letter == "#" and not self._has_word:
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                self._take(letter)
        yield from self._end()

    def _end(self) -> Iterator[_Word]:
        if not self._has_word:
            return
        leads = self._leads and not self._redirects
        span = _place(self._letters[self._started : min(self._at, len(self._letters))])
        word = _Word(letters=tuple(self._word), span=span, quoted=self._is_quoted, leads=leads)
        if word.letters and self._redirects != ">":
            yield word
        if leads and not (word.value in _PREFIXES or _ASSIGNMENT.match(word.value)):
            self._leads = False
        self._word, self._has_word, self._is_quoted, self._redirects = [], False, False, ""

    def _take(self, letter: str) -> None:
        if not self._has_word:
            self._has_word, self._started = True, self._at
        if letter == "'":
            end = self._text.find("'", self._at + 1)
            end = len(self._text) if end < 0 else end
            self._quote()
            for at in range(self._at + 1, end):
                self._keep(at, at + 1, self._text[at])
            self._unquote(end)
        elif letter == '"':
            self._quote()
            self._at += 1
            while self._at < len(self._text) and self._text[self._at] != '"':
                if self._text[self._at] == "\\" and self._text[self._at + 1 : self._at + 2] in ("$", "`", '"', "\\"):
                    self._keep(self._at, self._at + 2, self._text[self._at + 1])
                    self._at += 2
                elif not self._variable():
                    self._keep(self._at, self._at + 1, self._text[self._at])
                    self._at += 1
            self._unquote(self._at)
        elif letter == "\\":
            following = self._text[self._at + 1 : self._at + 2]
            if following not in ("", "\n"):
                self._keep(self._at, self._at + 2, following)
            self._at += 2
        elif not self._variable():
            self._keep(self._at, self._at + 1, letter)
            self._at += 1

    def _variable(self) -> bool:
        """Take a variable, its value if that is known; False where none begins."""
        if self._text[self._at] != "$":
            return False
        found = _NAME.match(self._text, self._at + 1)
        if found is None:
            if self._text[self._at + 1 : self._at + 2] == "{":
                end = self._text.find("}", self._at)
                end = len(self._text) if end < 0 else end + 1
                self._keep(self._at, end, UNKNOWN)
                self._at = end
                return True
            return False
        value = self._variables.get(found[1] or found[2], UNKNOWN)
        for letter in value:
            self._keep(self._at, found.end(), letter)
        self._at = found.end()
        return True

    def _quote(self) -> None:
        self._quotes += 1
        self._is_quoted = True
        self._inside = self._quotes

    def _unquote(self, end: int) -> None:
        self._inside = 0
        self._at = end + 1

    def _keep(self, start: int, end: int, letter: str) -> None:
        first, last = self._letters[start], self._letters[min(end, len(self._letters)) - 1]
        self._word.append(Letter(letter=letter, start=first.start, end=last.end, quoted=self._inside or first.quoted))
