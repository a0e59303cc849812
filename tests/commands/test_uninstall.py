"""`uninstall`: nothing of khlone is left but what was said, and what git has goes on working."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from khlone import faults
from tests.commands.steps import clone_names, document, new, refs, refused, trash, tree
from tests.support import KHLONE, Done, Git, Khlone, make_commit, run_git, run_khlone, write

POINTS = [name for name in faults.POINTS if name.startswith("uninstall.")]
#: Steps that are taken without --all too.
ALWAYS = ["uninstall.hooks", "uninstall.clones", "uninstall.refs", "uninstall.shell"]
#: Where an account has its files.
PLACES = ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
Tree = dict[str, tuple[str, int, bytes]]


class Before:
    """A repository and an account, as they were before khlone came."""

    def __init__(self, repository: Path) -> None:
        self.common = repository / ".git"
        self.repository = repository
        self.config = (self.common / "config").read_bytes()
        self.hooks = tree(self.common / "hooks")
        self.refs = refs(run_git, repository)
        self.account = account()

    def traces(self) -> list[str]:
        """Everything that is not as it was: files of the account, and what names khlone in the common dir."""
        found = [f"account: {path}" for path in set(self.account.items()) ^ set(account().items())]
        if (self.common / "config").read_bytes() != self.config:
            found.append("config")
        found += [f"hooks: {path}" for path in set(self.hooks.items()) ^ set(tree(self.common / "hooks").items())]
        for path, (kind, _, content) in tree(self.common).items():
            # A branch's log goes on telling what became of it; git's own files name the folder of a worktree.
            own = not path.startswith("objects/") and "logs/" not in path and not path.endswith(("index", "/gitdir"))
            if "khlone" in path or (own and kind == "-" and b"khlone" in content):
                found.append(path)
        return found


def account() -> Tree:
    """Every file below the folders of an account, and every folder that has khlone's name."""
    found: Tree = {}
    for name in PLACES:
        place = Path(os.environ[name])
        for path, fact in (tree(place) if place.exists() else {}).items():
            if fact[0] != "d" or "khlone" in path:
                found[f"{name}/{path}"] = fact
    return found


@pytest.fixture
def project(repository: Path) -> Path:
    """A repository with a hook of its own, in an account with start files."""
    hook = repository / ".git/hooks/post-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\ntrue\n")
    hook.chmod(0o755)
    write(Path(os.environ["HOME"]), {".bashrc": "PS1='$ '\n", ".zshrc": "no end of line"})
    make_commit(repository, {".khlone.toml": '[hooks]\npost-merge = "true"\n', ".gitignore": "*.log\n"}, "hooks")
    return repository


def used(khlone: Khlone, project: Path, *, scope: str = "--all") -> Path:
    """Everything that leaves a trace is done, and one clone is there at the end; returns its worktree."""
    assert khlone("trust", "--yes", cwd=project).code == 0
    assert khlone("hooks", "install", scope, cwd=project).code in (0, 1)
    shells = [word for shell in ("bash", "zsh", "fish") for word in ("--shell", shell)]
    assert khlone("setup", *shells, "--yes", cwd=project).code == 0
    clone = new(khlone, project, "stays", "--agent", "generic")
    if scope == "--clones":
        assert khlone("hooks", "install", scope, cwd=project).code == 0
    done = new(khlone, project, "goes", "--agent", "generic")
    make_commit(done, {"done.txt": "done\n"}, "done")
    make_commit(clone, {"stays.txt": "stays\n"}, "stays")
    assert khlone("merge", "goes", cwd=project).code == 0
    assert khlone("sync", "stays", cwd=project).code == 0
    assert khlone("exec", "stays", "--", "true", cwd=project).code == 0
    assert khlone("remove", "goes", cwd=project).code == 0
    assert khlone("plugins", cwd=project).code == 0
    write(Path(os.environ["XDG_STATE_HOME"], "khlone/plugins/deps"), {"1-npm.log": "said\n"})
    assert list(Path(os.environ["XDG_STATE_HOME"], "khlone").glob("repositories/*/clones/*/ports.json"))
    write(clone, {"draft.txt": "not committed\n"})
    return clone


def test_empty_folders_go_with_what_was_in_them(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "goes")
    assert khlone("setup", "--shell", "bash", "--yes", cwd=project).code == 0
    assert khlone("remove", "goes", cwd=project).code == 0
    settings = Path(os.environ["XDG_CONFIG_HOME"], "khlone")
    assert settings.is_dir()
    assert (project / ".git/worktrees").is_dir()

    assert khlone("setup", "--shell", "bash", "--yes", "--remove", cwd=project).code == 0
    assert khlone("uninstall", "--all", cwd=project).code == 0

    assert not settings.exists()
    assert not (project / ".git/worktrees").exists()


@pytest.mark.parametrize("scope", ["--all", "--clones"])
def test_nothing_is_left_and_worktrees_go_on_as_plain_ones(scope: str, khlone: Khlone, git: Git, project: Path) -> None:
    before = Before(project)
    clone = used(khlone, project, scope=scope)
    files, tip = tree(clone), git("rev-parse", "stays", cwd=project)
    assert len(before.traces()) > 20, "the control: there is something to be seen"

    found = document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall")

    assert found["kept"] == []
    assert before.traces() == []
    assert [ref for ref in refs(git, project) if "khlone" in ref] == []
    assert tree(clone) == files
    assert git("rev-parse", "stays", cwd=project) == tip
    assert git("status", "--porcelain", cwd=clone) == "?? draft.txt\n"
    make_commit(clone, {"draft.txt": "committed\n"}, "goes on")
    git("fsck", "--no-dangling", cwd=project)
    git("worktree", "remove", str(clone), cwd=project)


def test_what_is_a_record_stays_without_all(khlone: Khlone, git: Git, project: Path) -> None:
    before = Before(project)
    clone = used(khlone, project)

    found = document(khlone("uninstall", "--json", cwd=project), "uninstall")

    assert [one["what"] for one in found["kept"]] == [str(project / ".git/khlone")]
    assert "--all" in found["kept"][0]["why"]
    left = {path for path in before.traces() if not path.startswith("account: ")}
    assert all(path.startswith(("khlone", "worktrees/", "refs/khlone")) for path in left), left
    assert not (Path(os.environ["XDG_CONFIG_HOME"]) / "khlone").exists()
    assert (Path(os.environ["HOME"]) / ".bashrc").read_text() == "PS1='$ '\n"
    assert [ref.split("/")[2] for ref in refs(git, project) if "refs/khlone" in ref] == ["trash"]
    assert "locked" not in git("worktree", "list", "--porcelain", cwd=project)
    assert clone_names(khlone, project) == ["stays"]
    assert [entry["name"] for entry in trash(khlone, project)] == ["goes"]
    assert khlone("restore", "goes", cwd=project).code == 0
    assert clone.exists()


def test_a_dry_run_says_it_all_and_changes_nothing(khlone: Khlone, project: Path) -> None:
    used(khlone, project)
    seen, outside = tree(project / ".git"), account()

    would = document(khlone("uninstall", "--all", "--dry-run", "--json", cwd=project), "uninstall")

    assert would["done"] is False
    kinds = {one["kind"] for one in would["removed"]}
    assert kinds >= {"git-hook", "lock", "marker", "record", "ref", "trash", "shell", "approval", "registry"}
    changed = {path for path in set(seen.items()) ^ set(tree(project / ".git").items()) if "lock" not in path[0]}
    assert changed == set()
    assert account() == outside


# -- what is the only copy of something ---------------------------------------------------------


def unintegrated(khlone: Khlone, clone: Path) -> None:
    """A commit that no branch will have."""
    make_commit(clone, {"work.txt": "work\n"}, "work")
    write(clone, {"more.txt": "not committed\n"})


def ignored(khlone: Khlone, clone: Path) -> None:
    """An ignored file."""
    write(clone, {"a.log": "log\n"})


@pytest.mark.parametrize("work", [unintegrated, ignored])
def test_trash_with_work_in_it_stays_and_can_be_restored(work: object, khlone: Khlone, git: Git, project: Path) -> None:
    assert callable(work)
    used(khlone, project)
    precious = new(khlone, project, "precious", "--agent", "generic")
    work(khlone, precious)
    files = tree(precious)
    assert khlone("remove", "--force", "precious", cwd=project).code == 0

    found = document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall", 1)

    assert found["kept"][0]["kind"] == "trash"
    assert "git khlone restore" in found["kept"][0]["why"]
    assert [entry["name"] for entry in trash(khlone, project)] == ["precious"]
    assert khlone("restore", "precious", cwd=project).code == 0
    assert tree(precious) == files


def test_a_config_dir_that_an_agent_wrote_to_stays_and_is_named(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "one", "--agent", "generic")
    shown = document(khlone("show", "one", "--json", cwd=project), "show")["clone"]
    write(Path(shown["config_dir"]), {"transcript.jsonl": "said\n"})

    found = document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall", 1)

    assert [one["kind"] for one in found["kept"]] == ["config-dir", "account"]
    assert found["kept"][0]["what"] in shown["config_dir"]
    assert (Path(shown["config_dir"]) / "transcript.jsonl").read_text() == "said\n"
    assert not (project / ".git/khlone").exists()


def test_a_ref_whose_commits_no_branch_has_stays_and_is_named(khlone: Khlone, git: Git, project: Path) -> None:
    clone = new(khlone, project, "one", "--agent", "generic")
    old = make_commit(clone, {"one.txt": "1\n"}, "one")
    make_commit(project, {"two.txt": "2\n"}, "two")
    assert khlone("sync", "--rebase", "one", cwd=project).code == 0

    found = document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall", 1)

    (kept,) = found["kept"]
    assert git("rev-parse", kept["what"], cwd=project).strip() == old
    assert kept["why"].endswith(f"git update-ref -d {kept['what']}")
    assert not (project / ".git/khlone").exists()


def test_a_session_that_runs_holds_all_of_it(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    new(khlone, project, "one")
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    argv = [str(KHLONE), "exec", "one", "--", "sh", "-c", f"echo >{ready}; exec sleep 300"]
    with subprocess.Popen(argv, cwd=project) as session:
        ready.read_text()
        seen = tree(project / ".git/worktrees")

        refused(khlone("uninstall", "--all", "--json", cwd=project), "session-live")

        assert tree(project / ".git/worktrees") == seen
        pid = document(khlone("show", "one", "--json", cwd=project), "show")["clone"]["sessions"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        session.wait(timeout=60)
    document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall")


def test_a_clone_that_a_command_works_on_stays_a_clone(khlone: Khlone, project: Path) -> None:
    new(khlone, project, "one")
    environment = {**os.environ, "KHLONE_FAULT": "remove.reserved:stop"}
    with subprocess.Popen([KHLONE, "remove", "one"], cwd=project, env=environment) as other:
        os.waitid(os.P_PID, other.pid, os.WSTOPPED)
        found = document(khlone("uninstall", "--json", cwd=project), "uninstall", 1)
        refused(khlone("uninstall", "--all", "--json", cwd=project), "clone-busy", 75)
        other.send_signal(signal.SIGCONT)
        assert other.wait(timeout=60) == 0

    assert [one["kind"] for one in found["kept"]] == ["clone", "ref", "registry"]
    assert khlone("restore", "one", cwd=project).code == 0


def test_other_repositories_keep_what_is_the_accounts(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    run_git("clone", "-q", str(project), str(tmp_path / "other"), cwd=tmp_path)
    new(khlone, tmp_path / "other", "there")
    new(khlone, project, "here")
    store = Path(os.environ["XDG_STATE_HOME"], "khlone")

    found = document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall")

    assert [(one["kind"], one["what"]) for one in found["kept"]] == [("account", str(store))]
    assert clone_names(khlone, tmp_path / "other") == ["there"]
    assert khlone("exec", "there", "--", "true", cwd=tmp_path / "other").code == 0
    document(khlone("uninstall", "--all", "--json", cwd=tmp_path / "other"), "uninstall")
    assert not store.exists()


def test_a_repository_without_khlone_stays_as_it_is(khlone: Khlone, project: Path) -> None:
    seen = tree(project / ".git")

    done = khlone("uninstall", "--all", cwd=project)

    assert done.code == 0, done
    assert tree(project / ".git") == seen


# -- killed --------------------------------------------------------------------------------------


def killed_at(point: str, project: Path, *words: str) -> Done:
    """The command, which kills itself at a fault point."""
    done = run_khlone("uninstall", *words, cwd=project, env={"KHLONE_FAULT": point})
    assert done.code == -signal.SIGKILL, f"{point} was not reached: {done}"
    return done


def test_a_kill_half_way_is_finished_by_running_it_again(khlone: Khlone, git: Git, project: Path) -> None:
    before = Before(project)
    clone = used(khlone, project)
    files = tree(clone)

    for point in POINTS:
        killed_at(point, project, "--all")
        if point not in ("uninstall.account", "uninstall.finished"):
            assert before.traces(), f"the control: something is left at {point}"
        assert git("status", "--porcelain", cwd=clone) == "?? draft.txt\n"
    again = document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall")

    assert again["kept"] == []
    assert before.traces() == []
    assert tree(clone) == files
    git("fsck", "--no-dangling", cwd=project)


@pytest.mark.parametrize("point", ["uninstall.state", "uninstall.clones"])
def test_one_more_run_finishes_it(point: str, khlone: Khlone, project: Path) -> None:
    before = Before(project)
    used(khlone, project)
    killed_at(point, project, "--all")

    document(khlone("uninstall", "--all", "--json", cwd=project), "uninstall")

    assert before.traces() == []


@pytest.mark.parametrize("point", ALWAYS[1:3])
def test_a_kill_leaves_clones_that_can_be_used(point: str, khlone: Khlone, project: Path) -> None:
    used(khlone, project)

    killed_at(point, project)

    assert khlone("doctor", "--fix", cwd=project).code == 0
    assert khlone("merge", "stays", "--committed", cwd=project).code == 0
    assert khlone("restore", "goes", cwd=project).code == 0


def test_no_mode_is_changed_on_the_way(khlone: Khlone, project: Path) -> None:
    start = Path(os.environ["HOME"], ".bashrc")
    start.chmod(0o600)
    used(khlone, project)

    khlone("uninstall", cwd=project)

    assert stat.S_IMODE(start.stat().st_mode) == 0o600
