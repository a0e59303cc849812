"""Shell hooks: what runs when, with what, for how long, and that nothing runs which was not approved."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands.steps import branches, clone_names, footprint, new, refused
from tests.support import STEERING, Commit, Git, Khlone, make_commit, run_khlone, write

#: Longer than anything here takes; only a test that fails waits so long.
PATIENCE_S = 60.0


def wait_until(happened: Callable[[], object]) -> None:
    """Wait for an event that cannot be blocked on."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.01)


def table(hooks: Mapping[str, object]) -> str:
    """A `[hooks]` table; JSON is TOML for texts and lists."""

    def value(one: object) -> str:
        if isinstance(one, dict):
            return "{" + ", ".join(f"{key} = {value(inner)}" for key, inner in one.items()) + "}"
        return json.dumps(one)

    return "[hooks]\n" + "".join(f"{event} = {value(one)}\n" for event, one in hooks.items())


def declare(project: Path, hooks: Mapping[str, object], files: Mapping[str, str] | None = None) -> None:
    """Commit hooks with the scripts that they name, which are executable."""
    write(project, {".khlone.toml": table(hooks), **(files or {})})
    for name in files or {}:
        (project / name).chmod(0o755)
    make_commit(project, {".khlone.toml": table(hooks), **(files or {})}, "hooks")


def approved(project: Path, hooks: Mapping[str, object], files: Mapping[str, str] | None = None) -> None:
    """The same, and the user approves them."""
    declare(project, hooks, files)
    done = run_khlone("trust", "--yes", cwd=project)
    assert done.code == 0, done


def by_user(hooks: Mapping[str, object]) -> None:
    """Hooks in the user's own file."""
    write(Path(os.environ["XDG_CONFIG_HOME"]), {"khlone/config.toml": table(hooks)})


def logs() -> list[Path]:
    """The logs of hooks that have ended."""
    found = Path(os.environ["XDG_STATE_HOME"], "khlone").rglob("hook-*.log")
    return [path for path in found if b"\n# " in path.read_bytes()]


def running() -> list[Path]:
    """The folders of hooks that have not ended."""
    folder = Path(os.environ["XDG_STATE_HOME"], "khlone", "hooks", "running")
    return list(folder.iterdir()) if folder.is_dir() else []


def is_running(pid: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- when, and with what -----------------------------------------------------------------------


def test_a_hook_gets_its_context_as_variables_and_as_one_json_object(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    approved(repository, {"pre-spawn": f"env > {told}; cat > {told}.json; pwd > {told}.pwd; cat"})
    path = new(khlone, repository, "one")

    done = khlone("exec", "one", "--", "true", "a b", cwd=repository, env={"LC_ALL": "C", "API_KEY": "secret"})

    assert done.code == 0, done
    variables = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert {
        name: variables[name]
        for name in variables
        if name.startswith("KHLONE_") and name not in {"KHLONE_HOOK_RUN", "KHLONE_PORT", "KHLONE_PORT_COUNT", *STEERING}
    } == {
        "KHLONE_HOOK": "pre-spawn",
        "KHLONE_NAME": "one",
        "KHLONE_ID": variables["KHLONE_ID"],
        "KHLONE_BRANCH": "one",
        "KHLONE_TARGET": "main",
        "KHLONE_PATH": str(path),
        "KHLONE_REPOSITORY": str(repository),
    }
    assert {"PATH", "HOME", "LC_ALL"} <= set(variables)
    assert "API_KEY" not in variables
    assert Path(f"{told}.pwd").read_text() == f"{path}\n"
    document = json.loads(Path(f"{told}.json").read_text())
    assert (document["event"], document["clone"]["name"], document["command"]) == ("pre-spawn", "one", ["true", "a b"])
    assert document["plan"] is None


@pytest.mark.parametrize(("hook", "sees"), [("env", False), ({"run": "env", "secrets": True}, True)])
def test_a_hook_sees_all_variables_only_if_it_says_so(
    khlone: Khlone, repository: Path, tmp_path: Path, hook: object, sees: bool
) -> None:
    told = tmp_path / "told"
    one = f"env > {told}"
    approved(repository, {"pre-create": one if hook == "env" else {"run": one, "secrets": True}})

    done = khlone("new", "one", cwd=repository, env={"SOME_API_KEY": "secret", "GIT_DIR": None})

    assert done.code == 0, done
    assert ("SOME_API_KEY=secret" in told.read_text()) is sees


def test_each_event_runs_its_hooks_in_their_order(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    events = tmp_path / "events"
    kinds = ("create", "spawn", "sync", "merge", "cleanup")
    hooks = {f"{when}-{kind}": f"echo $KHLONE_HOOK $PWD >> {events}" for kind in kinds for when in ("pre", "post")}
    approved(repository, hooks)

    def told(event: str) -> None:
        wait_until(lambda: events.exists() and event in events.read_text())

    path = new(khlone, repository, "one")
    told("post-create")
    assert khlone("exec", "one", "--", "git", "commit", "--allow-empty", "-qm", "x", cwd=path).code == 0
    told("post-spawn")
    wait_until(lambda: not running())
    make_commit(repository, {"more.txt": "more\n"}, "more")
    assert khlone("sync", "one", cwd=repository).code == 0
    told("post-sync")
    assert khlone("merge", "one", cwd=repository).code == 0
    told("post-merge")
    wait_until(lambda: not running())
    assert khlone("remove", "one", cwd=repository).code == 0
    told("post-cleanup")

    lines = [line.split() for line in events.read_text().splitlines()]
    assert [event for event, _ in lines] == [f"{when}-{kind}" for kind in kinds for when in ("pre", "post")]
    assert {event for event, folder in lines if folder == str(repository)} == {"pre-create", "post-cleanup"}
    assert {folder for _, folder in lines} == {str(repository), str(path)}


def test_a_failing_pre_hook_refuses_and_says_how_it_ended_and_what_it_said_last(
    khlone: Khlone, git: Git, repository: Path
) -> None:
    approved(repository, {"pre-create": "seq 1 100; echo not today >&2; exit 7"})
    before = footprint(git, repository)

    error = refused(khlone("new", "one", "--json", cwd=repository), "vetoed")

    assert "hook pre-create ended with exit 7" in error["message"]
    assert error["message"].endswith("not today")
    assert "\n  1\n" not in error["message"]
    assert (error["facts"]["hook"], error["facts"]["exit"]) == ("pre-create", 7)
    assert footprint(git, repository) == before


def test_what_a_failing_hook_said_keeps_its_lines(khlone: Khlone, repository: Path) -> None:
    approved(repository, {"pre-create": "echo because; printf 'two\\033[2J\\n' >&2; exit 7"})

    done = khlone("new", "one", cwd=repository)

    lines = done.err.splitlines()
    assert "  because" in lines
    assert "  two\\x1b[2J" in lines


def test_a_failing_pre_merge_hook_holds_its_clone_and_the_others_land(
    khlone: Khlone, repository: Path, commit: Commit
) -> None:
    approved(repository, {"pre-merge": '[ "$KHLONE_NAME" != bad ]'})
    for name in ("good", "bad"):
        commit(new(khlone, repository, name), {f"{name}.txt": name}, name)

    found = khlone("merge", "bad", "good", "--json", cwd=repository).json()

    assert [one["name"] for one in found["landed"]] == ["good"]
    assert [(one["name"], one["code"]) for one in found["held"]] == [("bad", "vetoed")]


def test_a_failing_pre_sync_hook_keeps_its_clone_as_it_is(
    khlone: Khlone, git: Git, repository: Path, commit: Commit
) -> None:
    approved(repository, {"pre-sync": "exit 1"})
    new(khlone, repository, "one")
    commit(repository, {"more.txt": "more\n"}, "more")
    before = branches(git, repository)

    done = khlone("sync", "one", "--json", cwd=repository)

    assert (done.code, done.json()["kept"][0]["code"]) == (1, "vetoed")
    assert branches(git, repository) == before


def test_steps_run_one_after_the_other_up_to_the_first_that_fails(khlone: Khlone, repository: Path) -> None:
    approved(repository, {"pre-create": ["echo one >> made", "echo two >> made; exit 1", "echo three >> made"]})

    error = refused(khlone("new", "one", "--json", cwd=repository), "vetoed")

    assert "pre-create (2)" in error["message"]
    assert (repository / "made").read_text() == "one\ntwo\n"


def test_named_commands_run_at_the_same_time(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    os.mkfifo(there)
    os.mkfifo(back)
    # Each waits for the other: one after the other, they would never end.
    approved(
        repository,
        {
            "pre-create": {
                "a": f"echo > {there}; read x < {back}",
                "b": f"read x < {there}; echo > {back}",
                "timeout": 50,
            }
        },
    )

    done = khlone("new", "one", cwd=repository)

    assert done.code == 0, done


def test_the_users_own_hooks_need_no_approval_and_run_first(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    events = tmp_path / "events"
    by_user({"pre-create": f"echo user >> {events}"})
    approved(repository, {"pre-create": f"echo project >> {events}"})

    assert khlone("new", "one", cwd=repository).code == 0

    assert events.read_text().split() == ["user", "project"]


def test_the_users_own_hooks_run_in_a_bare_repository(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.git"
    git("clone", "-q", "--bare", str(repository), str(bare), cwd=tmp_path)
    by_user({"pre-create": f"pwd > {tmp_path}/where"})

    assert khlone("new", "one", cwd=bare).code == 0

    assert Path(tmp_path, "where").read_text() == f"{bare}\n"


@pytest.mark.parametrize(
    ("hooks", "why"),
    [
        ({"pre-creat": "x"}, "no such event"),
        ({"pre-create": 7}, "must be the text of a command"),
        ({"pre-create": ""}, "must be the text of a command"),
        ({"pre-create": {"a": {"command": "x", "shell": "y"}}}, "shell"),
        ({"pre-create": {"a": "x", "timeout": 0}}, "number of seconds"),
        ({"pre-create": {"a": "x", "secrets": 1}}, "true or false"),
        ({"pre-create": {"timeout": 3}}, "no command"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused(
    khlone: Khlone, repository: Path, hooks: dict[str, object], why: str
) -> None:
    declare(repository, hooks)

    error = refused(khlone("new", "one", "--json", cwd=repository), "invalid-setting", 2)

    assert why in error["message"]


def test_a_hook_may_take_longer_than_the_hooks_of_other_plugins(khlone: Khlone, git: Git, repository: Path) -> None:
    git("config", "khlone.plugins.timeout", "1", cwd=repository)
    approved(repository, {"pre-create": "sleep 1.3"})

    assert khlone("new", "one", cwd=repository).code == 0


# -- in the background -------------------------------------------------------------------------


def test_a_post_hook_is_not_waited_for_and_leaves_a_log_of_the_clones(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    approved(repository, {"post-create": f"read x < {go}; echo said $x; echo also >&2"})

    path = new(khlone, repository, "one")
    with open(go, "w") as stream:
        stream.write("hello\n")
    wait_until(logs)

    (log,) = logs()
    assert {"said hello", "also", "# post-create ended with exit 0"} <= set(log.read_text().splitlines())
    config_dir = khlone("show", "one", "--json", cwd=path).json()["clone"]["config_dir"]
    assert log.parent == Path(config_dir).parent.parent / "logs"
    assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    wait_until(lambda: not running())


def test_what_a_post_merge_hook_runs_is_not_what_its_merge_brings(
    khlone: Khlone, repository: Path, commit: Commit, tmp_path: Path
) -> None:
    approved(repository, {"post-merge": f"echo approved > {tmp_path}/ran"})
    path = new(khlone, repository, "one")
    commit(path, {".khlone.toml": table({"post-merge": f"echo swapped > {tmp_path}/ran"})}, "swap")

    assert khlone("merge", "one", cwd=repository).code == 0
    wait_until((tmp_path / "ran").exists)
    wait_until(logs)

    assert (tmp_path / "ran").read_text() == "approved\n"
    assert "swapped" in (repository / ".khlone.toml").read_text()


def test_an_unapproved_post_hook_stops_the_command_while_nothing_is_changed(
    khlone: Khlone, git: Git, repository: Path, tmp_path: Path
) -> None:
    declare(repository, {"post-create": f"touch {tmp_path}/ran"})
    before = footprint(git, repository)

    refused(khlone("new", "one", "--json", cwd=repository), "not-trusted", 77)

    assert footprint(git, repository) == before
    assert not running()
    assert not (tmp_path / "ran").exists()


# -- names are data ----------------------------------------------------------------------------

ODD = ["`touch${IFS}PWNED`", "$(touch${IFS}PWNED)", "a;touch${IFS}PWNED", "a'b\"c", "a\u202egnp"]


@pytest.mark.parametrize("branch", ODD)
def test_a_branch_that_looks_like_shell_is_never_run(
    khlone: Khlone, git: Git, repository: Path, commit: Commit, tmp_path: Path, branch: str
) -> None:
    told = tmp_path / "told"
    say = f'printf "%s\\n" "$KHLONE_BRANCH" $KHLONE_BRANCH >> {told}; cat >> {told}'
    kinds = ("create", "spawn", "merge", "cleanup")
    approved(repository, {f"{when}-{kind}": say for kind in kinds for when in ("pre", "post")})
    git("branch", "--", branch, "main", cwd=repository)

    path = new(khlone, repository, "one", "--branch", branch)
    commit(path, {"work.txt": "work\n"}, "work")
    assert khlone("exec", "one", "--", "true", cwd=repository).code == 0
    shown = [khlone(*words, cwd=repository) for words in (["list"], ["show", "one"], ["log"], ["doctor"])]
    wait_until(lambda: not running())
    assert khlone("merge", "one", cwd=repository).code == 0
    wait_until(lambda: not running())
    assert khlone("remove", "one", cwd=repository).code == 0
    wait_until(lambda: not running())

    assert not [*tmp_path.rglob("PWNED"), *Path(os.environ["HOME"]).rglob("PWNED")]
    assert told.read_text().count(branch) >= 2 * len(kinds)
    assert all("\u202e" not in done.out + done.err for done in shown)
    assert branch in branches(git, repository)


@pytest.mark.parametrize("branch", ODD[:3])
def test_spliced_into_a_command_the_same_names_would_run(tmp_path: Path, branch: str) -> None:
    subprocess.run(["sh", "-c", f"echo {branch}"], cwd=tmp_path, check=False, stdout=subprocess.DEVNULL)

    assert (tmp_path / "PWNED").exists()


# -- only what was approved ----------------------------------------------------------------------


def test_nothing_runs_before_it_was_approved(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    declare(repository, {"pre-create": f"touch {tmp_path}/ran"})
    before = footprint(git, repository)

    error = refused(khlone("new", "one", "--json", cwd=repository), "not-trusted", 77)

    assert "git khlone trust" in error["hint"]
    assert footprint(git, repository) == before
    assert not (tmp_path / "ran").exists()
    assert khlone("trust", "--yes", cwd=repository).code == 0
    assert khlone("new", "one", cwd=repository).code == 0
    assert (tmp_path / "ran").exists()


def relink(project: Path) -> None:
    """Let the link lead to another script."""
    (project / "link").unlink()
    write(project, {"scripts/other.sh": "#!/bin/sh\ntouch $KHLONE_RAN.other\n"})
    (project / "scripts/other.sh").chmod(0o755)
    (project / "link").symlink_to("scripts/other.sh")


#: What is done to approved hooks, whose script is scripts/run.sh and the link `link` to it.
CHANGES: dict[str, Callable[[Path], object]] = {
    "the command": lambda project: write(project, {".khlone.toml": table({"pre-create": "./link other"})}),
    "the event": lambda project: write(project, {".khlone.toml": table({"pre-spawn": "./link"})}),
    "secrets": lambda project: write(
        project, {".khlone.toml": table({"pre-create": {"x": "./link", "secrets": True}})}
    ),
    "what the link leads to": lambda project: write(
        project, {"scripts/run.sh": "#!/bin/sh\ntouch $KHLONE_RAN.other\n"}
    ),
    "where the link leads": lambda project: relink(project),
    "a file that is read": lambda project: write(project, {"words.txt": "others\n"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_has_to_be_approved_again(
    khlone: Khlone, repository: Path, tmp_path: Path, change: str
) -> None:
    ran = {"KHLONE_RAN": str(tmp_path / "ran")}
    script = {"scripts/run.sh": "#!/bin/sh\ntouch $KHLONE_RAN\n"}
    (repository / "link").symlink_to("scripts/run.sh")
    write(repository, {"words.txt": "words\n"})
    approved(repository, {"pre-create": "./link", "pre-cleanup": "cat words.txt"}, script)
    assert khlone("new", "first", cwd=repository, env=ran).code == 0
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()

    CHANGES[change](repository)

    assert khlone("trust", "--check", cwd=repository).code == 77
    if "read" not in change and "event" not in change:
        refused(khlone("new", "one", "--json", cwd=repository, env=ran), "not-trusted", 77)
        assert clone_names(khlone, repository) == ["first"]
    assert list(tmp_path.glob("ran*")) == []
    assert khlone("trust", "--yes", cwd=repository).code == 0
    assert khlone("new", "one", cwd=repository, env=ran).code == 0


def test_a_copy_of_the_repository_has_nothing_approved(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    approved(repository, {"pre-create": f"touch {tmp_path}/ran"})
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(repository), str(copy)], check=True)

    refused(khlone("new", "one", "--json", cwd=copy), "not-trusted", 77)

    assert not (tmp_path / "ran").exists()


def test_what_a_branch_made_of_a_script_is_not_run(
    khlone: Khlone, git: Git, repository: Path, commit: Commit, tmp_path: Path
) -> None:
    hooks = {"post-create": "./run.sh"}
    approved(repository, hooks, {"run.sh": f"#!/bin/sh\ntouch {tmp_path}/approved\n"})
    git("checkout", "-q", "-b", "other", cwd=repository)
    commit(repository, {"run.sh": f"#!/bin/sh\ntouch {tmp_path}/other\n"}, "other script")
    git("checkout", "-q", "main", cwd=repository)
    before = footprint(git, repository)

    error = refused(khlone("new", "one", "--from", "other", "--json", cwd=repository), "not-trusted", 77)

    assert footprint(git, repository) == before
    assert "run.sh" in error["message"]
    assert error["hint"].endswith(f"git khlone trust --at {git('rev-parse', 'other', cwd=repository)[:12]}`")
    assert khlone("trust", "--yes", "--at", "other", cwd=repository).code == 0
    assert khlone("new", "one", "--from", "other", cwd=repository).code == 0
    wait_until((tmp_path / "other").exists)
    assert not (tmp_path / "approved").exists()


def test_a_script_behind_a_link_out_of_the_repository_is_refused(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"outside.sh": f"#!/bin/sh\ntouch {tmp_path}/ran\n"})
    (tmp_path / "outside.sh").chmod(0o755)
    (repository / "link").symlink_to(tmp_path / "outside.sh")
    declare(repository, {"pre-create": "./link"})

    done = khlone("trust", "--yes", "--json", cwd=repository)

    assert "leads out" in refused(done, "vetoed")["message"]
    refused(khlone("new", "one", "--json", cwd=repository), "vetoed")
    assert not (tmp_path / "ran").exists()


# -- what was looked at is what runs ---------------------------------------------------------------

#: The first step is approved and swaps the script of the second, after both were looked at.
SWAP = "printf '#!/bin/sh\\ntouch \"$KHLONE_RAN\".swapped\\n' > scripts/run.sh"
NAMING = [
    "./scripts/run.sh",
    "sh scripts/run.sh",
    ". scripts/run.sh",
    "sh -c './scripts/run.sh && true'",
    '"$KHLONE_REPOSITORY"/scripts/run.sh',
    "cd scripts && ./run.sh",
    "sh < scripts/run.sh",
]


@pytest.mark.parametrize("naming", NAMING)
def test_a_script_that_is_swapped_after_it_was_looked_at_is_not_run(
    khlone: Khlone, repository: Path, tmp_path: Path, naming: str
) -> None:
    ran = tmp_path / "ran"
    approved(
        repository,
        {"pre-create": [SWAP, naming]},
        {"scripts/run.sh": '#!/bin/sh\ntouch "$KHLONE_RAN".approved\n'},
    )

    done = khlone("new", "one", cwd=repository, env={"KHLONE_RAN": str(ran)})

    assert done.code == 0, done
    assert [path.name for path in tmp_path.glob("ran*")] == ["ran.approved"]
    assert "swapped" in (repository / "scripts/run.sh").read_text()


@pytest.mark.parametrize("naming", NAMING)
def test_run_from_where_it_lies_the_swapped_script_would_run(repository: Path, tmp_path: Path, naming: str) -> None:
    write(repository, {"scripts/run.sh": '#!/bin/sh\ntouch "$KHLONE_RAN".approved\n'})
    (repository / "scripts/run.sh").chmod(0o755)
    known = {**os.environ, "KHLONE_RAN": str(tmp_path / "ran"), "KHLONE_REPOSITORY": str(repository)}

    for command in (SWAP, naming):
        subprocess.run(["sh", "-c", command], cwd=repository, env=known, check=True)

    assert [path.name for path in tmp_path.glob("ran*")] == ["ran.swapped"]


def test_a_script_in_the_background_is_the_one_that_was_looked_at(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    ran = tmp_path / "ran"
    approved(
        repository,
        {"post-create": [f"read x < {go}", "./run.sh"]},
        {"run.sh": '#!/bin/sh\ntouch "$KHLONE_RAN".approved\n'},
    )
    done = khlone("new", "one", "--json", cwd=repository, env={"KHLONE_RAN": str(ran)})

    write(Path(done.json()["clones"][0]["path"]), {"run.sh": '#!/bin/sh\ntouch "$KHLONE_RAN".swapped\n'})
    with open(go, "w") as stream:
        stream.write("\n")
    wait_until(lambda: not running())

    assert [path.name for path in tmp_path.glob("ran*")] == ["ran.approved"]


# -- too much, too long, left running ----------------------------------------------------------------


def test_copies_in_use_are_not_taken_for_left_behind_when_the_clock_jumps(
    khlone: Khlone, repository: Path, tmp_path: Path
) -> None:
    begun, end = tmp_path / "begun", tmp_path / "end"
    script = f"#!/bin/sh\n[ $KHLONE_NAME = one ] || exit 0\ntouch {begun}\nwhile ! [ -e {end} ]; do sleep 0.02; done\n"
    approved(repository, {"post-create": "./run.sh"}, {"run.sh": script})
    new(khlone, repository, "one")
    wait_until(begun.exists)
    (used,) = running()
    left = used.with_name("0123456789abcdef")
    left.mkdir(mode=0o700)
    for place in (used, left):
        os.utime(place, (0, 0))  # As a clock that has gone ahead by decades sees them.

    new(khlone, repository, "two")

    is_there = used.is_dir(), left.is_dir()
    end.touch()
    wait_until(lambda: not running())
    assert is_there == (True, False)
    assert len(logs()) == 2


def test_a_hook_that_says_too_much_is_cut_and_one_that_never_ends_is_ended(khlone: Khlone, repository: Path) -> None:
    approved(repository, {"pre-create": {"x": "head -c 1000000000 /dev/zero; sleep 1000000", "timeout": 3}})

    error = refused(khlone("new", "one", "--json", cwd=repository), "vetoed")

    assert "took too long" in error["message"]
    assert len(error["message"]) < 100_000


def test_the_log_of_a_hook_that_says_too_much_is_bounded_and_has_both_ends(khlone: Khlone, repository: Path) -> None:
    approved(repository, {"post-create": {"x": "echo begins; yes | head -c 50000000; echo; echo ends", "timeout": 60}})

    new(khlone, repository, "one")
    wait_until(logs)
    wait_until(lambda: not running())

    (log,) = logs()
    text = log.read_text()
    assert log.stat().st_size <= (1 << 20) + 100
    assert "\nbegins\n" in text
    assert "bytes left out" in text
    assert "\nends\n" in text[-1000:]


#: How something is left running: in the group of the hook, and out of it.
LEFT = {
    "in its group": "sleep 1000000 & echo $! > {pids}",
    "in a session of its own": "setsid sh -c 'echo $$ > {pids}; exec sleep 1000000' > /dev/null 2>&1 & "
    "until [ -s {pids} ]; do :; done",
}


@pytest.mark.parametrize("event", ["pre-create", "post-create"])
@pytest.mark.parametrize("how", LEFT)
def test_what_a_hook_leaves_running_is_ended_with_it(
    khlone: Khlone, repository: Path, tmp_path: Path, event: str, how: str
) -> None:
    pids = tmp_path / "pids"
    approved(repository, {event: LEFT[how].format(pids=pids)})

    assert khlone("new", "one", cwd=repository).code == 0
    wait_until(lambda: pids.exists() and pids.read_text().strip())

    pid = int(pids.read_text())
    wait_until(lambda: not is_running(pid))


@pytest.mark.parametrize("how", LEFT)
def test_a_plain_shell_leaves_it_running(tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"

    subprocess.run(["sh", "-c", LEFT[how].format(pids=pids)], check=True, stdout=subprocess.DEVNULL)

    pid = int(pids.read_text())
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)


def test_an_interrupted_command_ends_its_hooks(khlone: Khlone, git: Git, repository: Path, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    wait = f"echo $$ >> {pids}; sleep 1000000"
    approved(repository, {"pre-create": {"a": wait, "b": wait}})
    before = footprint(git, repository)
    with subprocess.Popen(
        [Path(sys.executable).parent / "khlone", "new", "one"], cwd=repository, stderr=subprocess.DEVNULL
    ) as child:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2)

        child.send_signal(signal.SIGTERM)
        child.wait(PATIENCE_S)

    assert child.returncode == 128 + signal.SIGTERM
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not is_running(pid))  # type: ignore[misc]
    assert footprint(git, repository) == before


# -- what else a repository brings along ---------------------------------------------------------------


def planted(project: Path, mark: Path) -> None:
    """Modules of the names that khlone imports, in the repository; each leaves a mark."""
    bad = f"open({str(mark)!r}, 'a').write(__name__)\nraise SystemExit(9)\n"
    names = ("json.py", "tomllib.py", "click.py", "khlone_plugins/__init__.py", "khlone_plugins/shell_hooks.py")
    make_commit(project, dict.fromkeys((*names, "khlone/__init__.py", "sitecustomize.py"), bad), "planted")


def test_modules_in_the_repository_are_not_imported(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    planted(repository, mark)
    approved(repository, {"pre-create": "true", "post-create": f"touch {tmp_path}/ran"})

    path = new(khlone, repository, "one")
    for words in (
        ["list"],
        ["trust", "--check"],
        ["exec", "one", "--", "true"],
        ["doctor"],
        ["hook", "run", "post-create"],
    ):
        assert khlone(*words, cwd=path).code == 0, words
    wait_until((tmp_path / "ran").exists)
    wait_until(lambda: not running())

    assert not mark.exists()


def test_python_in_that_folder_would_import_them(repository: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    planted(repository, mark)

    done = subprocess.run([sys.executable, "-c", "import json"], cwd=repository, check=False)

    assert done.returncode == 9
    assert mark.read_text() == "json"


# -- no hooks, no cost -----------------------------------------------------------------------------------

WATCHED = ("tomllib", "khlone.project_hooks", "khlone.hook_runs", "khlone.named_files", "khlone.trust", "hashlib")


def loaded(where: Path, words: list[str]) -> set[str]:
    """Which modules that only hooks need a fresh process has loaded when a call has ended well."""
    code = f"""
import sys
from khlone.cli import run
code = run({words!r})
print("loaded:", *(set(sys.modules) & set({WATCHED!r})), file=sys.__stderr__)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("loaded:")[2].split())


@pytest.mark.parametrize("words", [["new", "two"], ["exec", "one", "--", "true"], ["remove", "one"]])
def test_a_repository_without_hooks_loads_nothing_for_them(khlone: Khlone, repository: Path, words: list[str]) -> None:
    new(khlone, repository, "one")

    assert loaded(repository, words) <= {"hashlib"}


def test_a_repository_with_hooks_is_seen_to_load_them(khlone: Khlone, repository: Path) -> None:
    approved(repository, {"pre-create": "true"})

    assert loaded(repository, ["new", "two"]) >= set(WATCHED)


@pytest.mark.needs_strace
@pytest.mark.parametrize("has_file", [False, True])
def test_a_repository_without_hooks_starts_no_process_for_them(
    khlone: Khlone, repository: Path, tmp_path: Path, has_file: bool
) -> None:
    new(khlone, repository, "one")
    if has_file:
        write(repository, {".khlone.toml": table({"post-spawn": "true"})})
        assert khlone("trust", "--yes", cwd=repository).code == 0

    def programs(**more: str) -> list[str]:
        trace = tmp_path / "trace"
        watched = ("strace", "-f", "-qq", "-e", "trace=execve", "-e", "status=successful", "-o", trace)
        subprocess.run(
            [*watched, Path(sys.executable).parent / "khlone", "exec", "one", "--", "true"],
            cwd=repository,
            env={**os.environ, **more},
            check=True,
            capture_output=True,
        )
        wait_until(lambda: not running())
        return [line.split('"')[1] for line in trace.read_text().splitlines() if "execve(" in line]

    plain, ours = programs(KHLONE_PLUGINS="claude,generic"), programs()

    assert (len(ours) > len(plain)) is has_file


def results(done: Any) -> list[dict[str, Any]]:
    """The results of a document of `hook`."""
    return list(done.json()["results"])


# -- by hand ---------------------------------------------------------------------------------------------


def test_hooks_are_run_by_hand_and_shown_without_being_run(khlone: Khlone, repository: Path) -> None:
    approved(repository, {"post-create": ["echo $KHLONE_NAME", "exit 3", "echo never"]})
    path = new(khlone, repository, "one")
    wait_until(logs)

    shown = khlone("hook", "run", "post-create", "one", "--dry-run", "--json", cwd=repository)
    done = khlone("hook", "run", "post-create", "--json", cwd=path)

    assert (shown.code, done.code) == (0, 1)
    assert [one["exit"] for one in results(shown)] == [None, None, None]
    assert [(one["exit"], one["output"]) for one in results(done)] == [(0, "one\n"), (3, ""), (None, "")]


def test_an_unapproved_hook_is_shown_but_not_run_by_hand(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    new(khlone, repository, "one")
    declare(repository, {"pre-merge": f"touch {tmp_path}/ran"})

    shown = khlone("hook", "run", "pre-merge", "one", "--dry-run", "--json", cwd=repository)
    done = khlone("hook", "run", "pre-merge", "one", "--json", cwd=repository)

    assert (shown.code, shown.json()["approved"]) == (0, False)
    refused(done, "not-trusted", 77)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("words", [["no-such-event", "one"], ["pre-create"]])
def test_an_event_that_cannot_be_meant_is_refused(khlone: Khlone, repository: Path, words: list[str]) -> None:
    refused(khlone("hook", "run", *words, "--json", cwd=repository), "usage", 2)
