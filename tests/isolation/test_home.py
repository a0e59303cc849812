"""Level `home`: a HOME of the clone's own in which git, ssh and toolchains still work, and the user's untouched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.commands.steps import document, footprint, new, refused, show
from tests.isolation.steps import environment, hashes, run, said, sshd
from tests.support import KHLONE, Git, Khlone, write


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who keeps git's settings, and all else, where programs put it by themselves."""
    found = Path(os.environ["HOME"])
    write(found, {".gitconfig": "[user]\n\tname = Usual Name\n\temail = usual@example.invalid\n"})
    for name in ("GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    return found


def test_the_level_is_in_the_registry_and_in_what_is_shown(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one", "--isolate", "home")
    new(khlone, repository, "two")

    listed = document(khlone("list", "--json", cwd=repository), "list")["clones"]

    assert {clone["name"]: clone["isolation"] for clone in listed} == {"one": "home", "two": "config"}
    assert show(khlone, repository, "one")["isolation"] == "home"
    assert environment(khlone, repository, "one")["KHLONE_ISOLATION"] == "home"
    assert "KHLONE_ISOLATION" not in environment(khlone, repository, "two")


def test_the_setting_is_the_level_of_new_clones(khlone: Khlone, repository: Path, git: Git) -> None:
    git("config", "khlone.isolate", "home", cwd=repository)

    new(khlone, repository, "one")
    new(khlone, repository, "two", "--isolate", "config")

    assert show(khlone, repository, "one")["isolation"] == "home"
    assert show(khlone, repository, "two")["isolation"] == "config"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("khlone.isolate", "prison"),
        ("khlone.isolation.caches", "npm conda"),
        ("khlone.isolation.links", "../other"),
        ("khlone.isolation.links", "/etc"),
    ],
)
def test_a_setting_that_cannot_be_used_leaves_nothing_behind(
    khlone: Khlone, repository: Path, git: Git, key: str, value: str
) -> None:
    new(khlone, repository, "other")
    git("config", key, value, cwd=repository)
    before = footprint(git, repository)
    level = () if key == "khlone.isolate" else ("--isolate", "home")

    done = khlone("new", "one", *level, "--json", cwd=repository)

    assert key in str(refused(done, "invalid-setting", 2)["message"])
    assert footprint(git, repository) == before


def test_a_clone_has_a_private_home_and_writes_nothing_into_the_users(
    khlone: Khlone, repository: Path, home: Path
) -> None:
    new(khlone, repository, "one", "--isolate", "home")
    before = hashes(home)
    own = Path(environment(khlone, repository, "one")["HOME"])

    said(
        khlone,
        repository,
        "one",
        'set -e; cd; pwd; echo a >.netrc; mkdir -p "$XDG_CACHE_HOME/x" "$XDG_CONFIG_HOME/y" "$XDG_DATA_HOME/z"; '
        "git config --global alias.x status",
    )

    def of_user(found: dict[str, str]) -> dict[str, str]:
        return {path: digest for path, digest in found.items() if not path.startswith((".local", ".cache"))}

    assert of_user(hashes(home)) == of_user(before)
    assert (own / ".netrc").read_text() == "a\n"
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert own.is_relative_to(home / ".local/state/khlone")


def test_a_commit_carries_the_users_identity_also_one_given_later(
    khlone: Khlone, repository: Path, home: Path, git: Git
) -> None:
    path = new(khlone, repository, "one", "--isolate", "home")

    said(khlone, repository, "one", "git commit -q --allow-empty -m first")
    write(home, {".gitconfig": "[user]\n\tname = New Name\n\temail = usual@example.invalid\n"})
    said(khlone, repository, "one", "git commit -q --allow-empty -m second")

    authors = git("log", "-2", "--format=%an <%ae>", cwd=path).splitlines()
    assert authors == ["New Name <usual@example.invalid>", "Usual Name <usual@example.invalid>"]


def test_paths_below_the_users_home_stay_what_they_mean(khlone: Khlone, repository: Path, home: Path) -> None:
    write(
        home,
        {
            ".gitconfig": "[core]\n\texcludesFile = ~/ignored\n[include]\n\tpath = ~/more\n"
            '[includeIf "gitdir:~/"]\n\tpath = ~/here\n[includeIf "gitdir:/"]\n\tpath = ~/everywhere\n',
            "ignored": "*.tmp\n",
            "more": "[user]\n\tname = Of More\n",
            "here": "[user]\n\tname = Of Here\n",
            "everywhere": "[user]\n\temail = all@example.invalid\n",
            ".config/git/attributes": "*.bin -diff\n",
        },
    )
    new(khlone, repository, "one", "--isolate", "home")

    told = said(
        khlone,
        repository,
        "one",
        "touch a.tmp; git status --porcelain; git config user.name; git config user.email; git check-attr diff x.bin",
    )

    assert told.splitlines() == ["Of More", "all@example.invalid", "x.bin: diff: unset"]


def test_chosen_caches_and_links_are_the_users_and_others_are_not(
    khlone: Khlone, repository: Path, home: Path, git: Git
) -> None:
    write(home, {".npm/a": "1", ".cache/pip/b": "2", ".cache/uv/c": "3", ".tool/d": "4", ".rustup/e": "5"})
    git("config", "khlone.isolation.caches", "npm pip", cwd=repository)
    git("config", "khlone.isolation.links", ".tool", cwd=repository)
    new(khlone, repository, "one", "--isolate", "home")

    told = said(
        khlone,
        repository,
        "one",
        'cd; cat .npm/a .cache/pip/b .tool/d; ls -A .cache/uv .rustup 2>/dev/null; echo "${PIP_CACHE_DIR-}"'
        ' "${UV_CACHE_DIR-gone}"',
        {"PIP_CACHE_DIR": str(home / ".cache/pip"), "UV_CACHE_DIR": str(home / ".cache/uv")},
    )

    assert told == f"124{home}/.cache/pip gone"


def test_what_is_missing_is_made_again_and_what_is_changed_stays(khlone: Khlone, repository: Path, home: Path) -> None:
    new(khlone, repository, "one", "--isolate", "home")
    said(khlone, repository, "one", "cd; rm .ssh/config; git config --global user.name Mine; chmod 755 .")

    told = said(khlone, repository, "one", "cd; grep -c KnownHosts .ssh/config; git config user.name; stat -c %a .")

    assert told.split() == ["2", "Mine", "700"]


def test_the_home_goes_to_the_trash_and_comes_back(khlone: Khlone, repository: Path) -> None:
    new(khlone, repository, "one", "--isolate", "home")
    said(khlone, repository, "one", "echo kept >~/note")
    assert khlone("remove", "one", cwd=repository).code == 0

    assert khlone("restore", "one", cwd=repository).code == 0

    assert show(khlone, repository, "one")["isolation"] == "home"
    assert said(khlone, repository, "one", "cat ~/note") == "kept"


def test_ssh_goes_by_the_users_agent_and_the_users_files_stay_as_they_are(
    khlone: Khlone, repository: Path, home: Path, git: Git, tmp_path: Path
) -> None:
    with sshd(tmp_path / "ssh") as remote:
        write(home, {".ssh/known_hosts": remote.known_host, ".ssh/config": "Host *\n\tBatchMode yes\n"})
        (home / ".ssh").chmod(0o700)
        git("init", "-q", "--bare", str(tmp_path / "there.git"), cwd=tmp_path)
        git("remote", "add", "there", remote.url(tmp_path / "there.git"), cwd=repository)
        path = new(khlone, repository, "one", "--isolate", "home")
        before = hashes(home / ".ssh"), (home / ".gitconfig").read_bytes()

        told = run(
            khlone,
            repository,
            "one",
            "git commit -q --allow-empty -m x && git push -q there one && git fetch -q there",
            {"SSH_AUTH_SOCK": str(remote.agent)},
        )

    assert told["exit"] == 0, told
    assert git("rev-parse", "one", cwd=tmp_path / "there.git") == git("rev-parse", "HEAD", cwd=path)
    assert (hashes(home / ".ssh"), (home / ".gitconfig").read_bytes()) == before


def test_a_host_that_the_user_does_not_know_is_noted_in_the_clone_alone(
    khlone: Khlone, repository: Path, home: Path, git: Git, tmp_path: Path
) -> None:
    with sshd(tmp_path / "ssh") as remote:
        write(home, {".ssh/config": "Host *\n\tStrictHostKeyChecking accept-new\n\tHashKnownHosts no\n"})
        before = hashes(home / ".ssh")
        git("config", "khlone.isolation.sshConfig", "true", cwd=repository)
        new(khlone, repository, "one", "--isolate", "home")
        env = {"SSH_AUTH_SOCK": str(remote.agent)}

        told = said(
            khlone, repository, "one", f"git ls-remote {remote.url(repository)} main; cat ~/.ssh/known_hosts", env
        )

    assert f"[127.0.0.1]:{remote.port} ssh-ed25519" in told
    assert hashes(home / ".ssh") == before


# -- nested --------------------------------------------------------------------------------


def test_a_clone_made_in_a_clone_is_filled_from_the_user_and_kept_apart_as_far(
    khlone: Khlone, repository: Path, home: Path
) -> None:
    write(home, {".claude/settings.json": '{"model": "of-the-user"}'})
    new(khlone, repository, "outer", "--isolate", "home", "--agent", "claude")

    said(
        khlone,
        repository,
        "outer",
        'mkdir -p ~/.claude && echo \'{"model": "of-the-agent"}\' | tee ~/.claude/settings.json '
        f'>"$CLAUDE_CONFIG_DIR/settings.json"; {KHLONE} new inner --agent claude',
    )

    inner = show(khlone, repository, "inner")
    assert inner["isolation"] == "home"
    assert (Path(inner["config_dir"]) / "settings.json").read_text() == '{"model": "of-the-user"}'
    own = environment(khlone, repository, "inner")
    assert own["HOME"] != environment(khlone, repository, "outer")["HOME"]
    assert said(khlone, repository, "inner", "git config user.name") == "Usual Name"


def test_a_session_may_not_make_a_clone_that_is_kept_apart_less(khlone: Khlone, repository: Path, home: Path) -> None:
    new(khlone, repository, "outer", "--isolate", "home")

    done = run(khlone, repository, "outer", f"{KHLONE} new inner --isolate config")

    assert done["exit"] == 77
    assert "may not make a clone at level config" in done["stderr"]


def test_a_command_in_another_clone_has_the_users_home_whoever_calls(
    khlone: Khlone, repository: Path, home: Path
) -> None:
    new(khlone, repository, "plain")
    new(khlone, repository, "outer", "--isolate", "home")

    told = said(khlone, repository, "outer", f"{KHLONE} exec plain -- sh -c 'echo \"$HOME ${{KHLONE_ISOLATION-}}\"'")

    assert told == f"{home}"
