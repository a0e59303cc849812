"""What does the commit say that lands a clone?

A squashed branch keeps what its commits said, who wrote them and who signed them off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from khlone.app import App
from khlone.errors import InvalidSetting
from khlone.model import CloneRecord
from khlone.values import dataclass

_MOST_SUBJECTS = 100
#: Whole messages above so many characters together are cut.
_MOST_TEXT = 64 << 10
#: A doubled brace is one that stands for itself.
_PLACEHOLDER = re.compile(r"(?P<brace>\{\{|\}\})|\{(?P<name>\w*)\}")
_TRAILER = r"[A-Za-z0-9][A-Za-z0-9-]*: \S.*"
_KEPT = r"(?i)(co-authored-by|signed-off-by): \S.*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A commit of a branch: its author as `NAME <ADDRESS>`, and its message."""

    is_merge: bool
    author: str
    message: str

    @property
    def subject(self) -> str:
        """The first paragraph as one line, as git has it."""
        return " ".join(self.message.split("\n\n", 1)[0].split("\n"))


def merge_message(clone: CloneRecord, target: str) -> str:
    """As `git merge` would say it."""
    into = "" if target in ("main", "master") else f" into {target}"
    return f"Merge branch '{clone.branch}'{into}\n"


def squash_message(
    clone: CloneRecord, target: str, commits: Sequence[Said], *, template: str | None, own_address: str | None
) -> str:
    """One commit keeps its own message; several become a list of their subjects, oldest first.

    `template` is said instead, with what its placeholders stand for. The trailers
    `Co-authored-by` and `Signed-off-by` of all commits are kept, and each author but the one
    with `own_address`, who is the author of the squashed commit, becomes a co-author.
    """
    told = [commit for commit in commits if not commit.is_merge and commit.message]
    message = told[0].message if len(told) == 1 else _listed(clone, commits, told)
    if template is not None:
        message = _filled(template, clone, target, commits, told, message)
    return _with_trailers(message.strip("\n"), _trailers(commits, own_address))


def check_template(template: str) -> None:
    """Raise InvalidSetting for a placeholder that stands for nothing."""
    for found in _PLACEHOLDER.finditer(template):
        name = found["name"]
        if found["brace"] is None and name not in PLACEHOLDERS:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise InvalidSetting(
                "khlone.squash.template", template, f"{{{name}}} stands for nothing; there are {known}"
            )


#: What may stand in a template.
PLACEHOLDERS = ("message", "subjects", "messages", "branch", "name", "target", "count")


def _filled(
    template: str, clone: CloneRecord, target: str, commits: Sequence[Said], told: Sequence[Said], message: str
) -> str:
    check_template(template)
    values = {
        "message": message.strip("\n"),
        "subjects": _subjects(told).strip("\n"),
        "messages": "\n\n".join(commit.message for commit in told)[:_MOST_TEXT],
        "branch": clone.branch,
        "name": clone.name,
        "target": target,
        "count": str(len(commits)),
    }
    return _PLACEHOLDER.sub(lambda found: found["brace"][0] if found["brace"] else values[found["name"]], template)


def _listed(clone: CloneRecord, commits: Sequence[Said], told: Sequence[Said]) -> str:
    return f"Squash branch '{clone.branch}' ({len(commits)} commits)\n\n{_subjects(told)}"


def _subjects(told: Sequence[Said]) -> str:
    listed = "".join(f"* {commit.subject}\n" for commit in told[:_MOST_SUBJECTS])
    return listed + (f"* and {len(told) - _MOST_SUBJECTS} more\n" if len(told) > _MOST_SUBJECTS else "")


def _trailers(commits: Sequence[Said], own_address: str | None) -> list[str]:
    """What is kept of trailers, and the authors beside the one who squashes, each once, in the order they come."""
    found: dict[str, str] = {}
    for commit in commits:
        if own_address is not None and not commit.is_merge and f"<{own_address.lower()}>" not in commit.author.lower():
            line = f"Co-authored-by: {commit.author}"
            found.setdefault(line.lower(), line)
        for line in _last_paragraph(commit.message):
            if re.fullmatch(_KEPT, line):
                found.setdefault(line.lower(), line)
    return list(found.values())


def _last_paragraph(message: str) -> list[str]:
    """The trailers of a message: its last paragraph, if it is not the first and all of it are such lines."""
    before, _, last = message.rstrip("\n").rpartition("\n\n")
    lines = last.split("\n")
    return lines if before and all(re.fullmatch(_TRAILER, line) for line in lines) else []


def _with_trailers(message: str, trailers: Sequence[str]) -> str:
    has = {line.lower() for line in message.split("\n")}
    added = [line for line in trailers if line.lower() not in has]
    if not added:
        return f"{message}\n"
    between = "\n" if _last_paragraph(message) else "\n\n"
    return message + between + "\n".join(added) + "\n"


def with_resolver(app: App, message: str, plugin: str | None) -> str:
    """The message, with a trailer that names the plugin which resolved a conflict."""
    if plugin is None:
        return message
    trailer = f"Conflict-resolved-by: {' '.join(plugin.split())}"
    given = message.encode(errors="surrogateescape")
    done = app.repository.git("interpret-trailers", "--no-divider", "--trailer", trailer, stdin=given)
    return done.text
