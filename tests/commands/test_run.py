"""`run --detach`: a session that goes on by itself, with its log, its end, and nothing that it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from khlone import session_logs
from khlone.app import App
from khlone.errors import Interrupted
from khlone.model import CloneRecord
from khlone.operations import resources, standing
from khlone.operations.run import RunRequest, detach
from khlone.operations.standing import SessionReport
from khlone.registry import SessionRecord
from khlone.session_logs import SessionLog
from tests.commands.steps import clone_names, document, new, refused, show
from tests.commands.test_resources import DAEMON, alive, wait_for
from tests.support import KHLONE, Khlone, run_git

#: Says what it is called with, then waits for a file, and ends with the code in it.
ATTENTIVE = """
import os, pathlib, sys, time
print("here", *sys.argv[2:], flush=True)
end = pathlib.Path(sys.argv[1])
while not (end.exists() and end.read_text()):
    time.sleep(0.02)
sys.exit(int(end.read_text()))
"""
Run = Callable[..., dict[str, Any]]


def processes_of(session: str) -> list[int]:
    """Every process that has the mark of a session in its environment, whoever is its parent."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"\0KHLONE_SESSION={session}\0".encode() in b"\0" + (place / "environ").read_bytes()
        except OSError:
            continue
        if marked and alive(int(place.name)):
            found.append(int(place.name))
    return found


def supervisors() -> list[int]:
    """Every supervisor and keeper whose account is that of this test."""
    mine = f"XDG_STATE_HOME={os.environ['XDG_STATE_HOME']}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine in environment and any(one.startswith(b"KHLONE_SUPERVISES=") for one in environment):
            found.append(int(place.name))
    return sorted(pid for pid in found if alive(pid))


@pytest.fixture
def project(khlone: Khlone, repository: Path) -> Iterator[Path]:
    """The repository with clone `one`; nothing of any session of it is left when the test ends."""
    new(khlone, repository, "one")
    yield repository
    khlone("stop", "--all", "--grace", "1", cwd=repository)
    wait_for(lambda: not supervisors())


@pytest.fixture
def run(khlone: Khlone, project: Path) -> Run:
    """`run("one", argv)` starts a detached session and returns it."""

    def start(name: str, argv: Sequence[str], *words: str) -> dict[str, Any]:
        done = khlone("run", name, "--detach", "--json", *words, "--", *argv, cwd=project)
        return dict(document(done, "run")["session"])

    return start


def attentive(end: Path, *words: str) -> list[str]:
    """The argv of `ATTENTIVE`."""
    return [sys.executable, "-c", ATTENTIVE, str(end), *words]


def test_a_session_goes_on_without_the_command_that_started_it(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    started = run("one", attentive(tmp_path / "end", "a b"))

    (shown,) = show(khlone, project, "one")["sessions"]
    (listed,) = document(khlone("list", "--json", cwd=project), "list")["clones"][0]["sessions"]
    assert os.getsid(started["pid"]) == started["pid"]
    assert alive(started["pid"])
    assert (shown["id"], shown["pid"], shown["state"]) == (started["id"], started["pid"], "running")
    assert (listed["state"], listed["log"]) == ("running", started["log"])
    (tmp_path / "end").write_text("7")
    waited = khlone("wait", "one", cwd=project)
    ended = document(khlone("wait", "one", "--json", cwd=project, env=None), "wait", 7)["sessions"][0]

    assert waited.code == 7
    assert (ended["id"], ended["state"], ended["exit"], ended["signal"]) == (started["id"], "exit 7", 7, None)
    assert khlone("logs", "one", cwd=project).out == "here a b\n"
    assert show(khlone, project, "one")["sessions"] == []
    wait_for(lambda: not supervisors())


def test_it_waits_for_an_end_that_is_still_to_come(khlone: Khlone, project: Path, run: Run, tmp_path: Path) -> None:
    run("one", attentive(tmp_path / "end"))
    waiting = subprocess.Popen([str(KHLONE), "wait", "one"], cwd=project, stdin=subprocess.DEVNULL)
    (watched,) = [waiting.pid]
    wait_for(lambda: "poll" in Path(f"/proc/{watched}/wchan").read_text() or _sleeps_in_select(watched))

    (tmp_path / "end").write_text("5")

    assert waiting.wait(timeout=60) == 5


def _sleeps_in_select(pid: int) -> bool:
    number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    return number in {"23", "270", "7", "271", "232"}


def test_the_log_has_both_streams_and_the_last_lines_alone_on_request(khlone: Khlone, project: Path, run: Run) -> None:
    run("one", ["sh", "-c", "seq 1 50; echo oops >&2"])
    khlone("wait", "one", cwd=project)

    whole = khlone("logs", "one", cwd=project).out.splitlines()
    last = khlone("logs", "one", "-n", "3", cwd=project).out.splitlines()
    found = document(khlone("logs", "one", "--json", cwd=project), "logs")

    assert sorted(whole) == sorted([*(str(number) for number in range(1, 51)), "oops"])
    assert last == whole[-3:]
    assert found["text"].splitlines() == whole
    assert Path(found["session"]["log"]).stat().st_mode & 0o077 == 0


def test_a_log_is_of_bounded_size_and_its_end_is_kept(tmp_path: Path) -> None:
    log = SessionLog(tmp_path / "a.log", most=10_000)

    for number in range(5_000):
        log.add(f"line {number}\n".encode())
    log.close()
    kept = session_logs.tail(tmp_path / "a.log").decode().splitlines()

    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 20_000
    assert {path.name for path in tmp_path.iterdir()} == {"a.log", "a.log.1"}
    assert kept == [f"line {number}" for number in range(5_000 - len(kept), 5_000)]
    assert len(kept) > 900
    assert session_logs.tail(tmp_path / "a.log", 2) == b"line 4998\nline 4999\n"


@pytest.mark.needs_root
def test_a_log_that_a_full_disk_has_cut_says_so_when_there_is_room_again(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], check=True)
    try:
        log = SessionLog(place / "a.log")
        (place / "filler").write_bytes(b"x" * (48 << 10))
        log.add(b"before\n")
        gap_before = log.gap
        log.add(b"y" * (100 << 10))
        (place / "filler").unlink()
        log.add(b"after\n")
        log.close()
        kept = session_logs.tail(place / "a.log", 2)
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)

    assert (gap_before, log.gap) == (None, "no space left on device")
    assert kept == b"khlone: up to 102400 bytes are missing here: no space left on device\nafter\n"


def test_what_was_read_before_a_session_ended_is_not_taken_for_lost(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    session = run("one", attentive(tmp_path / "end"))
    app = App.open(project)
    (clone,) = app.registry.clones()
    (record,) = app.registry.live_sessions()
    look = resources.Look(app, [clone], pss=False)

    stopped = khlone("stop", "one", cwd=project)
    wait_for(lambda: not supervisors())

    assert stopped.code == 0
    assert not standing.may_live(record), "the control: by what was read it is lost"
    assert standing.state_of(record) == "lost"
    assert not look.sessions().get(clone.id)
    assert standing.as_live(app, record) is None
    told = standing.report(app, clone, record)
    assert (told.id, told.state, told.reason) == (session["id"], "signal 15", "it was stopped")


def test_a_session_that_is_lost_is_shown_as_that_until_somebody_records_it(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    """The other way round: nobody has recorded an end."""
    session = run("one", attentive(tmp_path / "end"))
    for pid in [*supervisors(), session["pid"]]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(session["pid"]) and not supervisors())

    (shown,) = show(khlone, project, "one")["sessions"]

    assert (shown["id"], shown["state"]) == (session["id"], "lost")


def test_of_several_that_are_stopped_one_without_a_session_keeps_none_from_ending(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    for name in ("two", "three"):
        new(khlone, project, name)
        run(name, attentive(tmp_path / "end"))

    text = khlone("stop", "one", "two", cwd=project)
    told = document(khlone("stop", "one", "three", "--json", cwd=project), "stop", 1)
    none = refused(khlone("stop", "one", "two", "--json", cwd=project), "no-such-session")

    assert text.code == 1
    assert "two: signal 15" in text.err
    assert "one has no session that runs" in text.err
    assert [one["name"] for one in told["sessions"]] == ["three"]
    assert [(one["name"], one["code"]) for one in told["failed"]] == [("one", "no-such-session")]
    assert none["facts"]["name"] == "one"


def test_the_logs_of_the_newest_sessions_are_kept_whatever_hooks_have_left_beside_them(tmp_path: Path) -> None:
    for number in range(session_logs.KEPT + 5):
        (tmp_path / f"hook-{number:03}.log").touch()
    for number in range(session_logs.KEPT + 3):
        path = tmp_path / f"01{number:03}.log"
        for name in (f"{path.name}.1", f"{path.stem}.answer"):
            (tmp_path / name).touch()
        SessionLog(path).close()

    kept = {path.name for path in tmp_path.iterdir() if path.name.startswith("01")}

    newest = [f"01{number:03}" for number in range(3, session_logs.KEPT + 3)]
    assert kept == {f"{name}{end}" for name in newest for end in (".log", ".log.1", ".answer")}
    assert len(list(tmp_path.glob("hook-*"))) == session_logs.KEPT + 5


def test_a_second_session_of_a_clone_is_told_who_has_it(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    first = run("one", attentive(tmp_path / "end"))

    second = refused(khlone("run", "one", "-d", "--json", "--", "true", cwd=project), "clone-busy", 75)
    beside = khlone("exec", "one", "--", "true", cwd=project)

    assert f"pid {first['pid']}" in second["message"]
    assert beside.code == 0
    logs = Path(first["log"]).parent
    assert [path.name for path in logs.glob("*.log")] == [f"{first['id']}.log"]
    khlone("stop", "one", cwd=project)
    assert run("one", ["true"])["id"] != first["id"]


def test_of_many_sessions_of_one_clone_at_once_one_is_there(khlone: Khlone, project: Path, tmp_path: Path) -> None:
    words = [str(KHLONE), "run", "one", "--detach", "--", *attentive(tmp_path / "end")]
    asking = [
        subprocess.Popen(words, cwd=project, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in range(6)
    ]

    codes = sorted(one.wait(timeout=120) for one in asking)

    assert codes == [0, 75, 75, 75, 75, 75]
    assert len(show(khlone, project, "one")["sessions"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("run", "one", "-d", "--json", "--", "no-such-program"), "command-not-found", 1),
        (("run", "none", "-d", "--json", "--", "true"), "no-such-clone", 1),
        (("run", "one", "-d", "--json"), "usage", 2),
        (("logs", "one", "--json"), "no-such-session", 1),
        (("wait", "one", "--json"), "no-such-session", 1),
        (("stop", "one", "--json"), "no-such-session", 1),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    khlone: Khlone, project: Path, words: tuple[str, ...], code: str, exit_code: int
) -> None:
    done = khlone(*words, cwd=project)

    refused(done, code, exit_code)
    assert clone_names(khlone, project) == ["one"]
    assert show(khlone, project, "one")["sessions"] == []
    logs = Path(show(khlone, project, "one")["config_dir"]).parent.parent / "logs"
    assert list(logs.iterdir()) == []
    refused(khlone("logs", "one", "--json", cwd=project), "no-such-session")


@pytest.mark.parametrize("verb", ["logs", "wait", "show", "path"])
def test_what_is_asked_of_a_clone_in_the_trash_names_the_way_back(khlone: Khlone, project: Path, verb: str) -> None:
    assert khlone("run", "one", "--", "true", cwd=project).code == 0
    assert khlone("remove", "--force", "one", cwd=project).code == 0

    found = refused(khlone(verb, "one", "--json", cwd=project), "no-such-clone")

    assert "git khlone restore one" in found["hint"]
    assert khlone("restore", "one", cwd=project).code == 0
    assert khlone("wait", "one", cwd=project).code == 0


#: Leaves a process behind that has forked twice, in a session of its own with its folder elsewhere.
LEAVES = """
import os, subprocess, sys, time
subprocess.run([sys.executable, "-c", *sys.argv[2:]], check=True)
while not os.path.exists(sys.argv[4]):
    time.sleep(0.02)
if sys.argv[1] == "stays":
    import signal
    signal.pause()
"""


@pytest.fixture
def leaver(tmp_path: Path) -> Callable[[str], list[str]]:
    """The argv of a session that leaves a daemon behind, whose pid is in `tmp_path / "daemon"`."""
    return lambda how: [sys.executable, "-c", LEAVES, how, DAEMON, "0", str(tmp_path / "daemon"), str(tmp_path / "end")]


@pytest.mark.parametrize("how", ["stays", "goes"])
def test_what_has_forked_twice_ends_with_its_session(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path, leaver: Callable[[str], list[str]], how: str
) -> None:
    session = run("one", leaver(how))
    wait_for((tmp_path / "daemon").exists)
    daemon = int((tmp_path / "daemon").read_text())

    if how == "stays":
        assert alive(daemon)
        assert os.getsid(daemon) != os.getsid(session["pid"])
        khlone("stop", "one", cwd=project)
    else:
        assert khlone("wait", "one", cwd=project).code == 0
        assert "1 process was left behind, and ended" in khlone("logs", "one", cwd=project).out

    assert not alive(daemon)
    assert processes_of(session["id"]) == []


def test_what_does_not_hear_is_killed_after_the_grace(khlone: Khlone, project: Path, run: Run) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\nwhile 1: signal.pause()"
    session = run("one", [sys.executable, "-c", deaf])
    wait_for(lambda: khlone("logs", "one", cwd=project).out == "1\n")

    (stopped,) = document(khlone("stop", "one", "--grace", "0.2", "--json", cwd=project), "stop")["sessions"]

    assert (stopped["state"], stopped["signal"], stopped["reason"]) == ("signal 9", 9, "it was stopped")
    assert processes_of(session["id"]) == []
    assert khlone("wait", "one", cwd=project).code == 128 + signal.SIGKILL


def test_a_session_that_was_started_inside_another_one_goes_on_without_it(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    new(khlone, project, "two")
    inner = [str(KHLONE), "run", "two", "--detach", "--", *attentive(tmp_path / "end")]

    run("one", inner)
    assert khlone("wait", "one", cwd=project).code == 0

    (shown,) = show(khlone, project, "two")["sessions"]
    assert shown["state"] == "running"
    assert alive(shown["pid"])
    (tmp_path / "end").write_text("4")
    assert khlone("wait", "two", cwd=project).code == 4


def test_a_session_has_the_variables_of_its_clone_and_no_mark_of_its_supervisor(
    khlone: Khlone, project: Path, run: Run
) -> None:
    session = run("one", ["env"])
    khlone("wait", "one", cwd=project)

    variables = dict(line.partition("=")[::2] for line in khlone("logs", "one", cwd=project).out.splitlines())

    assert variables["KHLONE_SESSION"] == session["id"]
    assert variables["KHLONE_NAME"] == "one"
    assert variables["CLAUDE_CONFIG_DIR"] == show(khlone, project, "one")["config_dir"]
    assert "KHLONE_SUPERVISES" not in variables


def test_remove_stops_the_session_where_it_is_forced_to(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    session = run("one", attentive(tmp_path / "end"))

    kept = document(khlone("remove", "one", "--json", cwd=project), "remove", 1)["kept"]
    done = khlone("remove", "--force", "one", cwd=project)

    assert [one["code"] for one in kept] == ["session-live"]
    assert (done.code, clone_names(khlone, project)) == (0, [])
    assert f"ended session {session['id']} of one" in done.err
    assert processes_of(session["id"]) == []


#: Starts the daemon twice: as it is, and without any variable that tells whose it is.
ESCAPES = """
import os, subprocess, sys, time
code, first, second, end = sys.argv[1:]
for place, environment in ((first, None), (second, {"PATH": os.environ["PATH"]})):
    subprocess.run([sys.executable, "-c", code, "0", place, end], check=True, env=environment)
    while not os.path.exists(place):
        time.sleep(0.02)
print("ready", flush=True)
os.execvp("sleep", ["sleep", "1000"])
"""


def test_remove_finds_what_has_escaped_from_a_session_and_says_what_it_ends(
    khlone: Khlone, project: Path, run: Run, tmp_path: Path
) -> None:
    places = [tmp_path / "marked", tmp_path / "bare"]
    new(khlone, project, "two")
    other = run("two", attentive(tmp_path / "end-two"))
    words = [sys.executable, "-c", ESCAPES, DAEMON, *map(str, places), str(tmp_path / "end")]
    session = run("one", words)
    wait_for(lambda: khlone("logs", "one", cwd=project).out == "ready\n")
    escaped = [int(place.read_text()) for place in places]
    assert len({os.getsid(pid) for pid in (session["pid"], *escaped)}) == 3
    assert escaped[0] in processes_of(session["id"])
    assert escaped[1] not in processes_of(session["id"])

    (kept,) = document(khlone("remove", "one", "--json", cwd=project), "remove", 1)["kept"]
    dry = khlone("remove", "--force", "--dry-run", "one", cwd=project)
    assert all(map(alive, escaped))
    done = khlone("remove", "--force", "one", cwd=project)

    assert kept["code"] == "session-live"
    for pid in (session["pid"], *escaped):
        assert f"({pid})" in kept["message"]
        assert f"({pid}) in one" in dry.err
        assert f"({pid}) in one" in done.err
        assert not alive(pid)
    assert f"ended session {session['id']} of one" in done.err
    assert alive(other["pid"])


def test_a_session_in_line_is_in_the_way_of_a_removal(khlone: Khlone, project: Path, run: Run, tmp_path: Path) -> None:
    new(khlone, project, "two")
    run_git("config", "khlone.limits.sessions", "1", cwd=project)
    run("one", attentive(tmp_path / "end"))
    assert run("two", ["touch", str(tmp_path / "ran")])["state"] == "waiting"

    (kept,) = document(khlone("remove", "two", "--json", cwd=project), "remove", 1)["kept"]
    done = khlone("remove", "--force", "two", cwd=project)

    assert kept["code"] == "session-live"
    assert (done.code, clone_names(khlone, project)) == (0, ["one"])
    (tmp_path / "end").write_text("0")
    assert khlone("wait", "one", cwd=project).code == 0
    wait_for(lambda: not supervisors())
    assert not (tmp_path / "ran").exists()


def test_new_starts_a_session_in_each_clone_that_it_makes(khlone: Khlone, project: Path) -> None:
    done = khlone("new", "try", "-n", "2", "--detach", "-x", "sh", "-c", "echo $KHLONE_NAME; exit 6", cwd=project)

    assert done.code == 0, done
    assert khlone("wait", "try-1", "try-2", cwd=project).code == 1
    for name in ("try-1", "try-2"):
        assert khlone("wait", name, cwd=project).code == 6
        assert khlone("logs", name, cwd=project).out == f"{name}\n"
    refused(khlone("new", "other", "--detach", "--json", cwd=project), "usage", 2)
    assert clone_names(khlone, project) == ["one", "try-1", "try-2"]


def test_who_is_interrupted_when_the_session_is_there_and_before_he_knows_it_leaves_none(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, calls = standing.report, iter([Interrupted(signal.SIGINT)])

    def interrupted(app: App, clone: CloneRecord, record: SessionRecord) -> SessionReport:
        for one in calls:
            raise one
        return report(app, clone, record)

    monkeypatch.setattr(standing, "report", interrupted)
    app = App.open(project)

    with pytest.raises(Interrupted):
        detach(app, RunRequest(clone="one", command=("sleep", "100000")))

    wait_for(lambda: not supervisors())
    (session,) = app.registry.sessions(app.require_clone("one").id)
    assert session.reason == "it was stopped"
