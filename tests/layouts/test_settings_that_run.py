"""What a repository's settings and attributes make git do: filters work, its hooks and monitors do not run at `new`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.commands.steps import document, new, refused, tree
from tests.layouts.tour import Tour
from tests.support import Commit, Git, Khlone

HOOKS = [
    *("post-checkout", "post-index-change", "reference-transaction", "pre-commit", "post-commit", "prepare-commit-msg"),
    *("post-merge", "post-rewrite", "pre-auto-gc", "fsmonitor-watchman"),
]


def armed(folder: Path, witness: Path) -> Path:
    """A folder of hooks that all leave a line in the witness."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in HOOKS:
        (folder / name).write_text(f'#!/bin/sh\necho "{name}" >>"{witness}"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("kind", ["plain", "absolute", "relative", "committed", "global", "fsmonitor"])
def test_no_hook_of_the_repository_runs_at_new(
    khlone: Khlone, git: Git, repository: Path, commit: Commit, tmp_path: Path, kind: str
) -> None:
    witness = tmp_path / "ran"
    place = {"plain": repository / ".git/hooks", "relative": repository / ".husky"}.get(kind, tmp_path / "hooks")
    if kind == "committed":
        hook = f'#!/bin/sh\necho ran >>"{witness}"\n'
        commit(repository, {f".hk/{name}": hook for name in HOOKS}, "hooks")
        git("update-index", "--chmod=+x", *(f".hk/{name}" for name in HOOKS), cwd=repository)
        git("commit", "-q", "-m", "they run", cwd=repository)
        git("config", "core.hooksPath", ".hk", cwd=repository)
    else:
        armed(place, witness)
    if kind in ("absolute", "relative"):
        git("config", "core.hooksPath", str(place) if kind == "absolute" else ".husky", cwd=repository)
    if kind == "global":
        git("config", "--global", "core.hooksPath", str(place), cwd=repository)
    if kind == "fsmonitor":
        git("config", "core.fsmonitor", str(place / "fsmonitor-watchman"), cwd=repository)
    witness.unlink(missing_ok=True)

    clone = new(khlone, repository, "a")

    assert not witness.exists()
    where = repository if kind == "relative" else clone
    git("checkout", "-q", "-b", "other", cwd=where)
    git("status", cwd=where)
    assert witness.exists(), "the control: git itself runs it"


def test_filters_line_ends_and_attributes(
    khlone: Khlone, git: Git, repository: Path, commit: Commit, tmp_path: Path
) -> None:
    for name, rule in (("clean", "y/abc/ABC/"), ("smudge", "y/ABC/abc/")):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\nexec sed '{rule}'\n")
        script.chmod(0o755)
        git("config", "--global", f"filter.swap.{name}", str(script), cwd=repository)
    git("config", "--global", "filter.swap.required", "true", cwd=repository)
    git("config", "core.autocrlf", "true", cwd=repository)
    attributes = "*.swap filter=swap\nhidden.txt export-ignore\n*.id ident\n*.raw -text\n"
    commit(repository, {".gitattributes": attributes}, "attributes")
    commit(
        repository,
        {"x.swap": "abc\r\n", "hidden.txt": "hidden\r\n", "x.id": "$Id$\r\n", "x.raw": b"\r\n\n\0", "lf.txt": "a\n"},
        "files",
    )
    assert git("cat-file", "blob", "HEAD:x.swap", cwd=repository) == "ABC\n"

    def check(clone: Path) -> None:
        assert (clone / "x.swap").read_bytes() == b"abc\r\n"
        assert (clone / "hidden.txt").read_bytes() == b"hidden\r\n"
        assert (clone / "x.raw").read_bytes() == b"\r\n\n\0"
        assert (clone / "lf.txt").read_bytes() == b"a\r\n"

    def dirty(clone: Path) -> None:
        (clone / "x.swap").write_bytes(b"cab\r\nabc")
        (clone / "mixed.txt").write_bytes(b"a\r\nb\n")

    Tour(khlone=khlone, git=git, where=repository, common=repository / ".git", check=check, dirty=dirty).run()


def test_a_filter_that_fails_rolls_back_whole(khlone: Khlone, git: Git, repository: Path, commit: Commit) -> None:
    commit(repository, {".gitattributes": "*.swap filter=swap\n", "x.swap": "abc\n"}, "filtered")
    git("config", "filter.swap.smudge", "false", cwd=repository)
    git("config", "filter.swap.required", "true", cwd=repository)

    done = khlone("new", "a", "--json", cwd=repository)

    refused(done, "git-failed")
    assert git("branch", "--list", "a", cwd=repository) == ""
    assert not (repository.parent / "project.clones").exists()


def test_a_link_in_the_place_of_dot_git_is_not_followed(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    clone = new(khlone, repository, "a")
    (clone / ".git").rename(tmp_path / "elsewhere")
    (clone / ".git").symlink_to(tmp_path / "elsewhere")
    before = tree(clone)

    kept = document(khlone("remove", "a", "--json", cwd=repository), "remove", 1)["kept"]

    assert [one["code"] for one in kept] == ["clone-not-ready"]
    assert tree(clone) == before
    assert (clone / ".git").is_symlink()


@pytest.mark.needs_root
@pytest.mark.parametrize("place", [".", "src"])
def test_a_repository_of_somebody_else_is_refused_as_git_refuses_it(
    khlone: Khlone, git: Git, repository: Path, place: str
) -> None:
    for parent, folders, files in os.walk(repository):
        for name in (parent, *(os.path.join(parent, one) for one in (*folders, *files))):
            os.lchown(name, 65534, 65534)
    before = tree(repository.parent)

    for verb in (("new", "a"), ("list",), ("doctor",)):
        found = refused(khlone(*verb, "--json", cwd=repository / place, env={"SUDO_UID": None}), "not-permitted", 77)

        assert "dubious ownership" in found["message"]
    assert tree(repository.parent) == before
    git("config", "--global", "--add", "safe.directory", str(repository), cwd=repository.parent)
    assert new(khlone, repository / place, "a").is_dir()
