"""Every document of `--json` keeps its schema in docs/schema, which stands for the contract with scripts.

Each situation drives the real command and says which schemas it answers with; together they are all of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from khlone.parser import VERBS
from tests.remotes.forge import fake_forge
from tests.support import KHLONE, ROOT, Khlone, make_commit, run_git, run_khlone, write

FOLDER = ROOT / "docs" / "schema"
SCHEMAS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.json"))
    # The schema of a settings file is none of an answer; test_settings_page.py looks at it.
    if path.name != "khlone.toml.json"
}
#: Objects whose keys are not khlone's to choose.
OPEN = {("error", "facts"), ("env", "environment"), ("agents", "agents", "environment")}
#: A schema that no document has as a whole: it is part of others.
PART = "clone"

REGISTRY: Registry[Any] = Registry().with_resources(
    (f"{name}.json", DRAFT202012.create_resource(schema)) for name, schema in SCHEMAS.items()
)


def complaints(document: object, name: str) -> list[str]:
    """Where a document departs from a schema; empty when it does not."""
    validator = Draft202012Validator(SCHEMAS[name], registry=REGISTRY)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


class Ask:
    """Asks the real command for JSON; every answer must be one document that keeps its schema."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(
        self, *words: str, cwd: Path, code: int = 0, answer: str = "", env: Mapping[str, str | None] | None = None
    ) -> dict[str, Any]:
        """The document, which is of the verb (the first word) unless `answer` names another schema."""
        done = run_khlone("--json", *words, cwd=cwd, env=env)
        name = answer or words[0]
        assert done.code == code, (words, done)
        document = done.json()
        assert done.out == json.dumps(document) + "\n", "stdout holds more than the document"
        assert "Traceback" not in done.err
        assert document["schema"] == f"khlone.{name}/1", (words, document)
        assert complaints(document, name) == [], words
        self.seen.add(name)
        return document

    def new(self, name: str, *options: str, cwd: Path) -> Path:
        """A new clone; returns its worktree."""
        return Path(self("new", name, *options, cwd=cwd)["clones"][0]["path"])


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries of a document by their names."""
    return {entry["name"]: entry for entry in entries}


# -- situations ------------------------------------------------------------------------------


def making_and_asking(ask: Ask, project: Path) -> None:
    """Clones are made, one of a row fails, and each verb that only asks is asked."""
    run_git("branch", "row-2", cwd=project)
    path = ask.new("one", cwd=project)

    row = ask("new", "row", "-n", "2", "--agent", "generic", cwd=project, code=1)
    assert [clone["name"] for clone in row["clones"]] == ["row-1"]
    assert [(one["name"], one["code"]) for one in row["failed"]] == [("row-2", "branch-exists")]
    assert ask("new", "run", "-x", "sh", "-c", "exit 7", cwd=project, code=7)["failed"] == []
    assert len(ask("list", cwd=path)["clones"]) == 3
    assert len(ask("list", "--no-status", cwd=project)["clones"]) == 3
    assert ask("show", cwd=path)["clone"]["merged"] is None
    assert ask("path", "one", cwd=project)["path"] == str(path)
    assert ask("cd", "one", cwd=project)["path"] == str(path)
    assert ask("completion", "fish", cwd=project)["script"]
    assert ask("help", cwd=project)["command"] == "git khlone"
    assert ask("help", "agents", "--skill", cwd=project)["text"].startswith("---\nname: khlone\n")
    assert ask("setup", "--shell", "zsh", "--dry-run", cwd=project)["done"] is False
    assert ask("env", "one", cwd=project)["environment"]["KHLONE_NAME"] == "one"


def help_and_version(ask: Ask, project: Path) -> None:
    """The options that answer instead of a verb."""
    assert ask("--json", "-h", answer="help", cwd=project)["command"] == "git khlone"
    assert "--into" in ask("new", "--help", answer="help", cwd=project)["text"]
    assert ask("--version", answer="version", cwd=project)["version"]


def running(ask: Ask, project: Path) -> None:
    """Commands end with an exit code, by a signal, with much to say."""
    ask.new("one", cwd=project)

    def run(script: str, code: int) -> dict[str, Any]:
        found = ask("exec", "one", "--", "sh", "-c", script, cwd=project, code=code)["results"][0]
        assert isinstance(found, dict)
        return found

    ended = run("echo out; echo err >&2; exit 3", 3)
    assert (ended["exit"], ended["signal"], ended["stdout"], ended["stderr"]) == (3, None, "out\n", "err\n")
    ended = run("kill -9 $$", 137)
    assert (ended["exit"], ended["signal"]) == (None, 9)
    assert run("yes | head -c 1100000", 0)["truncated"]
    assert run(r"printf '\377'", 0)["stdout"] == "\ufffd"
    ask.new("two", cwd=project)
    everywhere = ask("exec", "--all", "-j", "1", "--fail-fast", "--", "false", cwd=project, code=1)["results"]
    assert [(one["name"], one["exit"], one["signal"]) for one in everywhere] == [("one", 1, None), ("two", None, None)]


def every_state_of_a_clone(ask: Ask, project: Path) -> None:
    """Clones are dirty, ahead, broken, locked, without a target, with a process in them."""
    ask.new("used", cwd=project)
    dirty, ahead, broken, locked = (ask.new(name, cwd=project) for name in ("dirty", "ahead", "broken", "locked"))
    write(dirty, {"README.md": "edited\n", "new.txt": "new\n"})
    make_commit(ahead, {"ahead.txt": "ahead\n"}, "ahead")
    broken.rename(broken.with_name("moved"))
    run_git("worktree", "unlock", str(locked), cwd=project)
    run_git("worktree", "lock", "--reason", "mine", str(locked), cwd=project)
    run_git("checkout", "-q", "--detach", cwd=project)
    ask.new("free", cwd=project)

    with subprocess.Popen(
        [KHLONE, "exec", "used", "--", "sh", "-c", "echo started; read _"],
        cwd=project,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"started\n"
        clones = by_name(ask("list", cwd=project)["clones"])
        shown = ask("show", "used", cwd=project)["clone"]
        child.communicate(b"\n")

    assert child.returncode == 0
    assert (clones["dirty"]["dirty"], clones["dirty"]["untracked"]) == (True, 1)
    assert (clones["ahead"]["ahead"], clones["ahead"]["merged"]) == (1, False)
    assert (clones["broken"]["state"], clones["broken"]["dirty"]) == ("broken", None)
    assert clones["locked"]["locked"] == "mine"
    assert (clones["free"]["target"], clones["free"]["ahead"]) == (None, None)
    assert shown["sessions"][0]["command"][0] == "sh"


def merging(ask: Ask, project: Path) -> None:
    """Clones land in every way there is, and are held for every reason that a user meets."""
    paths = {name: ask.new(name, cwd=project) for name in ("merge", "squash", "ff", "clash", "dirty", "idle", "local")}
    make_commit(paths["merge"], {"README.md": "merge\n"}, "merge")
    make_commit(paths["squash"], {"squash.txt": "squash\n"}, "squash")
    make_commit(paths["clash"], {"README.md": "clash\n"}, "clash")
    make_commit(paths["local"], {"src/app.py": "local\n"}, "local")
    write(paths["dirty"], {"new.txt": "new\n"})

    assert by_name(ask("merge", "merge", "--dry-run", cwd=project)["landed"])["merge"]["strategy"] == "merge"
    first = ask("merge", "merge", "clash", "dirty", "idle", cwd=project, code=4)
    assert [one["name"] for one in first["landed"]] == ["merge"]
    assert {name: one["code"] for name, one in by_name(first["held"]).items()} == {
        "clash": "conflict",
        "dirty": "clone-dirty",
        "idle": "nothing-to-merge",
    }
    assert by_name(first["held"])["clash"]["paths"] == ["README.md"]
    assert ask("merge", "squash", "--squash", cwd=project)["landed"][0]["strategy"] == "squash"
    run_git("reset", "-q", "--hard", "main", cwd=paths["ff"])
    make_commit(paths["ff"], {"ff.txt": "ff\n"}, "ff")
    assert ask("merge", "ff", "--ff-only", "--remove", cwd=project)["landed"][0]["strategy"] == "ff-only"
    write(project, {"src/app.py": "the user's own\n"})
    held = ask("merge", "local", cwd=project, code=1)["held"][0]
    assert (held["code"], held["paths"]) == ("target-dirty", ["src/app.py"])


GATE = """
from khlone import Verdict, hookimpl

@hookimpl
def khlone_gate(clone, candidate):
    return Verdict(passed=clone.name == "good", gate="by-name", message="not good")
"""


def merging_through_a_gate(ask: Ask, project: Path) -> None:
    """A gate passes one clone and holds the other."""
    site = project.with_name("site")
    write(
        site,
        {
            "name_gate.py": GATE,
            "name_gate-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: name-gate\nVersion: 1.0\n",
            "name_gate-1.0.dist-info/entry_points.txt": "[khlone]\nname-gate = name_gate\n",
        },
    )
    for name in ("good", "bad"):
        make_commit(ask.new(name, cwd=project), {f"{name}.txt": "text\n"}, name)

    found = ask("merge", "good", "bad", cwd=project, code=5, env={"PYTHONPATH": str(site)})

    assert found["gated"]
    assert [one["name"] for one in found["landed"]] == ["good"]
    assert found["held"][0]["code"] == "gate-failed"


def removing_and_restoring(ask: Ask, project: Path) -> None:
    """Clones are kept, removed with all they hold, and come back under a new name where theirs is taken."""
    clean, full = ask.new("clean", cwd=project), ask.new("full", cwd=project)
    make_commit(full, {".gitignore": "*.log\n"}, "work")
    write(full, {"README.md": "edited\n", "new.txt": "new\n", "run.log": "ignored\n"})

    assert [one["name"] for one in ask("remove", "--dry-run", "clean", cwd=project)["removed"]] == ["clean"]
    first = ask("remove", "clean", "full", cwd=project, code=1)
    assert [(one["name"], one["code"]) for one in first["kept"]] == [("full", "has-changes")]
    assert by_name(first["removed"])["clean"]["branch_deleted"]
    assert not ask("remove", "--force", "full", cwd=project)["removed"][0]["branch_deleted"]
    entries = ask("trash", cwd=project)["entries"]
    assert [one["name"] for one in entries] == ["full", "clean"]
    assert (entries[0]["holds"]["untracked"], entries[0]["holds"]["ignored"]) == (1, 1)
    ask.new("clean", cwd=project)
    assert ask("restore", "clean", cwd=project)["clone"]["name"] == "clean-restored"
    assert ask("restore", entries[0]["trash"], cwd=project)["clone"]["path"] == str(full)
    assert not clean.with_name("full-restored").exists()


def keeping_up_and_taking_back(ask: Ask, project: Path) -> None:
    """A worktree is adopted, a clone renamed, one synced and one kept, and what undo does of each kind."""
    linked = project.with_name("linked")
    run_git("worktree", "add", "-q", "-b", "topic", str(linked), cwd=project)
    one, clash = ask.new("one", cwd=project), ask.new("clash", cwd=project)
    make_commit(one, {"one.txt": "one\n"}, "one")
    make_commit(clash, {"README.md": "clash\n"}, "clash")
    make_commit(project, {"README.md": "theirs\n"}, "theirs")

    assert ask("adopt", str(linked), cwd=project)["clone"]["state"] == "adopted"
    assert ask("rename", "one", "two", "--dry-run", cwd=project)["clone"]["name"] == "two"
    assert ask("rename", "one", "two", cwd=project)["old"]["path"] == str(one)
    assert ask("sync", "--all", "--dry-run", cwd=project, code=4)["synced"]
    found = ask("sync", "--all", cwd=project, code=4)
    assert [one["name"] for one in found["synced"]] == ["topic", "two"]
    assert [(one["code"], one["paths"]) for one in found["kept"]] == [("conflict", ["README.md"])]
    assert ask("undo", "--dry-run", cwd=project)["kept"] is None
    moved = [ask("undo", cwd=project) for _ in range(3)]
    assert [one["undone"]["kind"] for one in moved] == ["sync", "sync", "rename"]
    assert [one["branch"] for one in moved] == ["two", "topic", None]


def looking_back(ask: Ask, project: Path) -> None:
    """What a clone changed, what was done, what is done with, what is purged."""
    path = ask.new("done", cwd=project)
    fresh = ask.new("fresh", cwd=project)
    make_commit(path, {"new.txt": "new\n", "bytes": b"\0\1"}, "work")
    write(fresh, {"untracked.txt": "x\n"})

    assert {one["path"]: one["added"] for one in ask("diff", "done", cwd=project)["files"]} == {
        "new.txt": 1,
        "bytes": None,
    }
    assert ask("diff", cwd=fresh)["files"][0]["status"] == "A"
    ask("merge", "done", cwd=project)
    assert by_name(ask("prune", cwd=project)["kept"])["fresh"]["code"] == "untouched"
    assert len(ask("prune", "--trash", "--age", "0s", cwd=project)["purged"]) == 1
    kinds = [one["kind"] for one in ask("log", cwd=project)["operations"]]
    assert kinds == ["purge", "remove", "merge", "create", "create"]


def approving(ask: Ask, project: Path) -> None:
    """A commit is approved, voided by another one, and let go of."""
    path = ask.new("one", cwd=project)
    make_commit(path, {"one.txt": "one\n"}, "one")

    assert ask("approve", "one", cwd=project)["approved"][0]["valid"]
    make_commit(path, {"two.txt": "two\n"}, "two")
    assert not ask("approve", "--list", cwd=project)["approved"][0]["valid"]
    assert len(ask("approve", "--withdraw", "one", cwd=project)["approved"]) == 1
    assert ask("approve", "--list", cwd=project)["approved"] == []


def with_a_remote(ask: Ask, project: Path) -> None:
    """Clones are pushed for the first time, again, instead of what was there, and held."""
    remote = project.with_name("origin.git")
    run_git("clone", "-q", "--bare", str(project), str(remote), cwd=project)
    ask("new", "lost", cwd=project)
    assert ask("push", "lost", cwd=project, code=1)["held"][0]["code"] == "no-remote"
    run_git("remote", "add", "origin", str(remote), cwd=project)
    path = ask.new("one", cwd=project)
    make_commit(path, {"one.txt": "one\n"}, "one")

    assert ask("push", "one", "--dry-run", cwd=project)["pushed"][0]["old"] is None
    assert ask("push", "one", "lost", "--atomic", cwd=project)["held"] == []
    assert ask("push", "one", cwd=project)["pushed"][0]["old"] is not None
    run_git("commit", "-q", "--amend", "-m", "reworded", cwd=path)
    assert ask("push", cwd=path)["pushed"][0]["overwritten"]


def proposing(ask: Ask, project: Path) -> None:
    """A pull request would be opened, is opened, and is found again."""
    run_git("clone", "-q", "--bare", str(project), "../origin.git", cwd=project)
    run_git("remote", "add", "origin", "../origin.git", cwd=project)
    environment = {"PATH": f"{fake_forge(project.parent / 'programs', 'gh')}:{os.environ['PATH']}"}
    path = ask.new("one", cwd=project)
    make_commit(path, {"one.txt": "one\n"}, "one")

    assert ask("pr", "one", "--dry-run", cwd=project, env=environment)["url"] is None
    assert [ask("pr", cwd=path, env=environment)["opened"] for _ in range(2)] == [True, False]


def mending(ask: Ask, project: Path) -> None:
    """The doctor finds nothing, then a clone's fault and a foreign one, and mends them."""
    assert ask("doctor", cwd=project)["findings"] == []
    path = ask.new("one", cwd=project)
    path.rename(path.with_name("moved"))
    write(project / ".git" / "worktrees" / "foreign", {"commondir": "", "gitdir": f"{project}/x/.git\n", "HEAD": "\n"})

    found = ask("doctor", cwd=project, code=1)["findings"]

    assert {(one["code"], one["clone"]) for one in found} >= {
        ("worktree-moved", "one"),
        ("broken-admin-folder", None),
        ("git-fails", None),
    }
    long_ago = 1_000_000_000
    os.utime(project / ".git" / "worktrees" / "foreign", (long_ago, long_ago))
    mended = ask("doctor", "--fix", cwd=project)["findings"]
    assert all(one["fixed"] for one in mended if one["severity"] == "error")
    assert [one["severity"] for one in ask("doctor", cwd=project)["findings"]] == ["info"]


def showing_agents(ask: Ask, project: Path) -> None:
    """Agents are listed, and one is shown with everything."""
    names = [one["name"] for one in ask("agents", cwd=project)["agents"]]
    (shown,) = ask("agents", "show", "claude", cwd=project)["agents"]

    assert names == ["claude", "codex", "gemini", "generic", "opencode", "qwen"]
    assert {item["sharing"] for item in shown["items"]} == {"generate", "copy", "link", "never"}
    ask.new("one", "--agent", "claude", cwd=project)
    write(Path(os.environ["HOME"]), {".claude/settings.json": '{"model": "opus"}'})
    changes = ask("agents", "refresh", "one", cwd=project)["changes"]
    assert [(one["item"], one["key"], one["what"]) for one in changes] == [("settings.json", "model", "updated")]
    (checked,) = ask("agents", "check", "generic", cwd=project, code=1)["checks"]
    assert (checked["started"], checked["logged_in"]) == (False, None)


def contending(ask: Ask, project: Path) -> None:
    """Agents contend, of a version that shares no login and of one that does."""
    rows = ask("contention", "--fake", "-n", "2", cwd=project)["rows"]

    assert [(row["mode"], row["logged_out"]) for row in rows] == [("shared", 0), ("linked", 1), ("khlone", 0)]


def showing_plugins(ask: Ask, project: Path) -> None:
    """Plugins are loaded, left out, and broken."""
    site = project.with_name("site")
    write(
        site,
        {
            "broken.py": "raise RuntimeError\n",
            "broken-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n",
            "broken-1.0.dist-info/entry_points.txt": "[khlone]\nbroken = broken\n",
        },
    )
    environment = {"PYTHONPATH": str(site), "KHLONE_PLUGINS": "broken,claude"}

    found = by_name(ask("plugins", cwd=project, env=environment)["plugins"])

    assert (found["claude"]["loaded"], found["claude"]["reason"]) == (True, None)
    assert "khlone_agents" in found["claude"]["hooks"]
    assert (found["broken"]["loaded"], found["broken"]["reason"]) == (False, "RuntimeError")
    assert (found["generic"]["import_ms"], found["generic"]["loaded"]) == (None, False)
    assert not any(one["loaded"] for one in ask("--no-plugins", "plugins", cwd=project, answer="plugins")["plugins"])


def git_hooks(ask: Ask, project: Path) -> None:
    """Git hooks come, for clones and for all, are shown, one of them replaced by another, and go."""
    make_commit(ask.new("one", cwd=project), {"one.txt": "one\n"}, "one")
    assert ask("hooks", "status", cwd=project)["scope"] is None
    assert ask("hooks", "install", "--clones", "--dry-run", cwd=project)["changed"]
    assert ask("hooks", "install", "--clones", cwd=project)["done"]
    make_commit(Path(ask("path", "one", cwd=project)["path"]), {"one.txt": "two\n"}, "two")
    assert ask("hooks", "status", cwd=project)["worktrees"][1]["moves"] == 1
    assert ask("hooks", "remove", cwd=project)["done"]
    write(project / ".git" / "hooks", {"post-commit": "#!/bin/sh\n"})
    assert ask("hooks", "install", "--all", cwd=project)["scope"] == "all"
    write(project / ".git" / "hooks", {"post-commit": "#!/bin/sh\n"})
    assert "unchained" in {hook["state"] for hook in ask("hooks", "status", cwd=project)["hooks"]}


def settings(ask: Ask, project: Path) -> None:
    """Settings are shown, changed in each place and edited; one cannot be used, one is nobody's."""
    run_git("config", "khlone.durable", "perhaps", cwd=project)
    run_git("config", "khlone.nobody.knows", "x", cwd=project)

    rows = {row["key"]: row for row in ask("config", cwd=project)["settings"]}
    assert (rows["khlone.durable"]["source"], rows["khlone.durable"]["fault"]) == ("git", "it must be true or false")
    assert rows["khlone.nobody.knows"]["doc"] is None
    assert rows["khlone.agent"] == ask("config", "get", "khlone.agent", cwd=project)["settings"][0]
    assert ask("config", "set", "khlone.durable", "no", cwd=project)["settings"][0]["fault"] is None
    assert ask("config", "set", "--user", "gate.tests", "make", cwd=project)["settings"][0]["line"] == 2
    assert ask("config", "set", "--project", "trash.age", "1d", cwd=project)["settings"][0]["source"] == "project"
    assert ask("config", "unset", "--user", "gate.tests", cwd=project)["settings"][0]["value"] is None
    by_variable = ask("config", "get", "agent", cwd=project, env={"KHLONE_AGENT": "generic"})["settings"][0]
    assert (by_variable["source"], by_variable["variable"]) == ("environment", "KHLONE_AGENT")
    assert ask("config", "edit", cwd=project, env={"GIT_EDITOR": "true"})["settings"]


def refusals(ask: Ask, project: Path) -> None:
    """Each exit code has its error document, on usage errors too."""

    def refused(code: str, exit_code: int, *words: str, cwd: Path = project, env: dict[str, str] | None = None) -> None:
        found = ask(*words, cwd=cwd, code=exit_code, answer="error", env=env)
        assert found["code"] == code, found

    empty, outside = project.with_name("empty"), project.with_name("outside")
    outside.mkdir()
    run_git("init", "-q", str(empty), cwd=outside)
    ask.new("one", cwd=project)

    refused("usage", 2, "no-such-verb")
    refused("usage", 2, "list", "--no-such-option")
    refused("usage", 2, "new")
    refused("usage", 2, "new", "x", "-n", "many")
    refused("usage", 2, "show")
    refused("usage", 2, "-C", "no-such-folder", "list")
    refused("usage", 2, "exec", "one")
    refused("usage", 2, "merge", "one", "--squash", "--ff-only")
    refused("illegal-name", 2, "new", "a..b")
    refused("unknown-agent", 2, "new", "x", "--agent", "no-such-agent")
    refused("not-a-repository", 1, "list", cwd=outside)
    refused("unborn-head", 1, "new", "x", cwd=empty)
    refused("no-such-clone", 1, "show", "two")
    refused("no-such-clone", 1, "merge", "one", "two")
    refused("clone-exists", 1, "new", "one")
    refused("no-such-ref", 1, "new", "x", "--from", "no-such-ref")
    refused("no-such-trash", 1, "restore", "two")
    refused("command-not-found", 1, "exec", "one", "--", "no-such-program-here")
    refused("no-space", 1, "new", "x", env={"KHLONE_FAULT": "create.refs:raise:ENOSPC"})
    refused("bug", 3, "new", "x", env={"KHLONE_FAULT": "create.refs:raise:ECHILD"})
    refused("not-permitted", 77, "list", env={"GIT_QUARANTINE_PATH": "x"})


def hooks(ask: Ask, project: Path) -> None:
    """Hooks are looked at, approved, run by hand and taken back."""
    assert ask("trust", "--list", cwd=project)["approvals"] == []
    script = "#!/bin/sh\nkill -9 $$\n"
    table = '[hooks]\npost-merge = { good = "echo said", bad = "./run.sh", timeout = 5, secrets = true }\n'
    make_commit(project, {".khlone.toml": table, "run.sh": script}, "hooks")
    (project / "run.sh").chmod(0o755)
    ask.new("one", cwd=project)

    waiting = ask("trust", "--check", cwd=project, code=77)["commands"]
    assert [one["approved"] for one in waiting] == [False, False]
    assert not ask("hook", "run", "post-merge", "one", "--dry-run", cwd=project)["approved"]
    assert ask("trust", "--yes", cwd=project)["commands"][1]["files"][0]["script"]
    path = ask("path", "one", cwd=project)["path"]
    assert ask("trust", "--yes", cwd=Path(path))["commands"][1]["files"][0]["path"] == "run.sh"
    ended = by_name(ask("hook", "run", "post-merge", "one", cwd=project, code=1)["results"])
    assert (ended["good"]["exit"], ended["good"]["output"]) == (0, "said\n")
    assert ended["bad"]["exit"] is not None or ended["bad"]["signal"] is not None
    assert len(ask("untrust", cwd=project)["removed"]) == 2
    ask("trust", "--yes", cwd=project)
    would = ask("uninstall", "--all", "--dry-run", cwd=project)
    assert {"approval", "record", "registry"} <= {one["kind"] for one in would["removed"]}
    assert ask("uninstall", cwd=project)["kept"][0]["kind"] == "registry"


def queueing(ask: Ask, project: Path) -> None:
    """Entries in every state, and what happened to them."""
    for name in ("one", "two"):
        path = ask.new(name, cwd=project)
        make_commit(path, {f"{name}.txt": name}, name)
    run_git("config", "khlone.gate.test", "test ! -e two.txt", cwd=project)

    assert [entry["state"] for entry in ask("queue", "add", "one", "two", cwd=project)["entries"]] == ["waiting"] * 2
    assert ask("queue", "remove", "one", cwd=project)["entries"][0]["name"] == "one"
    assert ask("queue", "pause", cwd=project)["paused"] == ["main"]
    assert ask("queue", "resume", cwd=project)["paused"] == []
    assert [one["state"] for one in ask("queue", "run", cwd=project, code=5)["entries"]] == ["held"]
    remote = project.parent / "upstream.git"
    run_git("init", "-q", "--bare", str(remote), cwd=project)
    run_git("remote", "add", "upstream", str(remote), cwd=project)
    run_git("push", "-q", "-u", "upstream", "main", cwd=project)
    run_git("config", "khlone.gate.test", "echo >made-by-the-gate", cwd=project)
    pushed = ask("merge", "one", "--push", cwd=project)
    assert (pushed["gated"], pushed["pushed"], len(pushed["notes"])) == (True, "upstream/main", 1)
    ended = [(entry["name"], entry["state"]) for entry in ask("queue", "log", cwd=project)["entries"]]
    assert ended == [("one", "landed"), ("two", "held"), ("one", "removed")]
    assert ask("events", cwd=project)["events"][-1]["event"] == "landed"


def sharing_the_machine(ask: Ask, project: Path) -> None:
    """Places and slots are held and waited for."""
    ask.new("one", cwd=project)
    run_git("config", "khlone.limits.sessions", "1", cwd=project)
    words = [str(KHLONE), "exec", "one", "--", str(KHLONE), "slot", "run", "--", "sh", "-c", "echo started; read _"]

    with subprocess.Popen(words, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"started\n"
        places = ask("limits", cwd=project)["places"]
        assert ask("usage", cwd=project)["clones"] == []
        assert [one["name"] for one in ask("top", cwd=project)["sessions"]] == ["one"]
        held = ask("slot", "list", cwd=project)["slots"]
        assert ask("exec", "one", "--no-wait", "--", "true", cwd=project, answer="error", code=75)["code"] == "no-room"
        assert ask("slot", "run", "--no-wait", "--", "true", cwd=project, answer="error", code=75)["code"] == "no-room"
        child.communicate(b"\n")

    assert [(one["name"], one["state"]) for one in places] == [("one", "running")]
    assert [(one["name"], one["holder"]) for one in held] == [("default", "one")]
    assert ask("slot", "run", "--", "sh", "-c", "kill -9 $$", cwd=project, code=137)["result"]["signal"] == 9


#: An agent that answers with what it is asked.
ECHO = '[agents.echo]\nvariable = "ECHO_HOME"\ncommand = "echo"\nheadless = "{prompt}"\n'


def looking_after_sessions(ask: Ask, project: Path) -> None:
    """A session runs detached, one waits for its place, and both end."""
    ask.new("one", cwd=project)
    ask.new("two", cwd=project)
    run_git("config", "khlone.limits.sessions", "1", cwd=project)

    started = ask("run", "one", "--detach", "--", "sh", "-c", "echo said; exec sleep 1000", cwd=project)["session"]
    assert ask("run", "two", "-d", "--", "sh", "-c", "exit 3", cwd=project)["session"]["state"] == "waiting"
    assert ask("run", "one", "-d", "--", "true", cwd=project, answer="error", code=75)["code"] == "clone-busy"
    assert ask("show", "two", cwd=project)["clone"]["sessions"][0]["reason"].startswith("number 1 of 1 in line: ")
    stopped = ask("stop", "one", cwd=project)["sessions"]
    assert [(one["id"], one["signal"], one["reason"]) for one in stopped] == [(started["id"], 15, "it was stopped")]
    assert "said\n" in ask("logs", "one", cwd=project)["text"]
    assert ask("wait", "two", cwd=project, code=3)["sessions"][0]["exit"] == 3
    write(Path(os.environ["XDG_CONFIG_HOME"], "khlone"), {"config.toml": ECHO})
    ask.new("three", "--agent", "echo", cwd=project)
    assert ask("ask", "three", "hello", cwd=project)["answer"]["result"] == "hello\n"
    assert ask("ask", "three", "hello", "--detach", cwd=project)["answer"] is None
    write(project.parent / "programs", {"tmux": "#!/bin/sh\n"})
    (project.parent / "programs" / "tmux").chmod(0o700)
    path = {"PATH": f"{project.parent / 'programs'}:{os.environ['PATH']}"}
    assert ask("attach", "one", "--", "true", cwd=project, env=path)["session"]["kind"] == "attach"


def foreseeing(ask: Ask, project: Path) -> None:
    """Two clones that conflict with each other, one of them with its target too, and paths that are odd."""
    assert ask("conflicts", cwd=project) == {"schema": "khlone.conflicts/1", "pairs": [], "order": []}
    for name in ("one", "two"):
        make_commit(ask.new(name, cwd=project), {"a\nb.txt": name}, name)

    found = ask("conflicts", "--uncommitted", "--into", "main", cwd=project)
    assert found["pairs"] == [{"a": "one", "b": "two", "paths": ["a\nb.txt"]}]
    assert found["order"] == ["one", "two"]


SITUATIONS: dict[Callable[[Ask, Path], None], set[str]] = {
    making_and_asking: {"cd", "completion", "help", "setup", "new", "list", "show", "path", "env"},
    help_and_version: {"help", "version"},
    running: {"new", "exec"},
    every_state_of_a_clone: {"new", "list", "show"},
    merging: {"new", "merge"},
    merging_through_a_gate: {"new", "merge"},
    queueing: {"new", "merge", "queue", "events"},
    foreseeing: {"new", "conflicts"},
    looking_after_sessions: {"new", "run", "ask", "attach", "show", "stop", "wait", "logs", "error"},
    sharing_the_machine: {"new", "limits", "slot", "usage", "top", "error"},
    removing_and_restoring: {"new", "remove", "trash", "restore"},
    keeping_up_and_taking_back: {"new", "adopt", "rename", "sync", "undo"},
    looking_back: {"new", "diff", "merge", "prune", "log"},
    approving: {"new", "approve"},
    with_a_remote: {"new", "push"},
    proposing: {"new", "pr"},
    mending: {"new", "doctor"},
    hooks: {"new", "path", "trust", "untrust", "hook", "uninstall"},
    showing_agents: {"agents", "new"},
    contending: {"contention"},
    showing_plugins: {"plugins"},
    settings: {"config"},
    git_hooks: {"new", "path", "hooks"},
    refusals: {"new", "error"},
}


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_every_answer_is_one_document_that_keeps_its_schema(
    situation: Callable[[Ask, Path], None], repository: Path
) -> None:
    ask = Ask()

    situation(ask, repository)

    assert ask.seen == SITUATIONS[situation]


def test_an_interrupted_command_answers_with_a_document(repository: Path) -> None:
    with subprocess.Popen(
        [KHLONE, "--json", "new", "one"],
        cwd=repository,
        env={**os.environ, "KHLONE_FAULT": "create.refs:stop"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGCONT)
        out, _ = child.communicate(timeout=60)

    assert child.returncode == 128 + signal.SIGTERM
    document = json.loads(out)
    assert document["code"] == "interrupted"
    assert complaints(document, "error") == []
    assert run_git("branch", "--list", "one", cwd=repository) == ""


# -- the schemas themselves --------------------------------------------------------------------


def test_every_verb_has_a_schema_and_every_schema_is_exercised() -> None:
    exercised = set().union(*SITUATIONS.values())

    assert set(SCHEMAS) == {*VERBS, "help", "version", "error", PART}
    assert exercised == set(SCHEMAS) - {PART}


def objects(schema: object, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every subschema of a schema that describes an object, with the names that lead to it."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield at, schema
        for key, inner in schema.items():
            yield from objects(inner, at if key in ("properties", "items", "$defs") else (*at, key))


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_allows_no_field_too_few_and_none_too_many(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    found = dict(objects(SCHEMAS[name], (name,)))

    closed = {at: schema for at, schema in found.items() if at not in OPEN}

    assert (name,) in closed
    for at, schema in closed.items():
        assert schema["additionalProperties"] is False, at
        assert schema["required"] == list(schema["properties"]), at
    assert SCHEMAS[name]["title"] == ("CLONE" if name == PART else f"khlone.{name}/1")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"clone": {"name": "a"}}, "$.clone"),
        ({"schema": "khlone.show/2"}, "$.schema"),
        ({"extra": 1}, "$"),
        ({"clone": {"target": 1}}, "$.clone.target"),
        ({"clone": {"oid": "x"}}, "$.clone"),
    ],
    ids=["too-few", "another-schema", "too-many", "another-type", "too-many-inside"],
)
def test_a_document_that_departs_from_its_schema_is_noticed(
    khlone: Khlone, repository: Path, change: dict[str, Any], where: str
) -> None:
    khlone("new", "a", cwd=repository)
    document = khlone("show", "a", "--json", cwd=repository).json()
    assert complaints(document, "show") == []

    if change.get("clone") == {"name": "a"}:
        document["clone"] = change["clone"]
    else:
        document["clone"] |= change.get("clone", {})
        document |= {key: value for key, value in change.items() if key != "clone"}

    assert any(text.startswith(f"{where}: ") for text in complaints(document, "show"))
