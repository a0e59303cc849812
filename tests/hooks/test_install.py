"""khlone's git hooks come and go without a trace, and what was in force before stays in force throughout."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from khlone.app import App
from khlone.operations import githooks
from khlone.operations.hook_places import NAMES, Scope
from tests.commands.steps import document, new, refused
from tests.support import Git, Khlone, make_commit, run_git, run_khlone, write

SCOPES = ("all", "clones")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the hooks of others say that they ran."""
    monkeypatch.setenv("HOOK_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


@pytest.fixture
def clone(khlone: Khlone, repository: Path) -> Path:
    """The worktree of the clone `one`, which has a commit of its own."""
    path = new(khlone, repository, "one")
    make_commit(path, {"one.txt": "one\n"}, "one")
    return path


def others(folder: Path, *names: str, code: int = 0) -> None:
    """Plain hooks that log their name, arguments and stdin, and end with a code."""
    for name in names:
        write(
            folder,
            {name: f'#!/bin/sh\n{{ echo "{name} $*"; [ -t 0 ] || sed "s/^/in /"; }} >>"$HOOK_LOG"\nexit {code}\n'},
        )
        (folder / name).chmod(0o755)


def ran(log: Path) -> list[str]:
    """The names of the hooks that ran since the last call."""
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return [line.split()[0] for line in lines if not line.startswith("in ")]


def installed(where: Path, scope: str) -> None:
    """Install, and fail where that fails."""
    document(run_khlone("hooks", "install", f"--{scope}", "--json", cwd=where), "hooks")


def trace_of(repository: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of each configuration and of all in the hooks folder."""
    git_dir = repository if (repository / "HEAD").exists() else repository / ".git"
    paths = [
        *git_dir.glob("hooks/*"),
        *git_dir.glob("hooks/.*"),
        *git_dir.glob("config*"),
        *git_dir.glob("worktrees/*/config*"),
    ]
    paths += git_dir.glob("worktrees/*/khlone-former")
    return {
        str(path.relative_to(git_dir)): (
            stat.S_IMODE(path.lstat().st_mode),
            os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes(),
        )
        for path in sorted(paths)
    }


# -- without a trace ---------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "added",
    [
        "",
        "[extensions]\n\t# mine\n",
        "[user]\n\tname = x",
        '[x "y"] z = 1 ; no line end \n\n\n[extensions] objectFormat = sha1',
    ],
    ids=["plain", "a-section-that-is-there", "no-line-end", "odd"],
)
def test_removal_leaves_hooks_and_configuration_byte_for_byte(
    khlone: Khlone, repository: Path, clone: Path, scope: str, added: str
) -> None:
    others(repository / ".git/hooks", "post-commit", "pre-commit", "reference-transaction")
    (repository / ".git/hooks/post-merge").symlink_to("pre-commit")
    (repository / ".git/hooks/post-checkout").write_text("not executable\n")
    config = repository / ".git/config"
    config.write_text(config.read_text() + added)
    before = trace_of(repository)

    installed(repository, scope)
    between = trace_of(repository)
    removed = document(khlone("hooks", "remove", "--json", cwd=clone), "hooks")

    assert between != before
    assert removed["done"]
    assert trace_of(repository) == before
    assert not (repository / ".git/khlone/hooks").exists()
    assert not (repository / ".git/khlone/run").exists()


def test_a_hooks_folder_that_was_not_there_is_gone_again(khlone: Khlone, repository: Path) -> None:
    for path in (repository / ".git/hooks").iterdir():
        path.unlink()
    (repository / ".git/hooks").rmdir()

    installed(repository, "all")
    assert sorted(path.name for path in (repository / ".git/hooks").iterdir()) == sorted(NAMES)
    khlone("hooks", "remove", cwd=repository)

    assert not (repository / ".git/hooks").exists()


@pytest.mark.parametrize("scope", SCOPES)
def test_installing_again_changes_nothing(khlone: Khlone, repository: Path, clone: Path, scope: str) -> None:
    others(repository / ".git/hooks", "post-commit")
    installed(repository, scope)
    inodes = {path: path.lstat().st_ino for path in (repository / ".git").rglob("*") if "hooks" in str(path)}

    again = document(khlone("hooks", "install", f"--{scope}", "--json", cwd=repository), "hooks")

    assert (again["done"], again["changed"]) == (False, [])
    assert inodes == {path: path.lstat().st_ino for path in (repository / ".git").rglob("*") if "hooks" in str(path)}


@pytest.mark.parametrize("scope", SCOPES)
def test_a_dry_run_names_what_would_change_and_changes_nothing(
    khlone: Khlone, repository: Path, clone: Path, scope: str
) -> None:
    before = trace_of(repository)

    planned = document(khlone("hooks", "install", f"--{scope}", "--dry-run", "--json", cwd=repository), "hooks")
    assert trace_of(repository) == before
    done = document(khlone("hooks", "install", f"--{scope}", "--json", cwd=repository), "hooks")
    removal = document(khlone("hooks", "remove", "--dry-run", "--json", cwd=repository), "hooks")

    assert planned["changed"] == done["changed"]
    assert (planned["done"], done["done"], removal["done"]) == (False, True, False)
    assert removal["changed"]
    assert document(khlone("hooks", "status", "--json", cwd=repository), "hooks")["scope"] == scope


def test_what_somebody_added_to_the_configuration_meanwhile_stays(
    git: Git, khlone: Khlone, repository: Path, clone: Path
) -> None:
    installed(repository, "clones")
    git("config", "--worktree", "user.name", "In the clone", cwd=clone)
    git("config", "user.email", "shared@example.invalid", cwd=repository)

    khlone("hooks", "remove", cwd=repository)

    assert git("config", "user.name", cwd=clone) == "In the clone\n"
    assert git("config", "user.email", cwd=clone) == "shared@example.invalid\n"
    assert git("config", "core.hooksPath", cwd=clone, check=False) == ""


def test_a_clone_in_the_trash_comes_back_without_hooks_that_are_gone(
    git: Git, khlone: Khlone, repository: Path
) -> None:
    path = new(khlone, repository, "gone")
    installed(repository, "clones")
    document(khlone("remove", "gone", "--json", cwd=repository), "remove")

    khlone("hooks", "remove", cwd=repository)
    document(khlone("restore", "gone", "--json", cwd=repository), "restore")

    assert git("config", "core.hooksPath", cwd=path, check=False) == ""


def test_a_clone_keeps_the_hooks_path_of_its_own(
    git: Git, khlone: Khlone, repository: Path, clone: Path, log: Path
) -> None:
    git("config", "extensions.worktreeConfig", "true", cwd=repository)
    git("config", "--worktree", "core.hooksPath", "own", cwd=clone)
    others(clone / "own", "pre-commit")
    before = trace_of(repository)

    installed(repository, "clones")
    make_commit(clone, {"a": "a"}, "a")
    during = ran(log)
    khlone("hooks", "remove", cwd=repository)
    make_commit(clone, {"b": "b"}, "b")

    assert during == ran(log) == ["pre-commit"]
    assert trace_of(repository) == before


# -- what was in force stays in force -------------------------------------------------------------


def commits(path: Path) -> None:
    """A commit, an amended one, a merge and a rebase."""
    make_commit(path, {"a.txt": os.urandom(4).hex()}, "a")
    run_git("commit", "-q", "--amend", "-m", "amended", cwd=path)
    run_git("checkout", "-q", "-b", "side", "HEAD~1", cwd=path)
    make_commit(path, {"side.txt": "side\n"}, "side")
    run_git("checkout", "-q", "-", cwd=path)
    run_git("merge", "-q", "--no-edit", "side", cwd=path)
    run_git("branch", "-q", "-D", "side", cwd=path)


@pytest.mark.parametrize("scope", SCOPES)
def test_others_hooks_see_what_they_saw_before(repository: Path, clone: Path, log: Path, scope: str) -> None:
    others(repository / ".git/hooks", *NAMES, "pre-commit", "commit-msg", "pre-merge-commit", "pre-rebase")
    start = run_git("rev-parse", "HEAD", cwd=clone).strip()
    dates = {"GIT_AUTHOR_DATE": "2030-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2030-01-01T00:00:00Z"}

    def seen() -> str:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in dates.items():
                patch.setenv(name, value)
            patch.setattr(os, "urandom", lambda count: bytes(count))
            commits(clone)
        run_git("reset", "-q", "--hard", start, cwd=clone)
        text = log.read_text()
        log.unlink()
        return text

    plain = seen()
    installed(repository, scope)
    behind = seen()

    assert behind == plain
    assert {line.split()[0] for line in plain.splitlines()} >= {"post-rewrite", "post-merge", "commit-msg", "in"}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["prepare-commit-msg", "reference-transaction", "commit-msg"])
def test_a_hook_that_refuses_still_refuses(
    git: Git, repository: Path, clone: Path, log: Path, scope: str, name: str
) -> None:
    installed(repository, scope)
    run_khlone("hooks", "remove", cwd=repository)
    others(repository / ".git/hooks", name, code=1)
    installed(repository, scope)
    before = git("rev-parse", "HEAD", cwd=clone)

    git("commit", "-q", "--allow-empty", "-m", "x", cwd=clone, check=False)

    assert git("rev-parse", "HEAD", cwd=clone) == before
    assert name in ran(log)


def test_a_checkout_hook_that_fails_makes_the_checkout_fail(repository: Path, clone: Path, log: Path) -> None:
    others(repository / ".git/hooks", "post-checkout", code=7)
    installed(repository, "all")

    with pytest.raises(AssertionError, match="exit 1"):
        run_git("checkout", "-q", "--detach", cwd=clone)


def test_hooks_that_come_later_are_in_force_in_clones_too(git: Git, repository: Path, clone: Path, log: Path) -> None:
    installed(repository, "clones")
    others(repository / ".git/hooks", "pre-commit")
    make_commit(clone, {"a": "a"}, "a")
    common = ran(log)
    others(clone / "husky", "commit-msg")
    git("config", "core.hooksPath", "husky", cwd=repository)
    later = repository.parent / "later"
    later.touch()
    os.utime(repository / ".git/config", (later.stat().st_atime + 5, later.stat().st_mtime + 5))

    make_commit(clone, {"b": "b"}, "b")

    assert (common, ran(log)) == (["pre-commit"], ["commit-msg"])


def test_only_clones_are_reached_by_hooks_for_clones(
    git: Git, khlone: Khlone, repository: Path, clone: Path, tmp_path: Path
) -> None:
    git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"), cwd=repository)
    installed(repository, "clones")

    found = document(khlone("hooks", "status", "--json", cwd=repository), "hooks")["worktrees"]

    assert {place["path"]: place["installed"] for place in found} == {
        str(repository): False,
        str(tmp_path / "linked"): False,
        str(clone): True,
    }
    assert git("config", "core.hooksPath", cwd=repository, check=False) == ""


# -- refused ------------------------------------------------------------------------------------------


def set_relative(repository: Path) -> None:
    """As husky does."""
    run_git("config", "core.hooksPath", ".husky/_", cwd=repository)


def set_for_account(repository: Path) -> None:
    """For every repository of the account."""
    run_git("config", "--global", "core.hooksPath", str(repository.with_name("account-hooks")), cwd=repository)


def set_in_worktree(repository: Path) -> None:
    """By its absolute path."""
    run_git("config", "core.hooksPath", str(repository / "scripts"), cwd=repository)


@pytest.mark.parametrize("situation", [set_relative, set_for_account, set_in_worktree])
def test_a_folder_that_is_not_the_repositorys_alone_is_left_alone(
    khlone: Khlone, repository: Path, situation: Callable[[Path], None]
) -> None:
    situation(repository)
    before = trace_of(repository)

    found = refused(khlone("hooks", "install", "--all", "--json", cwd=repository), "hooks-in-the-way")

    assert "--clones" in found["hint"]
    assert trace_of(repository) == before
    assert not repository.with_name("account-hooks").exists()
    installed(repository, "clones")


def test_a_folder_outside_of_worktrees_that_the_repository_names_is_used(
    git: Git, khlone: Khlone, repository: Path, clone: Path, log: Path
) -> None:
    folder = repository.with_name("hooks")
    git("config", "core.hooksPath", str(folder), cwd=repository)
    others(folder, "post-commit")

    installed(repository, "all")
    make_commit(clone, {"a": "a"}, "a")
    khlone("hooks", "remove", cwd=repository)

    assert ran(log) == ["post-commit"]
    assert [path.name for path in folder.iterdir()] == ["post-commit"]


def test_one_way_is_refused_where_the_other_is_taken(khlone: Khlone, repository: Path, clone: Path) -> None:
    installed(repository, "clones")

    refused(khlone("hooks", "install", "--all", "--json", cwd=repository), "hooks-in-the-way")

    khlone("hooks", "remove", cwd=repository)
    installed(repository, "all")
    refused(khlone("hooks", "install", "--clones", "--json", cwd=repository), "hooks-in-the-way")


def test_a_bare_repository_has_them_in_its_common_folder_alone(
    git: Git, khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    git("clone", "-q", "--bare", str(repository), str(tmp_path / "bare.git"), cwd=tmp_path)
    bare = tmp_path / "bare.git"
    new(khlone, bare, "one")
    before = trace_of(bare)

    refused(khlone("hooks", "install", "--clones", "--json", cwd=bare), "hooks-in-the-way")
    installed(bare, "all")
    git("branch", "-D", "one", cwd=bare, check=False)
    khlone("hooks", "remove", cwd=bare)

    assert trace_of(bare) == before
    assert git("branch", "--list", "one", cwd=bare) != ""


def test_a_hook_that_another_program_put_in_the_place_of_ours_is_kept_and_told(
    khlone: Khlone, repository: Path, log: Path
) -> None:
    folder = repository / ".git/hooks"
    others(folder, "post-commit")
    original = (folder / "post-commit").read_bytes()
    installed(repository, "all")
    others(folder, "post-commit", code=0)
    write(folder, {"post-commit": "#!/bin/sh\n# of somebody else\n"})

    shown = document(khlone("hooks", "status", "--json", cwd=repository), "hooks")["hooks"]
    removed = khlone("hooks", "remove", cwd=repository)

    assert {hook["name"]: hook["state"] for hook in shown}["post-commit"] == "unchained"
    assert "post-commit.khlone-chained" in removed.err
    assert (folder / "post-commit").read_text() == "#!/bin/sh\n# of somebody else\n"
    assert (folder / "post-commit.khlone-chained").read_bytes() == original


def test_which_way_has_to_be_said_once(khlone: Khlone, git: Git, repository: Path) -> None:
    refused(khlone("hooks", "install", "--json", cwd=repository), "usage", 2)
    refused(khlone("hooks", "install", "--all", "--clones", "--json", cwd=repository), "usage", 2)
    refused(khlone("hooks", "remove", "--all", "--json", cwd=repository), "usage", 2)
    git("config", "khlone.hooks", "nonsense", cwd=repository)
    refused(khlone("hooks", "install", "--json", cwd=repository), "invalid-setting", 2)
    git("config", "khlone.hooks", "all", cwd=repository)

    assert document(khlone("hooks", "install", "--json", cwd=repository), "hooks")["scope"] == "all"


def test_the_setting_lets_new_clones_have_them(git: Git, khlone: Khlone, repository: Path) -> None:
    before = trace_of(repository)
    plain = new(khlone, repository, "plain")
    assert {name: entry for name, entry in trace_of(repository).items() if name in before} == before
    git("config", "khlone.hooks", "clones", cwd=repository)

    first, second = new(khlone, repository, "first"), new(khlone, repository, "second")

    found = document(khlone("hooks", "status", "--json", cwd=repository), "hooks")["worktrees"]
    assert {place["path"] for place in found if place["installed"]} == {str(plain), str(first), str(second)}


# -- killed at any step ---------------------------------------------------------------------------------


def killed(where: Path, step: int, act: Callable[[App], object]) -> bool:
    """Do it in a child that is gone before its durable step of that number; says whether there was such a step."""
    child = os.fork()
    if child == 0:
        taken = 0

        def counted(function: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **named: object) -> object:
                nonlocal taken
                taken += 1
                if taken == step:
                    os._exit(9)
                return function(*arguments, **named)

            return call

        for name in ("link", "replace", "rename", "unlink", "mkdir", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        try:
            act(App.open(where))
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("scope", list(Scope))
def test_a_killed_installation_leaves_every_hook_in_force_and_is_completed_or_taken_back(
    repository: Path, log: Path, monkeypatch: pytest.MonkeyPatch, scope: Scope
) -> None:
    monkeypatch.setattr(githooks, "_PASSED_ON", ("pre-commit",))  # the others only take the same steps again
    path = new(run_khlone, repository, "one")
    others(repository / ".git/hooks", "post-commit", "pre-commit")
    before = trace_of(repository)
    app = App.open(repository)
    step, was_killed = 0, True
    while was_killed:
        step += 1

        was_killed = killed(repository, step, lambda app: githooks.install(app, scope))

        run_git("commit", "-q", "--allow-empty", "-m", "x", cwd=path)
        assert ran(log) == ["pre-commit", "post-commit"], step
        if step % 2:
            githooks.install(app, scope)
            assert githooks.install(app, scope).changed == []
            assert list(githooks.examine(app, fix=False)) == []
        killed(repository, step, githooks.remove)
        run_git("commit", "-q", "--allow-empty", "-m", "x", cwd=path)
        assert ran(log) == ["pre-commit", "post-commit"], step
        githooks.remove(app)
        assert trace_of(repository) == before, step
    assert step > 10


def test_a_hook_moved_away_first_would_be_out_of_force_in_between(
    repository: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others(repository / ".git/hooks", "post-commit")
    missed = []

    def no_link(*_: object, **__: object) -> None:
        raise OSError

    App.open(repository).prepare_state()
    monkeypatch.setattr(os, "link", no_link)
    for step in range(1, 60):
        if not killed(repository, step, lambda app: githooks.install(app, Scope.ALL)):
            break
        run_git("commit", "-q", "--allow-empty", "-m", "x", cwd=repository)
        missed.append(ran(log) == [])

    assert any(missed)


def test_the_doctor_completes_what_is_not_whole(khlone: Khlone, repository: Path, clone: Path) -> None:
    installed(repository, "all")
    (repository / ".git/hooks/post-merge").unlink()
    (repository / ".git/hooks/post-commit").write_text("#!/bin/sh\n# khlone-hook 0: of an older version\n")

    found = document(khlone("doctor", "--json", cwd=repository), "doctor")["findings"]
    document(khlone("doctor", "--fix", "--json", cwd=repository), "doctor")

    assert [(one["code"], one["severity"]) for one in found] == [("hooks-incomplete", "warning")]
    assert document(khlone("doctor", "--json", cwd=repository), "doctor")["findings"] == []


def test_the_doctor_finds_clones_whose_hooks_are_looked_for_in_no_folder(
    git: Git, khlone: Khlone, repository: Path, clone: Path
) -> None:
    installed(repository, "clones")
    for path in sorted((repository / ".git/khlone/hooks").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    found = document(khlone("doctor", "--json", cwd=repository), "doctor", 1)["findings"]
    document(khlone("doctor", "--fix", "--json", cwd=repository), "doctor")

    assert [one["code"] for one in found] == ["hooks-astray"]
    assert git("config", "core.hooksPath", cwd=clone, check=False) == ""
