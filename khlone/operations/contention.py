"""What happens when many agents start at once on this machine: with one config dir, with links, and in clones?

Everything takes place in a throw-away folder: a HOME, a repository with clones made by the
real command, and the agent's services on loopback, so that no account and no network is
touched. Each client adds one entry to its config, then starts with a login that has run
out; entries that are missing afterwards were lost, and who cannot refresh was logged out.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from khlone import files, process
from khlone.children import Completed
from khlone.errors import CommandNotFound
from khlone.operations.throw_away import ThrowAway
from khlone.values import dataclass

if TYPE_CHECKING:
    from khlone.loopback import Loopback

#: The agent that is looked at.
AGENT = "claude"

_STATE = ".claude.json"
_CREDENTIALS = ".credentials.json"
_CLIENT_S = 300.0
_OUTPUT_BYTES = 64 << 10
_LOOK_S = 0.2
_SHOWN_LETTERS = 200
_LOGGED_OUT = re.compile(r"log ?in\b|logged|oauth|expired|authenticat", re.IGNORECASE)
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


class Mode(Enum):
    """How clients keep their config: all in one dir, each in its own with a link to the one login, or in clones."""

    SHARED = "shared"
    LINKED = "linked"
    KHLONE = "khlone"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentionRequest:
    """So many clients at once, one number after the other; without `program` a fake one with a real one's habits."""

    clients: Sequence[int]
    rounds: int = 1
    program: Path | None = None
    search: str = os.defpath


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of `rounds` times `clients` starts of each kind, in one mode.

    `lost` entries of a config, `failed` clients that ended with an error while they wrote it;
    `logged_out` is `None` where nobody could try, for the reason in `note`; else a note is what
    the first client that failed has said. `wall_s` is the longest time until all had
    answered, `pss_bytes` the most memory that all of them held.
    """

    clients: int
    mode: Mode
    starts: int
    lost: int
    lost_per_1000: float
    failed: int
    logged_out: int | None
    wall_s: float
    pss_bytes: int | None
    note: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """Which program was looked at, and what became of it; `program` is `None` for the fake one."""

    agent: str
    program: Path | None
    version: str
    login: str
    rounds: int
    rows: Sequence[Row]


def find_program(search: str) -> Path | None:
    """The installed agent."""
    found = process.find_program(AGENT, {"PATH": search})
    return None if found is None else Path(found)


def contend(request: ContentionRequest, *, told: Callable[[str], None] = lambda _: None) -> Contention:
    """Let clients contend; leaves nothing behind. Raises AgentNotStarted or OverLimit."""
    from khlone.loopback import Loopback

    # Short: sockets have to fit below it.
    place = Path(tempfile.mkdtemp(prefix="khlone-c-")).resolve()
    try:
        with Loopback() as api:
            try:
                api.serve_hosts(place)
            except (CommandNotFound, OSError):
                told("openssl is not installed: a real agent cannot refresh its login here")
            ring = _Ring(request, place, api, told)
            try:
                return ring.measured()
            finally:
                ring.clear()
    finally:
        shutil.rmtree(place, ignore_errors=True)


class _Ring:
    """The throw-away folder in which clients contend."""

    def __init__(self, request: ContentionRequest, place: Path, api: Loopback, told: Callable[[str], None]) -> None:
        self._request, self._place, self._api, self._told = request, place, api, told
        self._home = place / "home"
        self._store = self._home / ".claude"
        self._program = self._install()
        self._away = ThrowAway(place, self._variables(), AGENT)
        self._clones: list[dict[str, str]] = []
        self._pause = threading.Event()
        self._serial = 0

    def measured(self) -> Contention:
        """Every row."""
        most = max(self._request.clients)
        for number in range(most):
            (self._place / "linked" / str(number)).mkdir(parents=True)
            (self._place / "work" / str(number)).mkdir(parents=True)
        files.make_private_dir(self._store)
        said = self._away.require([str(self._program), "--version"], cwd=self._place).text
        version = _VERSION.search(said)
        self._warm_up()
        login = self._make_clones(most)
        rows: list[Row] = []
        for count in self._request.clients:
            for mode in Mode:
                self._told(f"{count} clients, {mode.value}")
                rows.append(self._row(count, mode, login))
        return Contention(
            agent=AGENT,
            program=self._request.program,
            version=version[0] if version else "unknown",
            login=login,
            rounds=self._request.rounds,
            rows=rows,
        )

    # -- before --------------------------------------------------------------------------

    def _install(self) -> Path:
        from khlone.loopback import install_fake_agent

        folder = self._place / "bin"
        folder.mkdir()
        if self._request.program is None:
            return install_fake_agent(folder, AGENT)
        (folder / AGENT).symlink_to(self._request.program.resolve())
        return folder / AGENT

    def _variables(self, **more: str) -> dict[str, str]:
        """An environment in which nothing of the user's is found, and nothing but loopback."""
        kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "SYSTEMROOT") if name in os.environ}
        return {
            **kept,
            **self._api.environment(),
            "PATH": f"{self._place / 'bin'}{os.pathsep}{self._request.search}",
            "HOME": os.fspath(self._home),
            "TERM": "dumb",
            "GIT_CONFIG_NOSYSTEM": "1",
            "CLAUDE_CODE_TMPDIR": os.fspath(self._place),
            **more,
        }

    def _warm_up(self) -> None:
        """Have a user who has worked with the agent before, so that its first start is behind it."""
        self._log_in(expired=False)
        self._away.require([str(self._program), "-p", "hello"], cwd=self._place)
        path = self._home / _STATE
        files.write_atomic(path, json.dumps({**_parsed(path), "hasCompletedOnboarding": True}).encode(), durable=False)

    def _make_clones(self, most: int) -> str:
        """Clones of the real command, and how the agent logs in there."""
        self._away.make()
        shown = json.loads(self._khlone("agents", "show", AGENT, "--json"))
        self._khlone("new", "c", "-n", str(most), "--agent", AGENT, "--quiet")
        words = ["exec", "--all", "--json", "--", sys.executable, "-c", _PRINT_ENVIRONMENT]
        results = json.loads(self._khlone(*words))["results"]
        own = [json.loads(one["stdout"]) for one in results]
        self._clones = [{name: value for name, value in one.items() if name != "KHLONE_SESSION"} for one in own]
        return str(shown["agents"][0]["login"])

    def _khlone(self, *words: str) -> str:
        return self._away.require(self._away.khlone(*words)).text

    def clear(self) -> None:
        """Take away what lies outside the folder: the short temporary folders of clones."""
        self._away.clear([one["KHLONE_NAME"] for one in self._clones])

    # -- contending ----------------------------------------------------------------------

    def _row(self, count: int, mode: Mode, login: str) -> Row:
        lost = failed = logged_out = 0
        wall_s, pss = 0.0, None
        said: str | None = None
        refused = mode is Mode.KHLONE and login == "key"
        for _ in range(self._request.rounds):
            names = [f"server-{self._serial + number}" for number in range(count)]
            self._serial += count
            # What the mode before has left is a spent login: a client that tried it would leave its lock behind.
            self._log_in(expired=False, linked=count)
            added, *_ = self._at_once(mode, [("mcp", "add", "-s", "user", name, "--", "true") for name in names])
            failed += sum(one.status != 0 for one in added)
            lost += sum(not self._knows(mode, number, name) for number, name in enumerate(names))
            if refused:
                continue
            self._log_in(expired=True, linked=count)
            done, passed_s, most = self._at_once(mode, [("-p", "hello")] * count)
            logged_out += sum(one.status != 0 and _says_logged_out(one) for one in done)
            failed += sum(one.status != 0 and not _says_logged_out(one) for one in done)
            said = said or next((_words(one) for one in (*added, *done) if one.status != 0), None)
            wall_s, pss = max(wall_s, passed_s), max(pss or 0, most or 0) or None
        starts = count * self._request.rounds
        return Row(
            clients=count,
            mode=mode,
            starts=starts,
            lost=lost,
            lost_per_1000=round(1000 * lost / starts, 1),
            failed=failed,
            logged_out=None if refused else logged_out,
            wall_s=round(wall_s, 2),
            pss_bytes=pss,
            note="khlone starts this version with a key or a long-lived token alone" if refused else said,
        )

    def _log_in(self, *, expired: bool, linked: int = 0) -> None:
        """One new login in the user's store; every token of before is worthless when it is to be refreshed."""
        tokens = self._api.accounts.login()
        if expired:
            self._api.accounts.expire()
        path = self._store / _CREDENTIALS
        files.write_atomic(path, tokens.credentials(expired=expired).encode(), durable=False)
        for number in range(linked):
            link = self._place / "linked" / str(number) / _CREDENTIALS
            link.unlink(missing_ok=True)
            link.symlink_to(path)

    def _config(self, mode: Mode, number: int) -> Path | None:
        if mode is Mode.SHARED:
            return None
        if mode is Mode.LINKED:
            return self._place / "linked" / str(number)
        return Path(self._clones[number]["CLAUDE_CONFIG_DIR"])

    def _knows(self, mode: Mode, number: int, name: str) -> bool:
        config = self._config(mode, number)
        servers = _parsed((self._home if config is None else config) / _STATE).get("mcpServers")
        return isinstance(servers, dict) and name in servers

    def _of_client(self, mode: Mode, number: int) -> tuple[Path, dict[str, str]]:
        if mode is Mode.KHLONE:
            own = self._clones[number]
            return Path(own["KHLONE_PATH"]), own
        config = self._config(mode, number)
        more = {} if config is None else {"CLAUDE_CONFIG_DIR": os.fspath(config)}
        return self._place / "work" / str(number), self._variables(**more)

    def _at_once(self, mode: Mode, asked: Sequence[Sequence[str]]) -> tuple[Sequence[Completed], float, int | None]:
        """How all clients ended, how long it took, and the most memory that they held together."""
        pids: list[int] = []
        gate = threading.Barrier(len(asked))

        def run(number: int) -> Completed:
            cwd, variables = self._of_client(mode, number)
            gate.wait(_CLIENT_S)
            return process.run(
                [str(self._program), *asked[number]],
                cwd=cwd,
                environment=variables,
                timeout_s=_CLIENT_S,
                capture_bytes=_OUTPUT_BYTES,
                started=pids.append,
                given_up=self._pause.is_set,
            )

        most: int | None = None
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool, self._ended(gate):
            running = [pool.submit(run, number) for number in range(len(asked))]
            while concurrent.futures.wait(running, _LOOK_S).not_done:
                held = _held(pids)
                most = held if most is None or (held or 0) > most else most
            passed_s = time.monotonic() - began
            return [one.result() for one in running], passed_s, most

    @contextlib.contextmanager
    def _ended(self, gate: threading.Barrier) -> Iterator[None]:
        """End every client when this is left early."""
        try:
            yield
        except BaseException:
            self._pause.set()
            gate.abort()
            raise


def _held(pids: Sequence[int]) -> int | None:
    """The memory that processes hold together, in proportional shares."""
    from khlone import capacity

    shares = [one.pss_bytes for one in capacity.measure(list(pids), pss=True).values()]
    known = [share for share in shares if share is not None]
    return sum(known) if known else None


def _says_logged_out(done: Completed) -> bool:
    return bool(_LOGGED_OUT.search(_words(done)))


def _words(done: Completed) -> str:
    """What a client that failed said, in one line."""
    text = done.stdout.decode(errors="replace") + done.error_text
    return " ".join(text.split())[:_SHOWN_LETTERS] or f"exit {done.status}"


def _parsed(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
