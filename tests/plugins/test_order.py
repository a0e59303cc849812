"""In which order do hooks run through a clone's life? One test says it for all of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from khlone.plugin_loading import HOOKS
from khlone.testing import HookCall, KhloneCommand, MakeClone
from tests.agents.steps import program
from tests.support import KHLONE, make_commit, run_git

Recorded = Callable[[], Sequence[HookCall]]

CREATED = [
    *("opened", "pre_create", "agents", "worktree_path", "agent_item", "populate_config_dir"),
    *("prepare", "post_create"),
]
STARTED = ["opened", "agents", "admit", "pre_spawn", "spawn_command", "environment", "post_spawn", "session_ended"]
MERGED = ["opened", "pre_merge", "gate", "post_merge"]
HELD = ["opened", "pre_merge", "held"]
#: An agent that waits for a person, in its own words, until somebody was told of it.
ASKS = """
[ "$1" != --version ] || {{ echo "2.1.330 (Claude Code)"; exit; }}
mkdir -p "$CLAUDE_CONFIG_DIR/sessions"
ticks=$(cut -d' ' -f22 /proc/$$/stat)
known='"status": "waiting", "waitingFor": "a permission"'
echo "{{\\"pid\\": $$, \\"procStart\\": \\"$ticks\\", $known}}" >"$CLAUDE_CONFIG_DIR/sessions/$$.json"
until [ -e "{told}" ]; do sleep 0.05; done
"""
REMOVED = ["opened", "pre_cleanup", "post_cleanup"]


def test_the_order_of_all_hooks_from_new_to_a_crash_and_its_recovery(
    khlone_repository: Path,
    khlone_command: KhloneCommand,
    make_clone: MakeClone,
    recorded_hooks: Recorded,
    tmp_path: Path,
) -> None:
    read = 0

    def since() -> list[str]:
        """The hooks of the last command, those of another clone with its name."""
        nonlocal read
        calls = recorded_hooks()[read:]
        read += len(calls)
        names = ((call, call.arguments.get("clone", {}).get("name", "one")) for call in calls)
        return [call.hook if name == "one" else f"{call.hook} of {name}" for call, name in names]

    clone = make_clone("one")
    assert since() == CREATED

    make_commit(clone.path, {"one.txt": "one\n"}, "one")
    assert khlone_command("exec", "one", "--", "true").code == 0
    assert since() == STARTED

    assert khlone_command("list").code == 0
    assert since() == ["opened", "columns"]

    assert khlone_command("merge", "one", "--dry-run").code == 0
    assert since() == ["opened", "pre_merge"]
    assert khlone_command("merge", "one").code == 0
    assert since() == MERGED

    assert khlone_command("merge", "one").code == 0
    assert since() == HELD

    assert khlone_command("sync", "one").code == 0
    assert since() == ["opened", "pre_sync", "post_sync"]

    make_commit(clone.path, {"app.py": "theirs\n"}, "theirs")
    make_commit(khlone_repository, {"app.py": "ours\n"}, "ours")
    assert khlone_command("merge", "one").code == 4
    assert since() == ["opened", "pre_merge", "resolve_conflict", "held"]
    make_commit(khlone_repository, {"app.py": "theirs\n"}, "as theirs")
    assert khlone_command("merge", "one").code == 0
    since()

    assert khlone_command("rename", "one", "two").code == 0
    assert [hook for hook in since() if hook != "opened"] == ["worktree_path", "worktree_path", "renamed of two"]
    assert khlone_command("rename", "two", "one").code == 0
    since()

    assert khlone_command("doctor").code == 0
    assert since() == ["opened", "agents", "diagnose"]

    assert khlone_command("remove", "one").code == 0
    assert since() == REMOVED

    make_clone("asks", "--agent", "claude")
    since()
    told = tmp_path / "told"
    for key, value in (("notify.command", f"touch {told}"), ("watch.interval", "0.3")):
        run_git("config", f"khlone.{key}", value, cwd=khlone_repository)
    agent = program(tmp_path, "claude", ASKS.format(told=told))
    assert khlone_command("exec", "asks", "--", str(agent)).code == 0
    assert since()[-3:] == [f"{hook} of asks" for hook in ("post_spawn", "session_waiting", "session_ended")]

    assert khlone_command("no-such-verb").code == 2
    assert since() == ["opened", "register_commands"]

    # Killed when the worktree is there and its hooks have run: nobody is told before the next command.
    died = subprocess.run(
        [KHLONE, "new", "lost"],
        cwd=khlone_repository,
        env={**os.environ, "KHLONE_FAULT": "create.prepared"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -9
    before = CREATED[:4] + [f"{hook} of lost" for hook in CREATED[4:7]]
    assert since() == before

    make_clone("one")
    assert since() == ["opened", "post_cleanup of lost", *CREATED[1:]]

    seen = {f"khlone_{call.hook}" for call in recorded_hooks()}
    assert seen == set(HOOKS)


def test_a_failed_create_is_told_of_once_and_the_gates_after_the_failure_do_not_run(
    khlone_repository: Path, khlone_command: KhloneCommand, recorded_hooks: Recorded
) -> None:
    failed = khlone_command("new", "one", env={"KHLONE_FAULT": "create.checked-out:raise:ENOSPC"})

    assert failed.code == 1
    assert [call.hook for call in recorded_hooks()] == [*CREATED[:6], "post_cleanup"]
