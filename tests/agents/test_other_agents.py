"""Codex, Gemini CLI, OpenCode and Qwen Code: what a clone gets of the user's, and what stays the user's."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from khlone.values import dataclass, field
from tests.agents.steps import agent, environment, inside, on_path, program
from tests.commands.steps import clone_names, new, show, tree
from tests.support import KHLONE, Khlone, write


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An agent: `folder` is the user's, below HOME or below what a variable names; names are as in the clone."""

    name: str
    folder: str
    variables: Sequence[str]
    login: str
    copied: Sequence[str]
    linked: Sequence[str]
    private: Sequence[str]
    credentials: Sequence[str] = ()
    stripped: Sequence[str] = ()
    keys: Sequence[str] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def user(self) -> Path:
        """The user's own folder."""
        return Path(os.path.expandvars(self.folder))

    def of_user(self, name: str) -> Path:
        """Where the user's own of an item lies."""
        if (self.name, name) == ("opencode", "opencode/auth.json"):
            return Path(os.environ["HOME"], ".local/share/opencode/auth.json")
        return self.user / name


CASES = [
    Case(
        name="codex",
        folder="$HOME/.codex",
        variables=("CODEX_HOME", "CODEX_SQLITE_HOME"),
        login="link",
        copied=("config.toml", "rules/default.rules", "skills/mine/SKILL.md"),
        linked=("AGENTS.md", "prompts"),
        private=("sessions/2026/01/01/rollout-1.jsonl", "history.jsonl", "state_5.sqlite", "installation_id", "log/a"),
        credentials=("auth.json",),
        stripped=("CODEX_SANDBOX", "CODEX_THREAD_ID"),
        keys=("CODEX_API_KEY", "OPENAI_API_KEY"),
    ),
    Case(
        name="gemini",
        folder="$HOME",
        variables=("GEMINI_CLI_HOME",),
        login="link",
        copied=(".gemini/settings.json", ".gemini/GEMINI.md", ".gemini/extensions/one/gemini-extension.json"),
        linked=(".gemini/commands", ".gemini/skills"),
        private=(".gemini/tmp/x/chats/1.json", ".gemini/projects.json", ".gemini/.env", ".gemini/history/a"),
        credentials=(".gemini/oauth_creds.json", ".gemini/google_accounts.json"),
        stripped=("GEMINI_CLI", "GEMINI_CLI_IDE_WORKSPACE_PATH", "GEMINI_CLI_TRUSTED_FOLDERS_PATH"),
        keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    ),
    Case(
        name="opencode",
        folder="$XDG_CONFIG_HOME",
        variables=("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"),
        login="link",
        copied=("opencode/opencode.json", "opencode/tui.json"),
        linked=("opencode/AGENTS.md", "opencode/commands", "git"),
        private=("opencode/opencode.db", "opencode/log/a"),
        credentials=("opencode/auth.json",),
        stripped=("OPENCODE_DB", "OPENCODE_CONFIG_DIR"),
        keys=("ANTHROPIC_API_KEY", "OPENAI_API_KEY"),
        fixed={"OPENCODE_DISABLE_AUTOUPDATE": "1"},
    ),
    Case(
        name="qwen",
        folder="$HOME/.qwen",
        variables=("QWEN_HOME", "QWEN_RUNTIME_DIR"),
        login="own",
        copied=("settings.json", "QWEN.md", "extensions/one/qwen-extension.json"),
        linked=("commands", "skills"),
        private=("oauth_creds.json", "projects/x/chats/1.jsonl", "tmp/a", ".env"),
        stripped=("QWEN_CODE", "QWEN_CODE_TRUSTED_FOLDERS_PATH"),
        keys=("OPENAI_API_KEY",),
    ),
]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without what the agents look at; the user's data where it is by default."""
    names = ("CODEX", "GEMINI", "GOOGLE", "OPENAI", "OPENCODE", "QWEN", "ANTHROPIC", "XDG_DATA_HOME")
    for name in [name for name in os.environ if name.startswith(names)]:
        monkeypatch.delenv(name)


def used(case: Case) -> None:
    """Let the user have used the agent: every item is there."""
    for name in (*case.copied, *case.private, *case.credentials):
        path = case.of_user(name)
        write(path.parent, {path.name: json.dumps({"of": name})})
    for name in case.linked:
        write(case.user, {name if name.endswith(".md") else f"{name}/one": "[user]\n\tname = Linked\n"})


def users(case: Case) -> list[object]:
    """Everything of the user's: kinds, modes and bytes."""
    return [tree(folder) for folder in (Path(os.environ["HOME"]), case.user)]


def config_dir(khlone: Khlone, where: Path, name: str) -> Path:
    return Path(show(khlone, where, name)["config_dir"])


@each
def test_what_an_agent_is_like_is_told(khlone: Khlone, repository: Path, tmp_path: Path, case: Case) -> None:
    program(tmp_path / "bin", case.name, 'echo "version 1.18.33"')
    env = on_path(tmp_path / "bin")

    found = agent(khlone, repository, case.name, env)
    shown = khlone("agents", "show", case.name, cwd=repository, env=env).out

    assert (found["version"], found["login"]) == ("1.18.33", case.login)
    assert found["path"] == str(tmp_path / "bin" / case.name)
    assert found["config_variables"] == list(case.variables)
    assert all(name in shown for name in (*case.variables, *case.credentials))


@each
def test_a_clone_has_each_item_as_the_profile_says(khlone: Khlone, repository: Path, case: Case) -> None:
    used(case)
    before = users(case)

    new(khlone, repository, "one", "--agent", case.name)

    place = config_dir(khlone, repository, "one")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {name: (place / name).read_text() for name in case.copied} == {
        name: json.dumps({"of": name}) for name in case.copied
    }
    assert not any(path.is_symlink() for name in case.copied for path in ((place / name), (place / name).parent))
    assert {name: (place / name).readlink() for name in case.linked} == {name: case.user / name for name in case.linked}
    assert [name for name in (*case.private, *case.credentials) if (place / name).exists()] == []
    assert users(case) == before


@each
def test_what_the_program_writes_lands_in_the_clone(
    khlone: Khlone, repository: Path, tmp_path: Path, case: Case
) -> None:
    used(case)
    writes = [line for name in (*case.copied, *case.private) for line in _writing(case, name)]
    program(tmp_path / "bin", case.name, "set -e\n" + "\n".join(writes))
    new(khlone, repository, "one", "--agent", case.name)
    before = users(case)

    done = khlone("exec", "one", "--", case.name, cwd=repository, env=on_path(tmp_path / "bin"))

    assert done.code == 0, done.err
    place = config_dir(khlone, repository, "one")
    assert {(place / name).read_text() for name in (*case.copied, *case.private)} == {"new\n"}
    assert users(case) == before


def _writing(case: Case, name: str) -> list[str]:
    path = f'"${case.variables[-1]}/{name}"'
    return [f"mkdir -p $(dirname {path})", f"echo new >{path}"]


@each
def test_a_clone_is_logged_in_as_the_user_where_that_logs_nobody_out(
    khlone: Khlone, repository: Path, case: Case
) -> None:
    used(case)
    new(khlone, repository, "one", "--agent", case.name)

    environment(khlone, repository, "one")

    place = config_dir(khlone, repository, "one")
    assert [(place / name).readlink() for name in case.credentials] == [case.of_user(name) for name in case.credentials]
    assert (case.login == "link") == bool(case.credentials)


@each
def test_the_environment_is_the_clones_own(khlone: Khlone, repository: Path, case: Case) -> None:
    new(khlone, repository, "one", "--agent", case.name)
    others = dict.fromkeys((*case.stripped, *case.keys), "/outer")
    # The base directories are where khlone's own files are, too.
    moved = {name: "/outer" for name in case.variables if not name.startswith("XDG_")}

    found = inside(khlone, repository, "one", {**others, **moved})

    place = config_dir(khlone, repository, "one")
    assert {name: found[name] for name in case.variables} == dict.fromkeys(case.variables, str(place))
    assert [name for name in others if name in found] == []
    assert {name: found[name] for name in case.fixed} == case.fixed


@each
def test_a_user_who_has_never_run_it_gets_a_clone_too(khlone: Khlone, repository: Path, case: Case) -> None:
    new(khlone, repository, "one", "--agent", case.name)
    before = users(case)

    found = inside(khlone, repository, "one")

    place = Path(found[case.variables[0]])
    assert [name for name, (kind, _, _) in tree(place).items() if kind != "d" and name != "khlone"] == []
    assert users(case) == before


def test_git_and_khlone_work_where_opencode_moves_their_folders(khlone: Khlone, repository: Path) -> None:
    write(Path(os.environ["XDG_CONFIG_HOME"]), {"git/config": "[khlone-test]\n\tword = linked\n"})
    write(Path(os.environ["XDG_CONFIG_HOME"]), {"opencode/opencode.json": '{"model": "of the user"}'})
    new(khlone, repository, "outer", "--agent", "opencode")
    (config_dir(khlone, repository, "outer") / "opencode/opencode.json").write_text('{"model": "of the clone"}')

    plain = {"GIT_CONFIG_GLOBAL": None}
    word = khlone("exec", "outer", "--", "git", "config", "khlone-test.word", cwd=repository, env=plain)
    done = khlone("exec", "outer", "--", str(KHLONE), "new", "inner", "--agent", "opencode", cwd=repository)

    assert word.out == "linked\n"
    assert done.code == 0, done.err
    assert clone_names(khlone, repository) == ["inner", "outer"]
    inner = config_dir(khlone, repository, "inner")
    assert inner.is_relative_to(os.environ["XDG_STATE_HOME"])
    assert not inner.is_relative_to(config_dir(khlone, repository, "outer"))
    assert "of the user" in (inner / "opencode/opencode.json").read_text()
