"""What does the author of a plugin test with? Fixtures that drive the real command on a real repository.

pytest finds them by itself where khlone is installed. Each test gets an account of its
own: home, git configuration, khlone's state. The plugins are those of the environment
that runs the tests, so install yours there (`pip install -e .`). Agent programs need no
account and no network: `khlone_loopback` stands for their services, `khlone_fake_agent`
for the programs.

    def test_a_clone_gets_its_env_file(make_clone):
        clone = make_clone("one")

        assert (clone.path / ".env").exists()
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from khlone.values import dataclass

if TYPE_CHECKING:
    from khlone.loopback import TIER_1 as TIER_1
    from khlone.loopback import Accounts as Accounts
    from khlone.loopback import Answer as Answer
    from khlone.loopback import Failure as Failure
    from khlone.loopback import Habits as Habits
    from khlone.loopback import Loopback as Loopback
    from khlone.loopback import RateLimit as RateLimit
    from khlone.loopback import Seen as Seen
    from khlone.loopback import Tally as Tally
    from khlone.loopback import Tokens as Tokens
    from khlone.loopback import install_fake_agent as install_fake_agent
    from khlone.model import Clone

#: Of the caller's variables these steer git or khlone and are taken away.
_FOREIGN = ("GIT_", "KHLONE_", "XDG_")
#: What an agent program and its services take; loaded when one of them is asked for.
_KIT = frozenset(
    (
        "Accounts",
        "Answer",
        "Failure",
        "Habits",
        "Loopback",
        "RateLimit",
        "Seen",
        "TIER_1",
        "Tally",
        "Tokens",
        "install_fake_agent",
    )
)
_GIT_CONFIG = """\
[user]
\tname = Test Author
\temail = author@example.invalid
[init]
\tdefaultBranch = main
[advice]
\tdetachedHead = false
"""
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended; `code` is negative for a signal."""

    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """stdout, which must be exactly one JSON object."""
        found = json.loads(self.out)
        assert isinstance(found, dict), self.out
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class HookCall:
    """One call of a hook: its name without `khlone_`, and its arguments as `--json` shows such values."""

    hook: str
    arguments: Mapping[str, Any]


class KhloneCommand(Protocol):
    """Runs the real command to its end, by default in the repository; `env` is added to the environment."""

    def __call__(self, *words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done: ...


class MakeClone(Protocol):
    """Makes a clone with the real command; `options` are those of `git khlone new`."""

    def __call__(self, name: str, *options: str) -> Clone: ...


@pytest.fixture
def khlone_repository(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small real repository of two commits on `main`, in an account of its own."""
    folder = tmp_path_factory.mktemp("khlone")
    _enter_account(folder, monkeypatch)
    repository = folder / "project"
    repository.mkdir()
    _git(repository, "init", "-q", "-b", "main")
    for name, text in (("README.md", "# project\n"), ("app.py", 'print("one")\n')):
        (repository / name).write_text(text, encoding="utf-8")
        _git(repository, "add", name)
        _git(repository, "commit", "-q", "-m", f"add {name}")
    return repository


@pytest.fixture
def khlone_command(khlone_repository: Path) -> KhloneCommand:
    """The real command: `khlone_command("list", "--json").json()`."""

    def call(*words: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Done:
        return _run([*_command(), *words], khlone_repository if cwd is None else cwd, env)

    return call


@pytest.fixture
def make_clone(khlone_repository: Path, khlone_command: KhloneCommand) -> MakeClone:
    """`make_clone("one", "--agent", "generic")` makes a clone and returns it; fails the test when khlone refuses."""

    def make(name: str, *options: str) -> Clone:
        done = khlone_command("new", *options, name)
        if done.code != 0:
            pytest.fail(f"git khlone new {name}: exit {done.code}: {done.err.strip()}")
        from khlone.app import App
        from khlone.operations import inspect

        return inspect.show_clone(App.open(khlone_repository), name)

    return make


@pytest.fixture
def khlone_loopback(khlone_repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """The services of agent programs, on 127.0.0.1; what the test starts talks to them and to nothing else."""
    del khlone_repository
    from khlone.loopback import Loopback

    with Loopback() as services:
        for name, value in services.environment().items():
            monkeypatch.setenv(name, value)
        yield services


@pytest.fixture
def khlone_fake_agent(
    khlone_repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """`khlone_fake_agent("claude", Habits(forks=True))`: a program of that name, found first on PATH; its path."""
    del khlone_repository
    folder = tmp_path_factory.mktemp("khlone-programs")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def make(name: str = "claude", habits: Habits | None = None) -> Path:
        from khlone.loopback import install_fake_agent

        return install_fake_agent(folder, name, habits)

    return make


@pytest.fixture
def recorded_hooks(
    khlone_repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Sequence[HookCall]]:
    """`recorded_hooks()`: every call of a hook by a command of this test so far, in order, before your plugin's."""
    del khlone_repository
    site = tmp_path_factory.mktemp("khlone-recorder")
    log = site / "calls.jsonl"
    _write_recorder(site, log)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=os.pathsep)

    def read() -> Sequence[HookCall]:
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [HookCall(**json.loads(line)) for line in lines]

    return read


def __getattr__(name: str) -> Any:
    if name in _KIT:
        import khlone.loopback

        return getattr(khlone.loopback, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# -- the account ---------------------------------------------------------------------------


def _enter_account(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = folder / "home"
    home.mkdir()
    config = folder / "gitconfig"
    config.write_text(_GIT_CONFIG, encoding="utf-8")
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        monkeypatch.delenv(name)
    for name, value in {
        "HOME": home,
        "XDG_STATE_HOME": folder / "state",
        "XDG_CONFIG_HOME": folder / "config",
        "XDG_CACHE_HOME": folder / "cache",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": config,
        "LC_ALL": "C",
    }.items():
        monkeypatch.setenv(name, str(value))


def _command() -> Sequence[str]:
    """The command of the environment that runs the tests, whatever PATH says."""
    script = Path(sys.executable).parent / "git-khlone"
    return (str(script),) if script.exists() else (sys.executable, "-P", "-c", "from khlone.cli import main; main()")


def _git(cwd: Path, *words: str) -> None:
    done = _run(["git", *words], cwd, None)
    assert done.code == 0, done.err


def _run(argv: Sequence[str], cwd: Path, env: Mapping[str, str] | None) -> Done:
    from khlone import process

    done = process.run(argv, cwd=cwd, environment={**os.environ, **(env or {})}, timeout_s=_TIMEOUT_S)
    assert not done.timed_out, f"{' '.join(argv)} took longer than {_TIMEOUT_S} s"
    return Done(code=done.status, out=done.text, err=done.stderr.decode(errors="surrogateescape"))


# -- the recorder --------------------------------------------------------------------------

_RECORDER = """\
import json, os
from khlone import hookimpl
from khlone.values import plain


def note(hook, **arguments):
    line = json.dumps({{"hook": hook, "arguments": {{k: plain(v) for k, v in arguments.items()}}}}, default=repr)
    descriptor = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, line.encode() + b"\\n")
    os.close(descriptor)
"""
_HOOK = """

@hookimpl(tryfirst=True)
def khlone_{hook}({names}):
    note({hook!r}, {arguments})
"""


def _write_recorder(site: Path, log: Path) -> None:
    """Install a plugin that implements every hook, answers nothing and writes each call down."""
    import inspect

    from khlone import hookspecs

    source = _RECORDER.format(log=str(log))
    for name, spec in vars(hookspecs).items():
        if name.startswith("khlone_"):
            taken = list(inspect.signature(spec).parameters)
            arguments = ", ".join(f"{one}={one}" for one in taken)
            source += _HOOK.format(hook=name.removeprefix("khlone_"), names=", ".join(taken), arguments=arguments)
    (site / "khlone_recorder.py").write_text(source, encoding="utf-8")
    metadata = site / "khlone_recorder-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: khlone-recorder\nVersion: 1\n", encoding="utf-8")
    (metadata / "entry_points.txt").write_text("[khlone]\nrecorder = khlone_recorder\n", encoding="utf-8")
