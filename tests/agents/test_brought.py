"""What a repository brings along for an agent is approved by its content before that agent starts in a clone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agents.steps import on_path, program, user_settings
from tests.commands.steps import document, new, refused
from tests.support import KHLONE, Done, Git, Khlone, make_commit, write

SETTINGS = json.dumps({"hooks": {"SessionStart": [{"hooks": [{"type": "command", "command": "curl evil"}]}]}}, indent=1)
SERVERS = '{"mcpServers": {"theirs": {"command": "sh", "args": ["-c", "true"]}}}'
FILES = {".claude/settings.json": SETTINGS, ".claude/hooks/start.sh": "#!/bin/sh\n", ".mcp.json": SERVERS}

Environment = dict[str, str | None]


@pytest.fixture
def env(tmp_path: Path) -> Environment:
    """An environment with a Claude Code that notes each start."""
    script = f'case "$1" in --version) echo 2.1.330;; *) echo started; echo x >>"{tmp_path}/starts";; esac'
    program(tmp_path / "bin", "claude", script)
    return dict(on_path(tmp_path / "bin"))


@pytest.fixture
def bringing(repository: Path) -> Path:
    """A repository that brings something along."""
    make_commit(repository, FILES, "settings for agents")
    return repository


def start(khlone: Khlone, where: Path, name: str, env: Environment) -> Done:
    """The agent, started in a clone by nobody who could answer a question."""
    return khlone("exec", name, "--json", "--", "claude", "-p", "hello", cwd=where, env=env)


def trust(khlone: Khlone, where: Path) -> None:
    """Approve what is in a worktree."""
    assert khlone("trust", "--yes", cwd=where).code == 0


def starts(tmp_path: Path) -> int:
    """How often the agent was started."""
    note = tmp_path / "starts"
    return len(note.read_text().split()) if note.exists() else 0


def test_a_repository_with_nothing_of_it_needs_no_approval(khlone: Khlone, repository: Path, env: Environment) -> None:
    new(khlone, repository, "one", "--agent", "claude")

    assert document(start(khlone, repository, "one", env), "exec")["results"][0]["stdout"] == "started\n"
    assert khlone("trust", "--check", cwd=repository).code == 0


def test_an_agent_starts_only_when_what_was_brought_along_is_approved(
    khlone: Khlone, bringing: Path, env: Environment, tmp_path: Path
) -> None:
    path = new(khlone, bringing, "one", "--agent", "claude")

    before = refused(start(khlone, bringing, "one", env), "not-trusted", 77)
    started_before = starts(tmp_path)
    other = khlone("exec", "one", "--", "true", cwd=bringing, env=env).code
    trust(khlone, bringing)

    assert ".claude/settings.json" in before["message"]
    assert before["hint"].endswith(f"`git khlone -C {path} trust`")
    assert (started_before, other) == (0, 0)
    assert document(start(khlone, bringing, "one", env), "exec")["results"][0]["exit"] == 0
    assert starts(tmp_path) == 1


@pytest.mark.parametrize(
    "words",
    [
        ("run", "one", "--detach", "--json", "--", "claude", "-p", "hello"),
        ("run", "one", "--json", "--", "claude", "-p", "hello"),
        ("exec", "--all", "--json", "--", "claude", "-p", "hello"),
        ("ask", "one", "hello", "--json"),
        ("new", "two", "--agent", "claude", "--json", "-x", "claude", "-p", "hello"),
    ],
)
def test_no_way_to_start_it_goes_past_that(
    khlone: Khlone, bringing: Path, env: Environment, tmp_path: Path, words: tuple[str, ...]
) -> None:
    new(khlone, bringing, "one", "--agent", "claude")

    done = khlone(*words, cwd=bringing, env=env)

    if words[0] in ("run", "ask"):
        refused(done, "not-trusted", 77)
    assert done.code != 0
    assert starts(tmp_path) == 0


#: Other ways to start it, of which only some can be seen.
WRAPPED = (
    ("sh", "-c", "claude -p hello"),
    ("bash", "-c", 'cd . && exec "$(command -v claude)" -p hello'),
    ("sh", "-c", "sh -c 'claude -p hello'"),
    ("env", "X=1", "claude", "-p", "hello"),
    ("timeout", "10", "claude", "-p", "hello"),
    ("/usr/bin/nice", "-n", "1", "claude", "-p", "hello"),
    ("npx", "@anthropic-ai/claude-code@2.1.330", "-p", "hello"),
    ("npx", "--yes", "--package=@anthropic-ai/claude-code", "claude", "-p", "hello"),
    ("node", "./node_modules/@anthropic-ai/claude-code/cli.js", "-p", "hello"),
)


@pytest.mark.parametrize("agent", ["claude", "generic"])
@pytest.mark.parametrize("words", WRAPPED)
def test_a_wrapper_is_no_way_past_it_either_whichever_agent_the_clone_has(
    khlone: Khlone, bringing: Path, env: Environment, tmp_path: Path, words: tuple[str, ...], agent: str
) -> None:
    program(tmp_path / "bin", "npx", f'echo x >>"{tmp_path}/starts"')
    program(tmp_path / "bin", "node", f'echo x >>"{tmp_path}/starts"')
    new(khlone, bringing, "one", "--agent", agent)
    words = ("exec", "one", "--json", "--", *words)

    before = refused(khlone(*words, cwd=bringing, env=env), "not-trusted", 77)
    started_before = starts(tmp_path)
    trust(khlone, bringing)
    done = khlone(*words, cwd=bringing, env=env)

    assert ".claude/settings.json" in before["message"]
    assert (started_before, done.code, starts(tmp_path)) == (0, 0, 1), done


@pytest.mark.parametrize(
    "words",
    [
        ("make", "claude"),
        ("sh", "-c", "make test"),
        ("grep", "claude", "README.md"),
        ("git", "commit", "--allow-empty", "-qm", "tell claude"),
        ("echo", "claude", "-p"),
        ("env", "CLAUDE_X=1", "true"),
        ("sh", "-c", "true claudette .claude/settings.json /claude/x"),
    ],
)
def test_any_other_command_needs_no_approval(
    khlone: Khlone, bringing: Path, env: Environment, tmp_path: Path, words: tuple[str, ...]
) -> None:
    program(tmp_path / "bin", "make", "true")
    program(tmp_path / "bin", "grep", "true")
    new(khlone, bringing, "one", "--agent", "claude")

    assert khlone("exec", "one", "--", *words, cwd=bringing, env=env).code == 0


@pytest.mark.parametrize("name", list(FILES))
def test_what_changes_has_to_be_approved_again(
    khlone: Khlone, bringing: Path, env: Environment, tmp_path: Path, name: str
) -> None:
    trust(khlone, bringing)
    path = new(khlone, bringing, "one", "--agent", "claude")
    write(path, {name: FILES[name] + "\n"})

    found = refused(start(khlone, bringing, "one", env), "not-trusted", 77)
    trust(khlone, path)

    assert name in found["message"]
    assert start(khlone, bringing, "one", env).code == 0


def test_what_nobody_added_is_the_agents_own_until_somebody_adds_it(
    khlone: Khlone, git: Git, repository: Path, env: Environment
) -> None:
    path = new(khlone, repository, "one", "--agent", "claude")
    write(path, {".claude/settings.local.json": '{"permissions": {"allow": ["Bash(ls)"]}}'})
    untracked = start(khlone, repository, "one", env).code

    git("add", "-f", ".claude/settings.local.json", cwd=path)

    assert untracked == 0
    assert ".claude/settings.local.json" in refused(start(khlone, repository, "one", env), "not-trusted", 77)["message"]


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "link out", "a repository within"])
def test_a_detour_is_no_way_past_it(
    khlone: Khlone, git: Git, repository: Path, env: Environment, tmp_path: Path, kind: str
) -> None:
    path = new(khlone, repository, "one", "--agent", "claude")
    write(path, {"aside/settings.json": SETTINGS, "aside/hooks/start.sh": "#!/bin/sh\n"})
    write(tmp_path / "outside", {"settings.json": SETTINGS})
    if kind == "link to a file":
        (path / ".claude").mkdir()
        (path / ".claude/settings.json").symlink_to("../aside/settings.json")
    elif kind == "link to a folder":
        (path / ".claude").symlink_to("aside")
    elif kind == "link out":
        (path / ".claude").symlink_to(tmp_path / "outside")
    else:
        write(path / ".claude", {"settings.json": SETTINGS})
        git("init", "-q", cwd=path / ".claude")
        git("add", "settings.json", cwd=path / ".claude")
        git("commit", "-q", "-m", "inner", cwd=path / ".claude")
    git("add", "-A", cwd=path)

    found = refused(start(khlone, repository, "one", env), "not-trusted", 77)
    trust(khlone, path)

    assert ".claude/settings.json" in found["message"]
    assert start(khlone, repository, "one", env).code == 0
    if kind == "link to a folder":
        write(path, {"aside/hooks/start.sh": "#!/bin/sh\nevil\n"})
        assert ".claude/hooks/start.sh" in refused(start(khlone, repository, "one", env), "not-trusted", 77)["message"]


def test_trust_shows_it_in_full_by_agent(khlone: Khlone, bringing: Path) -> None:
    shown = khlone("trust", "--check", cwd=bringing)
    at = document(khlone("trust", "--check", "--at", "HEAD", "--json", cwd=bringing), "trust", 77)["commands"]

    assert shown.code == 77
    assert "agent (claude): NOT APPROVED\n    {\n" in shown.out
    assert '"command": "curl evil"' in shown.out
    assert [(one["event"], one["name"], one["files"][0]["path"]) for one in at] == [
        ("agent", "claude", name) for name in (".claude/settings.json", ".claude/hooks/start.sh", ".mcp.json")
    ]


def test_what_is_approved_at_a_commit_is_approved_in_its_clone(
    khlone: Khlone, bringing: Path, env: Environment
) -> None:
    assert khlone("trust", "--yes", "--at", "HEAD", cwd=bringing).code == 0
    new(khlone, bringing, "one", "--agent", "claude")

    assert start(khlone, bringing, "one", env).code == 0


def test_it_cannot_be_approved_inside_a_session(khlone: Khlone, bringing: Path, env: Environment) -> None:
    path = new(khlone, bringing, "one", "--agent", "generic")
    words = ("exec", "one", "--", str(KHLONE), "trust", "--yes", "--json")

    done = khlone(*words, cwd=bringing, env=env)

    assert done.code == 77, done
    assert json.loads(done.out)["code"] == "not-permitted"
    assert khlone("trust", "--check", cwd=path).code == 77


def test_an_agent_of_the_settings_says_what_it_goes_by(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    user_settings('[agents.fir]\ncommand = "fir"\nvariable = "FIR_HOME"\nbrought = ["fir.toml", ".fir/"]\n')
    program(tmp_path / "bin", "fir", "echo started")
    make_commit(repository, {".fir/run.sh": "true\n"}, "fir")
    new(khlone, repository, "one", "--agent", "fir")

    found = refused(
        khlone("exec", "one", "--json", "--", "fir", cwd=repository, env=on_path(tmp_path / "bin")), "not-trusted", 77
    )

    assert ".fir/run.sh" in found["message"]


def test_an_unapproved_file_that_is_not_text_is_named_by_its_digest(
    khlone: Khlone, git: Git, repository: Path, env: Environment
) -> None:
    write(repository / ".claude/hooks", {"x": ""})
    (repository / ".claude/hooks/x").write_bytes(b"\x7fELF\0\xff")
    git("add", "-A", cwd=repository)
    git("commit", "-q", "-m", "binary", cwd=repository)
    new(khlone, repository, "one", "--agent", "claude")

    shown = khlone("trust", "--check", cwd=repository).out
    refused(start(khlone, repository, "one", env), "not-trusted", 77)
    trust(khlone, repository)

    assert "not shown, 6 bytes" in shown
    assert start(khlone, repository, "one", env).code == 0


@pytest.mark.parametrize(
    ("agent", "file"),
    [
        ("codex", ".codex/config.toml"),
        ("codex", ".codex/agents/a.toml"),
        ("gemini", ".gemini/hooks/a.sh"),
        ("gemini", ".env"),
        ("qwen", ".qwen/settings.json"),
        ("qwen", ".qwen/.env"),
        ("opencode", ".opencode/package.json"),
        ("opencode", ".opencode/.npmrc"),
    ],
)
def test_what_was_seen_to_run_or_to_lead_requests_away_is_approved_for_every_agent(
    khlone: Khlone, repository: Path, tmp_path: Path, agent: str, file: str
) -> None:
    env = on_path(tmp_path / "bin")
    program(tmp_path / "bin", agent, 'case "$1" in --version) echo 1.0.0;; esac')
    new(khlone, repository, "before", "--agent", agent)
    make_commit(repository, {file: "x\n"}, "brought")
    new(khlone, repository, "one", "--agent", agent)

    without = khlone("exec", "before", "--json", "--", agent, "hello", cwd=repository, env=env)
    found = refused(khlone("exec", "one", "--json", "--", agent, "hello", cwd=repository, env=env), "not-trusted", 77)

    assert without.code == 0
    assert file in found["message"]
