"""`merge`: which commit lands, what is held and why, what is told. The target is checked out nowhere here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.merging import (
    held,
    landed,
    merge,
    message,
    oid,
    parents,
    release_main,
    shown,
    worked,
)
from tests.commands.steps import (
    NOTES,
    branches,
    edited,
    footprint,
    new,
    refs,
    refused,
    show,
    tree,
)
from tests.support import Commit, Git, Khlone

pytestmark = pytest.mark.usefixtures("_nowhere")


@pytest.fixture
def _nowhere(project: Path, git: Git) -> None:
    release_main(git, project)


# -- the commit ----------------------------------------------------------------------------


def test_a_merge_commit_lands_even_where_a_fast_forward_would_do(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    old, source = oid(git, project, "main"), oid(git, path, "HEAD")

    found = merge(khlone, project, "a")

    new_tip = oid(git, project, "main")
    assert found == {
        "schema": "khlone.merge/1",
        "target": "main",
        "old": old,
        "new": new_tip,
        "gated": False,
        "landed": [{"name": "a", "strategy": "merge", "oid": new_tip, "resolved_by": None}],
        "held": [],
        "removed": [],
        "kept": [],
        "notes": [],
        "pushed": None,
    }
    assert parents(git, project, "main") == [old, source]
    assert message(git, project, "main") == "Merge branch 'a'\n"
    assert git("log", "-1", "--format=%an <%ae>", "main", cwd=project).strip() == "Test Author <author@example.invalid>"


def test_both_sides_are_kept_when_the_target_moved_on(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"notes.txt": edited(NOTES, 0, "of the clone")})
    worked(khlone, commit, project, "b", {"notes.txt": edited(NOTES, 19, "of the target")})
    merge(khlone, project, "b", "--ff-only")

    merge(khlone, project, "a")

    assert shown(git, project, "notes.txt") == edited(edited(NOTES, 0, "of the clone"), 19, "of the target")


def test_another_target_is_named_in_the_message(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("branch", "release/1", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    merge(khlone, project, "a", "--into", "release/1")

    assert message(git, project, "release/1") == "Merge branch 'a' into release/1\n"


def test_squashing_one_commit_keeps_its_message(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = new(khlone, project, "a")
    commit(path, {"a.txt": "a\n"}, "a subject\n\nA body of\ntwo lines.\n\nTrailer: yes")
    old = oid(git, project, "main")

    found = merge(khlone, project, "a", "--squash")

    assert found["landed"] == [
        {"name": "a", "strategy": "squash", "oid": oid(git, project, "main"), "resolved_by": None}
    ]
    assert parents(git, project, "main") == [old]
    assert message(git, project, "main") == "a subject\n\nA body of\ntwo lines.\n\nTrailer: yes\n"
    assert oid(git, project, "main^{tree}") == oid(git, path, "HEAD^{tree}")


def test_squashing_several_commits_lists_their_subjects(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"1.txt": "1\n"}, "the first\n\nwith a body")
    git("checkout", "-q", "-b", "side", cwd=path)
    commit(path, {"2.txt": "2\n"}, "the second,\nwhose subject is long")
    git("checkout", "-q", "a", cwd=path)
    git("merge", "-q", "--no-ff", "-m", "joins them", "side", cwd=path)
    old = oid(git, project, "main")

    merge(khlone, project, "a", "--squash")

    assert parents(git, project, "main") == [old]
    assert message(git, project, "main") == (
        "Squash branch 'a' (3 commits)\n\n* the first\n* the second, whose subject is long\n"
    )


def test_squashing_keeps_whoever_else_wrote_and_signed_it_off(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"1.txt": "1\n"}, "first\n\nSigned-off-by: Test Author <author@example.invalid>")
    commit(path, {"2.txt": "2\n"}, "second\n\nWith a body.\n\nCo-Authored-By: Third <third@example.invalid>")
    other = ("-c", "user.name=Agent", "-c", "user.email=agent@example.invalid")
    git(*other, "commit", "-q", "--allow-empty", "-m", "third", "--author=Agent <agent@example.invalid>", cwd=path)
    git(*other, "commit", "-q", "--allow-empty", "-m", "fourth", "--author=Agent <agent@example.invalid>", cwd=path)

    merge(khlone, project, "a", "--squash")

    assert message(git, project, "main") == (
        "Squash branch 'a' (4 commits)\n\n* first\n* second\n* third\n* fourth\n\n"
        "Signed-off-by: Test Author <author@example.invalid>\n"
        "Co-Authored-By: Third <third@example.invalid>\n"
        "Co-authored-by: Agent <agent@example.invalid>\n"
    )


def test_one_commit_of_somebody_else_names_them_behind_its_own_trailers(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    path = new(khlone, project, "a")
    commit(path, {"1.txt": "1\n"}, "one\n\nFixes: 7")
    git("commit", "-q", "--amend", "--no-edit", "--author=Agent <agent@example.invalid>", cwd=path)

    merge(khlone, project, "a", "--squash")

    assert message(git, project, "main") == "one\n\nFixes: 7\nCo-authored-by: Agent <agent@example.invalid>\n"


def test_a_template_says_what_a_squashed_commit_says(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = new(khlone, project, "a", "--branch", "topic/a")
    commit(path, {"1.txt": "1\n"}, "first\n\nA body with {name}.")
    commit(path, {"2.txt": "2\n"}, "second")
    template = "{name}: {count} of {branch} to {target} {{{name}}}\n\n{subjects}\n\n{messages}"
    git("config", "khlone.squash.template", template, cwd=project)

    merge(khlone, project, "a", "--squash")

    assert message(git, project, "main") == (
        "a: 2 of topic/a to main {a}\n\n* first\n* second\n\nfirst\n\nA body with {name}.\n\nsecond\n"
    )


def test_a_placeholder_that_stands_for_nothing_holds_the_squash(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("config", "khlone.squash.template", "{subject}", cwd=project)
    before = refs(git, project)

    done = khlone("merge", "a", "--squash", "--json", cwd=project)

    assert done.code != 0
    assert "{subject} stands for nothing" in done.out
    assert refs(git, project) == before


def test_a_fast_forward_lands_the_very_commit(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    found = merge(khlone, project, "a", "--ff-only")

    assert oid(git, project, "main") == oid(git, path, "HEAD") == found["landed"][0]["oid"]
    assert found["landed"][0]["strategy"] == "ff-only"


def test_a_target_that_moved_on_is_not_fast_forwarded(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"})
    merge(khlone, project, "a", "--ff-only")
    before = refs(git, project)

    found = merge(khlone, project, "b", "--ff-only", code=1)

    assert held(found) == [("b", "not-fast-forward")]
    assert refs(git, project) == before


@pytest.mark.parametrize("options", [("--squash", "--ff-only"), ("--merge", "--squash")])
def test_strategies_that_contradict_are_usage_errors(
    khlone: Khlone, git: Git, commit: Commit, project: Path, options: tuple[str, ...]
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    before = refs(git, project)

    refused(khlone("merge", "a", *options, "--json", cwd=project), "usage", 2)

    assert refs(git, project) == before


def test_an_empty_commit_lands_as_a_merge(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {})
    old = oid(git, project, "main")

    merge(khlone, project, "a")

    assert parents(git, project, "main") == [old, oid(git, path, "HEAD")]
    assert oid(git, project, "main^{tree}") == oid(git, project, f"{old}^{{tree}}")


def test_an_octopus_in_the_history_lands(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    for name in ("x", "y"):
        git("checkout", "-q", "-b", name, "main", cwd=path)
        commit(path, {f"{name}.txt": f"{name}\n"}, name)
    git("checkout", "-q", "a", cwd=path)
    git("merge", "-q", "-m", "three at once", "x", "y", cwd=path)
    assert len(parents(git, path, "HEAD")) == 3

    merge(khlone, project, "a")

    assert {"a.txt", "x.txt", "y.txt"} <= set(git("ls-tree", "--name-only", "main", cwd=project).split())


def test_without_a_common_commit_nothing_is_joined(khlone: Khlone, git: Git, project: Path) -> None:
    path = new(khlone, project, "a")
    git("reset", "-q", "--hard", git("commit-tree", "-m", "apart", "HEAD^{tree}", cwd=path).strip(), cwd=path)
    before = refs(git, project)

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "unrelated-histories")]
    assert refs(git, project) == before


@pytest.mark.parametrize("strategy", ["--merge", "--squash", "--ff-only"])
def test_odd_names_modes_links_and_swaps_land_exactly(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str
) -> None:
    path = new(khlone, project, "a")
    os.unlink(path / "README.md")
    os.chmod(path / "notes.txt", 0o755)
    git("rm", "-q", "-r", "docs", cwd=path)
    (path / "docs").write_text("a file now\n")
    os.unlink(path / "src/app.txt")
    (path / "src/app.txt").mkdir()
    (path / "src/app.txt/inner.txt").write_text("a folder now\n")
    (path / "link").symlink_to("no/such/place")
    for name in (b"with space", b"new\nline", b"not-utf8-\xff", b'quote"\t'):
        Path(os.fsdecode(os.fsencode(path) + b"/" + name)).write_bytes(name)
    git("add", "--all", cwd=path)
    git("commit", "-q", "-m", "odd", cwd=path)

    merge(khlone, project, "a", strategy)

    assert oid(git, project, "main^{tree}") == oid(git, path, "HEAD^{tree}")


# -- what is held --------------------------------------------------------------------------


def test_a_conflict_is_held_with_its_paths_and_the_rest_goes_on(
    khlone: Khlone, git: Git, commit: Commit, project: Path
) -> None:
    odd = ["new\nline", "not-utf8-\udcff", "with space"]
    worked(khlone, commit, project, "a", dict.fromkeys(odd, "of a\n"))
    clash = worked(khlone, commit, project, "b", {**dict.fromkeys(odd, "of b\n"), "b.txt": "b\n"})
    worked(khlone, commit, project, "c", {"c.txt": "c\n"})
    before = tree(clash), oid(git, clash, "HEAD")

    found = merge(khlone, project, "a", "b", "c", code=4)

    assert (landed(found), held(found)) == (["a", "c"], [("b", "conflict")])
    assert set(found["held"][0]) == {"name", "code", "message", "paths", "partners"}
    assert (found["held"][0]["paths"], found["held"][0]["partners"]) == (odd, ["a"])
    assert oid(git, project, "main^2") == oid(git, project, "c")
    assert "b.txt" not in git("ls-tree", "--name-only", "main", cwd=project)
    assert (tree(clash), oid(git, clash, "HEAD")) == before
    assert show(khlone, project, "b")["state"] == "ready"


@pytest.mark.parametrize(
    ("order", "code"),
    [(("clash", "dirty"), 4), (("dirty", "clash"), 1), (("fresh", "clash"), 0), (("fine", "clash"), 4)],
)
def test_the_exit_code_is_that_of_the_first_held(
    khlone: Khlone, commit: Commit, project: Path, order: tuple[str, str], code: int
) -> None:
    worked(khlone, commit, project, "first", {"notes.txt": "first\n"})
    made: dict[str, Callable[[], Path]] = {
        "clash": lambda: worked(khlone, commit, project, "clash", {"notes.txt": "clash\n"}),
        "dirty": lambda: worked(khlone, commit, project, "dirty", {"dirty.txt": "dirty\n"}),
        "fresh": lambda: new(khlone, project, "fresh"),
        "fine": lambda: worked(khlone, commit, project, "fine", {"fine.txt": "fine\n"}),
    }
    for name in order:
        (made[name]() / f"{'untracked' if name == 'dirty' else 'ignored.log'}").write_text("local\n")
    merge(khlone, project, "first")

    merge(khlone, project, *order, code=code)


@pytest.mark.parametrize("kind", ["unstaged", "staged", "untracked", "deleted", "merging"])
def test_work_that_is_not_committed_holds_the_clone(
    khlone: Khlone, git: Git, commit: Commit, project: Path, kind: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    if kind == "untracked":
        (path / "fresh").mkdir()
        (path / "fresh/new.txt").write_text("new\n")
    elif kind == "deleted":
        os.unlink(path / "notes.txt")
    elif kind == "merging":
        other = git("commit-tree", "-m", "other", "-p", "a~1", "a~1^{tree}", cwd=path).strip()
        git("merge", "-q", "--no-commit", "--no-ff", other, cwd=path)
    else:
        (path / "notes.txt").write_text("changed\n")
    if kind == "staged":
        git("add", "notes.txt", cwd=path)
    before = tree(path), git("status", "--porcelain", cwd=path), refs(git, project)

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "clone-dirty")]
    assert found["held"][0]["paths"] == {
        "untracked": ["fresh/"],
        "merging": [],
    }.get(kind, ["notes.txt"])
    assert (tree(path), git("status", "--porcelain", cwd=path), refs(git, project)) == before

    found = merge(khlone, project, "a", "--committed")

    assert landed(found) == ["a"]
    assert oid(git, project, "main^{tree}") == oid(git, path, "a^{tree}")
    assert (tree(path), git("status", "--porcelain", cwd=path)) == before[:2]


def test_ignored_files_do_not_hold_a_clone(khlone: Khlone, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    (path / "build.log").write_text("log\n")

    assert landed(merge(khlone, project, "a")) == ["a"]


@pytest.mark.parametrize("strategy", ["--merge", "--squash", "--ff-only"])
def test_nothing_ahead_is_held_and_no_failure(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str
) -> None:
    new(khlone, project, "fresh")
    worked(khlone, commit, project, "done", {"done.txt": "done\n"})
    merge(khlone, project, "done", strategy)
    before = refs(git, project)

    found = merge(khlone, project, "fresh", "done", strategy)

    assert held(found) == [("fresh", "nothing-to-merge"), ("done", "nothing-to-merge")]
    assert found["old"] == found["new"] == oid(git, project, "main")
    assert refs(git, project) == before


@pytest.mark.parametrize("first", ["--merge", "--squash", "--ff-only"])
@pytest.mark.parametrize("then", ["--merge", "--squash"])
def test_what_has_landed_does_not_land_again_by_another_strategy(
    khlone: Khlone, commit: Commit, project: Path, first: str, then: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    commit(path, {"b.txt": "b\n"}, "two commits, so that squashing them makes another one")
    merge(khlone, project, "a", first)

    assert held(merge(khlone, project, "a", then)) == [("a", "nothing-to-merge")]


def test_a_clone_without_its_branch_is_held(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    git("checkout", "-q", "--detach", cwd=path)
    git("branch", "-q", "-D", "a", cwd=project)

    assert held(merge(khlone, project, "a", code=1)) == [("a", "clone-not-ready")]


@pytest.mark.parametrize("gpg", ["fails", "is not there"])
def test_a_signature_that_cannot_be_made_holds_the_clone(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path, gpg: str
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    program = tmp_path / "gpg"
    if gpg == "fails":
        program.write_text("#!/bin/sh\necho 'no pinentry' >&2\nexit 2\n")
        program.chmod(0o755)
    git("config", "gpg.program", str(program), cwd=project)
    git("config", "commit.gpgSign", "true", cwd=project)
    before = refs(git, project)

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "signing-failed")]
    assert refs(git, project) == before
    assert show(khlone, project, "a")["state"] == "ready"


def test_a_commit_is_signed_where_commits_are_signed(
    khlone: Khlone, git: Git, commit: Commit, project: Path, tmp_path: Path
) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    program = tmp_path / "gpg"
    program.write_text(
        "#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\n"
        "echo '-----BEGIN PGP SIGNATURE-----'\necho\necho made-up\necho '-----END PGP SIGNATURE-----'\n"
    )
    program.chmod(0o755)
    git("config", "gpg.program", str(program), cwd=project)
    git("config", "commit.gpgSign", "true", cwd=project)

    merge(khlone, project, "a")

    assert "made-up" in git("cat-file", "commit", "main", cwd=project)


def test_without_an_identity_nothing_lands(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    Path(os.environ["GIT_CONFIG_GLOBAL"]).write_text("[user]\n\tuseConfigOnly = true\n")
    before = refs(git, project)

    found = merge(khlone, project, "a", code=1)

    assert held(found) == [("a", "identity-missing")]
    assert refs(git, project) == before
    assert held(merge(khlone, project, "a", "--ff-only")) == []


# -- which target --------------------------------------------------------------------------


def test_different_targets_need_to_be_told_where_to(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("branch", "release", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    worked(khlone, commit, project, "b", {"b.txt": "b\n"}, "--into", "release")
    before = refs(git, project)

    facts = refused(khlone("merge", "a", "b", "--json", cwd=project), "target-mismatch", 2)["facts"]

    assert facts["targets"] == ["main", "release"]
    assert refs(git, project) == before

    found = merge(khlone, project, "a", "b", "--into", "release")

    assert (found["target"], landed(found)) == ("release", ["a", "b"])
    assert oid(git, project, "main") == branches(git, project)["main"] == oid(git, project, "release~2")


@pytest.mark.parametrize("strategy", ["--merge", "--squash"])
def test_what_landed_on_another_branch_still_lands_on_its_target(
    khlone: Khlone, git: Git, commit: Commit, project: Path, strategy: str
) -> None:
    git("branch", "release", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    merge(khlone, project, "a", "--into", "release", strategy)

    found = merge(khlone, project, "a", strategy)

    assert (found["target"], landed(found)) == ("main", ["a"])
    assert shown(git, project, "a.txt") == "a\n"


def test_without_a_target_one_has_to_be_named(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("config", "--unset", "khlone.target", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    assert show(khlone, project, "a")["target"] is None

    refused(khlone("merge", "a", "--json", cwd=project), "no-target")

    assert landed(merge(khlone, project, "a", "--into", "main")) == ["a"]


@pytest.mark.parametrize("into", ["nowhere", "main/", "./main", "../heads/main", "../tags/v1"])
def test_a_target_that_is_no_branch_is_refused(
    khlone: Khlone, git: Git, commit: Commit, project: Path, into: str
) -> None:
    git("tag", "v1", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    before = refs(git, project)

    refused(khlone("merge", "a", "--into", into, "--json", cwd=project), "no-such-ref")

    assert refs(git, project) == before


def test_an_unknown_name_changes_nothing(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    before = footprint(git, project)

    found = refused(khlone("merge", "a", "b", "--json", cwd=project), "no-such-clone")

    assert found["facts"] == {"name": "b"}
    assert footprint(git, project) == before
    assert show(khlone, project, "a")["state"] == "ready"


def test_a_symbolic_branch_stands_for_the_one_it_names(khlone: Khlone, git: Git, commit: Commit, project: Path) -> None:
    git("symbolic-ref", "refs/heads/trunk", "refs/heads/main", cwd=project)
    worked(khlone, commit, project, "a", {"a.txt": "a\n"})

    found = merge(khlone, project, "a", "--into", "trunk")

    assert (found["target"], found["new"]) == ("main", oid(git, project, "main"))
    assert git("symbolic-ref", "refs/heads/trunk", cwd=project).strip() == "refs/heads/main"


@pytest.mark.parametrize("harm", ["no .git", "another .git"])
def test_a_folder_that_is_no_worktree_any_more_may_hold_work_and_is_not_merged_past_that(
    khlone: Khlone, git: Git, commit: Commit, project: Path, harm: str
) -> None:
    path = worked(khlone, commit, project, "a", {"a.txt": "a\n"})
    (path / "a.txt").write_text("a, and what nobody has committed\n")
    old = oid(git, project, "main")
    (path / ".git").unlink()
    if harm == "another .git":
        (path / ".git").write_text("gitdir: /nowhere\n")

    done = khlone("merge", "a", "--json", cwd=project)

    [held] = done.json()["held"]
    assert (done.code, held["code"]) == (1, "clone-not-ready")
    assert oid(git, project, "main") == old
    assert khlone("doctor", "--fix", cwd=project).code in (0, 1)
    assert khlone("merge", "a", "--committed", cwd=project).code == 0
    assert (path / "a.txt").read_text() == "a, and what nobody has committed\n"
