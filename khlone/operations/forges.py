"""What do gh and glab say and do about the pull requests of a repository?

One is chosen by a setting, else by the remote's address, else by what is installed. They
run in the clone, ask nothing, and get texts on stdin where they take them there; what
they say is redacted, since their own errors may show an address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import process
from khlone.app import App
from khlone.errors import CredentialsMissing, ForgeFailed, NoForge
from khlone.operations.remotes import Remote
from khlone.redaction import redacted
from khlone.values import dataclass

_ENVIRONMENT = {
    "GH_PROMPT_DISABLED": "1",
    "GH_NO_UPDATE_NOTIFIER": "1",
    "NO_PROMPT": "1",
    "GLAB_CHECK_UPDATE": "false",
    "NO_COLOR": "1",
    "CLICOLOR": "0",
    "GIT_TERMINAL_PROMPT": "0",
}
_LOGGED_OUT = r"auth login|not logged in|[Uu]nauthorized|HTTP 401|Bad credentials"
#: gh ends with it where nobody is logged in.
_GH_LOGGED_OUT = 4
_CAPTURE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """One pull request as its forge has it; `head` is its branch there, `foreign` that it comes from a fork."""

    number: int
    url: str
    title: str
    base: str
    head: str
    draft: bool
    foreign: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A pull request to be opened: `owner` is whose fork has the branch, where that is another repository."""

    branch: str
    base: str
    title: str
    body: str
    draft: bool
    owner: str | None = None


class Forge:
    """gh or glab, working for one repository."""

    def __init__(self, program: str, path: str, app: App, cwd: Path) -> None:
        self.program = program
        self._path = path
        self._app = app
        self._cwd = cwd

    def find(self, branch: str, base: str | None) -> PullRequest | None:
        """The open pull request of a branch, onto `base` if that is given; raises ForgeFailed."""
        if self.program == "gh":
            asked = ["pr", "list", "--head", branch, "--state", "open", "--limit", "20", "--json", _GH_FIELDS]
        else:
            asked = ["mr", "list", "--source-branch", branch, "--output", "json"]
        found = [one for one in self._several(asked) if base is None or one.base == base]
        return found[0] if found else None

    def numbered(self, number: int) -> PullRequest:
        """The pull request of a number, open or not; raises ForgeFailed."""
        if self.program == "gh":
            found = self._several(("pr", "view", str(number), "--json", _GH_FIELDS))
        else:
            found = self._several(("mr", "view", str(number), "--output", "json"))
        if not found:
            raise ForgeFailed(self.program, f"it says nothing of {number}")
        return found[0]

    def open(self, proposal: Proposal) -> str:
        """Open a pull request and return its address; raises ForgeFailed or CredentialsMissing."""
        draft = ["--draft"] if proposal.draft else []
        if self.program == "gh":
            head = f"{proposal.owner}:{proposal.branch}" if proposal.owner else proposal.branch
            words = ["pr", "create", "--head", head, "--base", proposal.base, "--title", proposal.title]
            said = self._run([*words, "--body-file", "-", *draft], given=proposal.body)
        else:
            words = ["mr", "create", "--source-branch", proposal.branch, "--target-branch", proposal.base]
            said = self._run([*words, "--title", proposal.title, "--description", proposal.body, "--yes", *draft])
        addresses = re.findall(r"https?://\S+", said)
        if not addresses:
            raise ForgeFailed(self.program, "it named no address of what it opened")
        return str(addresses[-1])

    def show(self, number: int) -> None:
        """Open a pull request in the browser; raises ForgeFailed."""
        self._run(["pr" if self.program == "gh" else "mr", "view", str(number), "--web"])

    def _several(self, asked: Sequence[str]) -> list[PullRequest]:
        said = self._run(asked)
        try:
            found = json.loads(said or "[]")
            listed = found if isinstance(found, list) else [found]
            return [(_of_gh if self.program == "gh" else _of_glab)(one) for one in listed]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ForgeFailed(self.program, "its answer cannot be understood: no pull request by its fields") from error

    def _run(self, words: Sequence[str], *, given: str = "") -> str:
        limit_s = self._app.settings.network_timeout_s
        done = process.run(
            [self._path, *words],
            cwd=self._cwd,
            environment={**process.scrubbed(self._app.environment), **_ENVIRONMENT},
            stdin=given.encode(errors="replace"),
            timeout_s=limit_s,
            capture_bytes=_CAPTURE_BYTES,
        )
        if done.status == 0 and not done.timed_out:
            return done.text
        if done.timed_out:
            raise ForgeFailed(self.program, f"it gave no answer within {limit_s:g} s")
        lines = [line.strip() for line in redacted(done.error_text).splitlines() if line.strip()]
        why = lines[0][:300] if lines else f"it ended with {done.status}"
        if (self.program == "gh" and done.status == _GH_LOGGED_OUT) or re.search(_LOGGED_OUT, done.error_text):
            raise CredentialsMissing(self.program, why)
        raise ForgeFailed(self.program, why)


_GH_FIELDS = "number,url,title,isDraft,baseRefName,headRefName,isCrossRepository"


def _of_gh(found: Mapping[str, object]) -> PullRequest:
    return PullRequest(
        number=int(str(found["number"])),
        url=str(found["url"]),
        title=str(found["title"]),
        base=str(found["baseRefName"]),
        head=str(found["headRefName"]),
        draft=bool(found["isDraft"]),
        foreign=bool(found.get("isCrossRepository")),
    )


def _of_glab(found: Mapping[str, object]) -> PullRequest:
    return PullRequest(
        number=int(str(found["iid"])),
        url=str(found["web_url"]),
        title=str(found["title"]),
        base=str(found["target_branch"]),
        head=str(found["source_branch"]),
        draft=bool(found.get("draft")),
        foreign=found.get("source_project_id") != found.get("target_project_id"),
    )


def choose(app: App, remote: Remote, name: str, cwd: Path) -> Forge:
    """The program that opens pull requests on a remote; raises NoForge, which names the clone in its hint."""
    wanted = wanted_programs(app, remote)
    found = find(app, remote, cwd)
    if found is None:
        raise NoForge(name, wanted)
    return found


def find(app: App, remote: Remote, cwd: Path) -> Forge | None:
    """The program that knows the pull requests of a remote, `None` where it is not installed."""
    for program in wanted_programs(app, remote):
        path = process.find_program(program, app.environment)
        if path is not None:
            return Forge(program, path, app, cwd)
    return None


def wanted_programs(app: App, remote: Remote) -> tuple[str, ...]:
    """The programs that may do, the likeliest first."""
    if app.settings.forge is not None:
        return (app.settings.forge,)
    if "github" in remote.host:
        return ("gh",)
    return ("glab",) if "gitlab" in remote.host else ("gh", "glab")


def number_of(url: str) -> int | None:
    """The number at the end of the address of a pull request."""
    found = re.search(r"/(\d+)/?\Z", url)
    return int(found[1]) if found is not None else None
