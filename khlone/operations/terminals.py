"""How does a session have a terminal that outlives the window it is seen in?

By tmux where there is one: a server of the session's own holds the terminal, below the
session's process, so that it is ended with it; whoever attaches is a client of that
server. No configuration of the user's is read. Else by a process of khlone's (holder.py).
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from khlone import process, sessions, signals
from khlone.app import App
from khlone.errors import CommandNotFound, SessionFailed, TmuxMissing
from khlone.model import CloneRecord
from khlone.operations import environment, holder, standing, viewing
from khlone.operations.asking import last_session
from khlone.operations.bounds import NO_BOUNDS, Bounds
from khlone.operations.isolation import Start
from khlone.operations.run import RunRequest
from khlone.registry import SessionRecord

ATTACH = "attach"
#: How long the terminal of a session may take to be there, and how often it is looked for, in seconds.
_READY_S, _LOOK_S = 30.0, 0.05
_NAME = "khlone"
#: The server stays in front: so it is below the session's process. `-N`: a client never starts one of its own.
_SCRIPT = """
tmux=$1 socket=$2 result=$3
shift 3
rm -f "$socket" "$result" "$result.said" "$result.why"
"$tmux" -S "$socket" -f /dev/null -D &
server=$!
until "$tmux" -N -S "$socket" new-session -d -s khlone -x 200 -y 50 -- /bin/sh -c '
tmux=$1 socket=$2 result=$3
shift 3
"$@"
echo $? >"$result"
case $("$tmux" -S "$socket" display-message -p "#{session_last_attached}") in
"" | 0) "$tmux" -S "$socket" capture-pane -p -S - -t khlone >"$result.said" ;;
esac
"$tmux" -S "$socket" kill-server' sh "$tmux" "$socket" "$result" "$@" 2>"$result.why"
do
	kill -0 "$server" 2>/dev/null || exit 1
	why=$(cat "$result.why")
	case $why in
	"" | *connect* | *"no server"*) sleep 0.05 ;;
	*)
		echo "khlone: tmux gives no terminal: $why"
		kill "$server"
		rm -f "$socket" "$result.why"
		exit 1
		;;
	esac
done
rm -f "$result.why"
wait "$server"
code=1
[ ! -f "$result" ] || read -r code <"$result"
[ ! -f "$result.said" ] || sed -e :a -e '/^\\n*$/{$d;N;ba' -e '}' "$result.said"
rm -f "$socket" "$result" "$result.said"
exit "$code"
"""


def request(
    app: App,
    clone: CloneRecord,
    command: Sequence[str],
    *,
    resume: bool = False,
    wait: bool = True,
    priority: int = 0,
    bounds: Bounds = NO_BOUNDS,
) -> RunRequest:
    """What is to run so that the clone has a session with a terminal: `command`, else its agent as a person starts it.

    With `resume` the agent goes on with the session of its last answer. Raises
    NoSuchSession, or CommandNotFound for a clone whose agent is no program.
    """
    words = tuple(command)
    if not words:
        profile = environment.profile_of(app, clone)
        if profile.executable is None:
            raise CommandNotFound(profile.name, "it is no program; say which command is to run")
        inner = profile.resume if resume else profile.interactive
        session = last_session(app, clone) if resume else ""
        words = (profile.executable, *(word.replace("{session}", session) for word in inner))
    return RunRequest(
        clone=clone.name,
        command=words,
        kind=ATTACH,
        wait=wait,
        priority=priority,
        max_time_s=bounds.max_time_s,
        stall_s=bounds.stall_s,
        max_memory_bytes=bounds.max_memory_bytes,
    )


def require_program(start: Start) -> None:
    """Raise CommandNotFound for a program that is not there: what runs it on a terminal of its own is."""
    program = start.argv[0]
    if not os.path.isfile(program):
        raise CommandNotFound(program, os.strerror(errno.ENOENT).lower())
    if not os.access(program, os.X_OK):
        raise CommandNotFound(program, os.strerror(errno.EACCES).lower())


def on_terminal(app: App, clone: CloneRecord, argv: Sequence[str]) -> Sequence[str]:
    """The argv that runs another one on a terminal of its own, and ends as it does."""
    by_tmux, own = _sockets(app, clone)
    tmux = _find_tmux(app)
    for left in (by_tmux, own):
        left.unlink(missing_ok=True)
    if tmux is None:
        return (sys.executable, "-I", "-S", holder.__file__, os.fspath(own), *argv)
    return ("/bin/sh", "-c", _SCRIPT, "sh", tmux, os.fspath(by_tmux), f"{by_tmux}.code", *argv)


def outside_of_tmux(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment in which tmux takes no notice of one that it is called in."""
    return {name: value for name, value in variables.items() if name not in ("TMUX", "TMUX_PANE")}


def connect(app: App, clone: CloneRecord, record: SessionRecord) -> bool:
    """Show the session on this terminal until it has ended or the user leaves it; says whether it goes on.

    Raises SessionFailed where its terminal does not come to be, TmuxMissing for one that tmux holds.
    """
    _await_terminal(app, clone, record)
    own = _reach(app, clone)
    if own is not None:
        with own:
            viewing.view(own)
        return _is_there(app, clone)
    tmux, (place, _) = _find_tmux(app), _sockets(app, clone)
    if tmux is None:
        return False
    with signals.Noted() as noted:
        child = process.start_foreground(
            (tmux, "-N", "-S", os.fspath(place), "attach-session", "-t", _NAME),
            cwd=Path("/"),
            environment=outside_of_tmux(app.environment),
        )
        noted.pass_on(child.pid)
        process.await_foreground(child)
        noted.keep()
        child.wait()
        noted.raise_noted(but=signals.SIGINT)
    return _is_there(app, clone)


def _await_terminal(app: App, clone: CloneRecord, record: SessionRecord) -> None:
    deadline = time.monotonic() + _READY_S
    while not _is_there(app, clone):
        found = standing.find(app, clone, record.id)
        if found.ended_at is not None or not standing.may_live(found):
            return
        if found.state == "running" and _find_tmux(app) is None and _sockets(app, clone)[0].exists():
            raise TmuxMissing
        # As long as it waits in line.
        if found.state == "running" and time.monotonic() > deadline:
            raise SessionFailed(clone.name, "its terminal does not come to be")
        if found.state != "running":
            deadline = time.monotonic() + _READY_S
        sessions.await_end(found.supervisor or found.owner, _LOOK_S)


def _is_there(app: App, clone: CloneRecord) -> bool:
    own = _reach(app, clone)
    if own is not None:
        own.close()
        return True
    tmux = _find_tmux(app)
    if tmux is None:
        return False
    words = (tmux, "-N", "-S", os.fspath(_sockets(app, clone)[0]), "has-session", "-t", _NAME)
    return process.run(words, environment=outside_of_tmux(os.environ), timeout_s=10.0).status == 0


def _find_tmux(app: App) -> str | None:
    return process.find_program("tmux", app.environment)


def _reach(app: App, clone: CloneRecord) -> socket.socket | None:
    """A connection to the process of khlone's that holds the terminal of the session, `None` where there is none."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(os.fspath(_sockets(app, clone)[1]))
    except OSError:
        connection.close()
        return None
    return connection


def _sockets(app: App, clone: CloneRecord) -> tuple[Path, Path]:
    """Where tmux is reached that holds the terminal of the session, and where the process of khlone's is."""
    folder = app.config_dirs.make_temp(clone.id)
    return folder / "tmux", folder / "terminal"
