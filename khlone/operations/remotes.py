"""Which remotes are there, which one is meant, and what does its failure mean?

A remote is spoken to by its name alone: its address may hold a password, which belongs
in no argument list and in no message. Nothing is ever asked of a person.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

from khlone.app import App
from khlone.errors import CredentialsMissing, KhloneError, NoRemote, RemoteFailed
from khlone.process import Completed
from khlone.redaction import redacted
from khlone.values import dataclass

_NO_CREDENTIALS = (
    r"could not read (Username|Password)|terminal prompts disabled|Authentication failed|Permission denied \("
    r"|Host key verification failed|(?i:invalid credentials)|HTTP 40[13]|returned error: 40[13]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One configured remote. `url` is as it stands in the configuration and may hold a password: never shown."""

    name: str
    url: str
    refspecs: tuple[str, ...] = ()
    has_push_url: bool = False

    @property
    def host(self) -> str:
        """The host of its address, lower case; empty for a path."""
        found = re.match(r"[a-z][a-z0-9+.-]*://(?:[^/@]*@)?([^/:]*)|(?:[^/:@]+@)?([^/:@]+):", self.url, re.IGNORECASE)
        return "" if found is None else (found[1] or found[2] or "").lower()

    @property
    def owner(self) -> str | None:
        """Whose repository it is, where the address says OWNER/NAME."""
        found = re.search(r"[/:]([^/:@]+)/[^/:]+?(?:\.git)?/?\Z", self.url)
        return found[1] if found is not None and self.host else None

    @property
    def is_relative(self) -> bool:
        """Whether its address is a path that means something in the main worktree alone."""
        return not self.host and "://" not in self.url and not os.path.isabs(self.url)

    def tracking(self, ref: str) -> str | None:
        """The ref that keeps what was last seen of one of its refs, `None` where nothing does."""
        for spec in self.refspecs:
            source, _, kept = spec.removeprefix("+").partition(":")
            if not kept or spec.startswith("^"):
                continue
            if source == ref:
                return kept
            before, star, after = source.partition("*")
            if star and ref.startswith(before) and ref.endswith(after) and len(ref) >= len(before) + len(after):
                return kept.replace("*", ref[len(before) : len(ref) - len(after)], 1)
        return None


class Configured:
    """What git's configuration says of remotes and branches, read once."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._last = dict(pairs)
        specs: dict[str, list[str]] = {}
        urls: dict[str, str] = {}
        for key, value in pairs:
            name, _, what = key.removeprefix("remote.").rpartition(".")
            if key.startswith("remote.") and what == "fetch":
                specs.setdefault(name, []).append(value)
            elif key.startswith("remote.") and what == "url":
                urls.setdefault(name, value)
        self.remotes: Mapping[str, Remote] = {
            name: Remote(
                name=name,
                url=url,
                refspecs=tuple(specs.get(name, ())),
                has_push_url=f"remote.{name}.pushurl" in self._last,
            )
            for name, url in urls.items()
        }

    def of_branch(self, branch: str, key: str) -> str | None:
        """A setting of a branch: `remote`, `merge` or `pushremote`."""
        return self._last.get(f"branch.{branch}.{key}") or None

    def upstream(self, branch: str) -> tuple[str, str] | None:
        """The remote and the short name there of what a branch follows, `None` for nothing or a local one."""
        remote, ref = self.of_branch(branch, "remote"), self.of_branch(branch, "merge")
        if remote is None or remote not in self.remotes or ref is None or not ref.startswith("refs/heads/"):
            return None
        return remote, ref.removeprefix("refs/heads/")

    def require(self, name: str) -> Remote:
        """The remote of that name; raises NoRemote, for an address too."""
        found = self.remotes.get(name)
        if found is None:
            raise NoRemote(redacted(name), list(self.remotes))
        return found

    def main(self, wanted: str | None, *others: str | None) -> Remote:
        """The first that is named, else `origin`, else the only one; raises NoRemote."""
        name = next((one for one in (wanted, *others) if one), None)
        if name is not None:
            return self.require(name)
        if "origin" in self.remotes:
            return self.remotes["origin"]
        if len(self.remotes) == 1:
            return next(iter(self.remotes.values()))
        raise NoRemote(None, list(self.remotes))

    def for_checkout(self, offered: Sequence[str], setting: str | None) -> str | None:
        """Which of several remotes that have a branch git would take it from, else `khlone.remote`."""
        wanted = (self._last.get("checkout.defaultremote"), setting)
        return next((name for name in wanted if name in offered), None)

    def for_push(self, branch: str, setting: str | None, wanted: str | None) -> Remote:
        """Where a branch is pushed to: as asked, by `khlone.remote`, as git would push it; raises NoRemote."""
        follows = self.of_branch(branch, "remote")
        return self.main(
            wanted,
            setting,
            self.of_branch(branch, "pushremote"),
            self._last.get("remote.pushdefault"),
            follows if follows != "." else None,
        )


def read(app: App) -> Configured:
    """What is configured right now."""
    done = app.repository.git(
        "config", "-z", "--get-regexp", r"^(remote|branch)\.|^checkout\.defaultremote$", check=False
    )
    items = (item.partition("\n") for item in done.text.split("\0") if item)
    return Configured([(key, value) for key, _, value in items])


def environment() -> dict[str, str]:
    """Variables for a git that talks to a remote: where nobody sits at the terminal, ssh opens no window either."""
    found = {} if sys.stdin is not None and sys.stdin.isatty() else {"SSH_ASKPASS_REQUIRE": "never"}
    return {**found, "GCM_INTERACTIVE": "never"}


def fetch(app: App, remote: str, specs: Sequence[str], *, timeout_s: float) -> Completed:
    """What one `git fetch` ended with: of these refspecs and no tags, or of those that are configured.

    Nothing is asked of a person, and nothing is written but refs and objects.
    """
    tags = ("--no-tags",) if specs else ()
    options = ("--quiet", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules", *tags)
    return app.repository.git(
        "fetch",
        *options,
        "--",
        remote,
        *specs,
        cwd=app.location.main_worktree,
        writes=True,
        check=False,
        environment=environment(),
        timeout_s=timeout_s,
    )


def failure(remote: str, done: Completed, timeout_s: float) -> KhloneError:
    """The khlone error for a git that failed to talk to a remote; passwords in addresses are left out."""
    if done.timed_out:
        return RemoteFailed(remote, f"gave no answer within {timeout_s:g} s")
    return explained(remote, done.error_text, f"git ended with {done.status}")


def explained(remote: str, said: str, otherwise: str) -> KhloneError:
    """The khlone error for what was said on stderr."""
    lines = [line.strip() for line in redacted(said).splitlines() if line.strip()]
    refused = next((line for line in lines if re.search(_NO_CREDENTIALS, line)), None)
    if refused is not None:
        return CredentialsMissing(remote, _plain(refused))
    told = next((line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))), lines[-1] if lines else "")
    return RemoteFailed(remote, _plain(told) or otherwise)


def _plain(line: str) -> str:
    return re.sub(r"^(fatal|error|remote): *", "", line)[:300]


def pull_refs(number: int) -> tuple[str, str]:
    """Where the two kinds of forges keep the tip of a pull request."""
    return f"refs/pull/{number}/head", f"refs/merge-requests/{number}/head"
