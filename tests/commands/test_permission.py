"""What a session may not do unless the user's own settings allow it, in sessions of the real command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands.steps import clone_names, document, new, refused
from tests.support import KHLONE, Done, Git, Khlone, make_commit

#: What an agent may take out of its environment.
SCRUB = [
    "env",
    *(part for name in ("NAME", "ID", "PATH", "SESSION", "REPOSITORY") for part in ("-u", f"KHLONE_{name}")),
]
VERBS = {
    "trust": ["trust", "--yes"],
    "untrust": ["untrust"],
    "approve": ["approve", "two"],
    "remove": ["remove", "two"],
    "stop": ["stop", "two"],
    "prune": ["prune"],
    "purge": ["prune", "--trash", "--age", "0s"],
    "hooks-install": ["hooks", "install", "--clones"],
    "hooks-remove": ["hooks", "remove"],
    "force": ["remove", "--force", "two"],
    "force-own": ["remove", "--force", "one"],
    "force-sync": ["sync", "--force", "two"],
    "undo": ["undo"],
    "rename": ["rename", "two", "three"],
    "setup": ["setup", "--shell", "bash", "--yes"],
    "uninstall": ["uninstall"],
}

Inside = Callable[..., Done]


@pytest.fixture
def project(repository: Path, khlone: Khlone) -> Path:
    """A repository with a hook to be approved and the clones one and two, the latter made last."""
    make_commit(repository, {".khlone.toml": '[hooks]\npost-merge = "true"\n'}, "hooks")
    assert khlone("trust", "--yes", cwd=repository).code == 0
    new(khlone, repository, "one")
    new(khlone, repository, "two")
    return repository


@pytest.fixture
def inside(project: Path, khlone: Khlone) -> Inside:
    """Runs khlone in a session of clone one, behind the words of `wrapped`."""

    def run(*words: str, wrapped: list[str] | None = None, clone: str = "one") -> Done:
        return khlone("exec", clone, "--", *(wrapped or []), str(KHLONE), *words, "--json", cwd=project)

    return run


@pytest.mark.parametrize("scrubbed", [False, True], ids=["as-it-is", "scrubbed"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_only_the_user_does_is_refused_in_a_session_and_done_outside(
    verb: str, scrubbed: bool, inside: Inside, khlone: Khlone, project: Path
) -> None:
    words = VERBS[verb]
    if verb == "stop":
        assert khlone("run", "two", "--detach", "--", "sleep", "1000", cwd=project).code == 0

    done = inside(*words, wrapped=SCRUB if scrubbed else None)

    if verb == "remove":
        kept = document(done, "remove", 77)["kept"]
        assert [(one["name"], one["code"]) for one in kept] == [("two", "not-permitted")]
    else:
        found = refused(done, "not-permitted", 77)
        assert "\n" not in found["message"]
        assert "khlone.session.allow" in found["hint"]
    assert clone_names(khlone, project) == ["one", "two"]
    outside = khlone(*words, "--json", cwd=project)
    assert outside.code == 0, outside


def test_a_session_of_new_is_one_too(khlone: Khlone, project: Path) -> None:
    done = khlone("new", "three", "-x", str(KHLONE), "remove", "two", cwd=project)

    assert done.code == 77
    assert "kept: a session may not remove the clone of another" in done.err
    assert "hint: ask the user" in done.err


def test_variables_that_were_exported_by_hand_are_a_session_too(khlone: Khlone, project: Path) -> None:
    own = document(khlone("env", "one", "--json", cwd=project), "env")["environment"]

    refused(khlone("prune", "--json", cwd=project, env=own), "not-permitted", 77)


def test_a_session_may_remove_its_own_clone_and_look_at_anything(inside: Inside, khlone: Khlone, project: Path) -> None:
    for words in (["trust", "--check"], ["hooks", "status"], ["prune", "--dry-run"], ["hooks", "install", "--all"]):
        looked = inside(*words, *(["--dry-run"] if "install" in words else []))
        assert looked.code == 0, looked
    assert inside("remove", "two", "--dry-run").code == 0

    removed = document(inside("remove"), "remove")["removed"]

    assert [one["name"] for one in removed] == ["one"]


def test_nobody_passes_for_another_by_a_session_in_its_clone(inside: Inside, khlone: Khlone, project: Path) -> None:
    nested = [str(KHLONE), "exec", "two", "--"]

    done = inside("remove", "two", wrapped=[*nested])
    named = inside("remove", "two", wrapped=["env", f"KHLONE_ID={show_id(khlone, project, 'two')}"])

    for one in (done, named):
        assert [kept["code"] for kept in document(one, "remove", 77)["kept"]] == ["not-permitted"]
    assert clone_names(khlone, project) == ["one", "two"]


def show_id(khlone: Khlone, where: Path, name: str) -> str:
    """The id of a clone."""
    return str(document(khlone("show", name, "--json", cwd=where), "show")["clone"]["id"])


def test_a_merge_in_a_session_removes_no_clone_of_another(inside: Inside, khlone: Khlone, project: Path) -> None:
    make_commit(project.parent / "project.clones/two", {"two.txt": "2\n"}, "two")

    done = inside("merge", "two", "--remove")

    assert [one["name"] for one in document(done, "merge", 77)["landed"]] == ["two"]
    assert clone_names(khlone, project) == ["one", "two"]


# -- what the user allows ----------------------------------------------------------------------


@pytest.mark.parametrize("scrubbed", [False, True], ids=["as-it-is", "scrubbed"])
@pytest.mark.parametrize("place", ["git", "file"])
def test_the_user_can_allow_it(place: str, scrubbed: bool, inside: Inside, git: Git, project: Path) -> None:
    if place == "git":
        git("config", "--global", "khlone.session.allow", "remove, force", cwd=project)
    else:
        write_user_file('[session]\nallow = ["remove", "force"]\n')
    wrapped = SCRUB if scrubbed else None

    done = inside("remove", "--force", "two", wrapped=wrapped)

    assert [one["name"] for one in document(done, "remove")["removed"]] == ["two"]
    refused(inside("prune", wrapped=wrapped), "not-permitted", 77)


def test_approving_can_be_allowed_too(inside: Inside, git: Git, khlone: Khlone, project: Path) -> None:
    git("config", "--global", "khlone.session.allow", "trust", cwd=project)

    assert inside("untrust").code == 0
    assert khlone("trust", "--check", cwd=project).code == 77
    assert inside("trust", "--yes").code == 0

    assert khlone("trust", "--check", cwd=project).code == 0
    refused(inside("trust", "--yes", wrapped=["env", "KHLONE_HOOK=x"]), "not-permitted", 77)


@pytest.mark.parametrize(
    "place", ["repository", "project", "count", "parameters", "global", "config-home", "home", "nested"]
)
def test_nothing_that_a_session_can_write_allows_it(
    place: str, inside: Inside, git: Git, khlone: Khlone, project: Path, tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / ".gitconfig").write_text('[khlone "session"]\n\tallow = remove\n')
    (evil / "khlone").mkdir()
    (evil / "khlone/config.toml").write_text('[session]\nallow = "remove"\n')
    wrapped: list[str] = []
    if place == "repository":
        git("config", "khlone.session.allow", "remove", cwd=project)
    elif place == "project":
        make_commit(project, {".khlone.toml": '[session]\nallow = "remove"\n'}, "they allow it")
    else:
        wrapped = {
            "count": ["GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=khlone.session.allow", "GIT_CONFIG_VALUE_0=remove"],
            "parameters": ["GIT_CONFIG_PARAMETERS='khlone.session.allow'='remove'"],
            "global": [f"GIT_CONFIG_GLOBAL={evil}/.gitconfig"],
            "config-home": [f"XDG_CONFIG_HOME={evil}"],
            "home": [f"HOME={evil}", "-u", "XDG_CONFIG_HOME"],
            "nested": [f"GIT_CONFIG_GLOBAL={evil}/.gitconfig", str(KHLONE), "exec", "one", "--"],
        }[place]
        options = [word for word in wrapped if word == "-u" or word == "XDG_CONFIG_HOME"]
        wrapped = ["env", *options, *(word for word in wrapped if word not in options)]

    for words in (wrapped, [*SCRUB, *wrapped]):
        done = inside("remove", "two", wrapped=words)
        assert [one["code"] for one in document(done, "remove", 77)["kept"]] == ["not-permitted"]

    assert clone_names(khlone, project) == ["one", "two"]


def test_a_word_that_allows_nothing_is_told(inside: Inside, git: Git, project: Path) -> None:
    git("config", "--global", "khlone.session.allow", "remove,forse", cwd=project)

    found = refused(inside("prune"), "invalid-setting", 2)

    assert "forse" in found["message"]


def write_user_file(text: str) -> None:
    """Write the user's own settings."""
    path = Path(os.environ["XDG_CONFIG_HOME"], "khlone/config.toml")
    path.parent.mkdir(parents=True)
    path.write_text(text)
