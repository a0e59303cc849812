"""`config` shows every setting with its place, and changes one key while every other byte stays."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from khlone.errors import InvalidSetting
from khlone.operations import setting_edits
from khlone.setting_table import SETTINGS
from tests.commands.steps import at_once, document, refused
from tests.support import Done, Git, Khlone, write


def user_path() -> Path:
    """The user's own file."""
    return Path(os.environ["XDG_CONFIG_HOME"], "khlone", "config.toml")


def user_file(text: str) -> Path:
    """Write the user's own file."""
    path = user_path()
    write(path.parent, {path.name: text})
    return path


def rows(done: Done) -> dict[str, dict[str, Any]]:
    """The settings of a document by their keys."""
    return {row["key"]: row for row in document(done, "config")["settings"]}


def config(khlone: Khlone, where: Path, *words: str) -> Done:
    """A change that is made."""
    done = khlone("config", *words, cwd=where)
    assert done.code == 0, done
    return done


# -- looking -------------------------------------------------------------------------------


def test_every_setting_is_shown_with_value_and_place(khlone: Khlone, repository: Path, git: Git) -> None:
    user = user_file('# mine\n[trash]\nage = "1w"\n[gate]\ntests = "make test"\n')
    write(repository, {".khlone.toml": "\ntarget = 'main'\n"})
    git("config", "khlone.durable", "false", cwd=repository)

    done = khlone("config", cwd=repository, env={"KHLONE_SYNC": "rebase"})

    shown = {line.split()[0]: line.split()[-1] for line in done.out.splitlines()}
    assert shown["khlone.trash.age"] == f"{user}:3"
    assert shown["khlone.gate.tests"] == f"{user}:5"
    assert shown["khlone.target"] == f"{repository}/.khlone.toml:2"
    assert shown["khlone.durable"].startswith(f"{repository}/.git/config:")
    assert shown["khlone.sync"] == "KHLONE_SYNC"
    assert shown["khlone.agent"] == "default"
    assert {f"khlone.{one.key}" for one in SETTINGS if not one.is_pattern} <= set(shown)


def test_the_line_of_a_value_of_git_is_where_git_has_it(khlone: Khlone, repository: Path, git: Git) -> None:
    included = repository.parent / "included"
    included.write_text("[khlone]\n\tagent = one\n\n\tagent = generic\n")
    git("config", "include.path", str(included), cwd=repository)

    row = rows(khlone("config", "get", "KHLONE.Agent", "--json", cwd=repository))["khlone.agent"]

    assert (row["value"], row["file"], row["line"]) == ("generic", str(included), 4)


def test_get_prints_the_value_alone_and_tells_where_it_is_from(khlone: Khlone, repository: Path) -> None:
    default = khlone("config", "get", "worktree", cwd=repository)
    nothing = khlone("config", "get", "khlone.target", cwd=repository)

    assert default.out == "{parent}/{repository}.clones/{folder}\n"
    assert "default" in default.err
    assert (nothing.code, nothing.out) == (0, "")
    assert "not set" in nothing.err


def test_outside_of_a_repository_the_users_settings_are_shown_and_changed(
    khlone: Khlone, tmp_path: Path, git: Git
) -> None:
    git("config", "--global", "khlone.agent", "generic", cwd=tmp_path)
    config(khlone, tmp_path, "set", "--user", "durable", "no")

    found = rows(khlone("config", "--json", cwd=tmp_path))

    assert (found["khlone.agent"]["value"], found["khlone.durable"]["value"]) == ("generic", "false")
    assert refused(khlone("config", "set", "durable", "no", "--json", cwd=tmp_path), "usage", 2)["hint"]


def test_a_value_that_cannot_be_used_is_shown_and_told(khlone: Khlone, repository: Path) -> None:
    path = user_file('[trash]\nage = "old"\n')

    done = khlone("config", cwd=repository)

    assert done.code == 0
    assert f"{path}:2: khlone.trash.age: it must be a number with s, m, h, d or w" in done.err


# -- changing ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["--user", "--project", "--repository"])
def test_what_is_set_is_in_force_and_gone_again_when_unset(khlone: Khlone, repository: Path, place: str) -> None:
    before = {path: path.read_bytes() for path in (repository / ".git/config",)}

    config(khlone, repository, "set", "Trash.Age", "9d", place)
    row = rows(khlone("config", "get", "khlone.trash.age", "--json", cwd=repository))["khlone.trash.age"]
    config(khlone, repository, "unset", "khlone.trash.age", place)

    assert row["value"] == "9d"
    assert row["source"] == {"--user": "user", "--project": "project", "--repository": "git"}[place]
    after = rows(khlone("config", "get", "trash.age", "--json", cwd=repository))["khlone.trash.age"]
    assert (after["value"], after["source"]) == ("30d", "default")
    assert {path: path.read_bytes().replace(b'[khlone "trash"]\n', b"") for path in before} == before
    again = config(khlone, repository, "unset", "khlone.trash.age", place)
    assert "nothing changed" in again.err


COMMENTED = """# first of all
agent   =   "claude"     # the one

# about trash
[trash]   # a header
# how old
age = "1w"  # a week
'size' = 5
[ gate ]
tests = '''
make
'''
# the end"""


def test_comments_order_and_mode_stay(khlone: Khlone, repository: Path) -> None:
    path = user_file(COMMENTED)
    path.chmod(0o640)

    config(khlone, repository, "set", "trash.age", "2w", "--user")
    config(khlone, repository, "set", "agent", "generic", "--user")
    config(khlone, repository, "set", "trash.size", "1G", "--user")

    assert path.read_text() == COMMENTED.replace('"1w"', '"2w"').replace('"claude"', '"generic"').replace(
        "= 5", '= "1G"'
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_of_the_users_is_private_and_nothing_else_is_left(khlone: Khlone, repository: Path) -> None:
    config(khlone, repository, "set", "trash.age", "2w", "--user")

    assert stat.S_IMODE(user_path().stat().st_mode) == 0o600
    assert [path.name for path in user_path().parent.iterdir()] == ["config.toml"]


#: (text, key, value, what must be there afterwards)
INSERTS = [
    ("", "agent", "x", 'agent = "x"\n'),
    ("", "trash.age", "1d", '[trash]\nage = "1d"\n'),
    ("[trash]\nsize = 1\n", "trash.age", "1d", '[trash]\nsize = 1\nage = "1d"\n'),
    ("[trash]\nsize = 1\n", "agent", "x", 'agent = "x"\n\n[trash]\nsize = 1\n'),
    ("trash = { size = 1 }\n", "trash.age", "1d", 'trash = { size = 1, age = "1d"}\n'),
    ("trash.size = 1\n", "trash.age", "1d", None),
    ('"trash.age" = "2d" # why\n', "trash.age", "1d", '"trash.age" = "1d" # why\n'),
    ("allow-network-file-system = true\n", "allowNetworkFileSystem", False, "allow-network-file-system = false\n"),
    ("plugins = ['a']\n", "plugins.timeout", 3, "plugins = ['a']\n\"plugins.timeout\" = 3\n"),
    ("[agents.one]\nvariable = 'A'\n", "agents.Two.variable", "B", None),
    ("[a]\nb = 1\n[c]\nd = 1\n[a.e]\nf = 1\n", "a.g", "x", None),
    ("a = 1\r\nb = 2\r\n", "a", 3, "a = 3\r\nb = 2\r\n"),
]


@pytest.mark.parametrize(("text", "key", "value", "wanted"), INSERTS)
def test_a_key_goes_where_it_belongs(text: str, key: str, value: object, wanted: str | None, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"

    after = setting_edits.with_value(text, key, value, path)

    if wanted is not None:
        assert after == wanted
    assert setting_edits.with_value(after, key, value, path) == after
    if key.lower() not in setting_edits._flat(text, path):
        assert setting_edits._flat(setting_edits.without(after, key, path), path) == setting_edits._flat(text, path)


@pytest.mark.parametrize(
    ("text", "key"), [("[plugins]\na = 1\n", "plugins"), ("trash = 1\n", "trash.age"), ("a = ", "agent"), ("\0", "x")]
)
def test_a_file_in_which_there_is_no_place_is_refused(text: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"config\.toml"):
        setting_edits.with_value(text, key, "x", tmp_path / "config.toml")


def test_a_change_that_would_change_more_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(document: Any, *_: object) -> None:
        document.clear()

    monkeypatch.setattr(setting_edits, "_insert", lose)
    path = tmp_path / "config.toml"
    path.write_text("a = 1\n")

    with pytest.raises(Exception, match="cannot be changed without changing more"):
        setting_edits.change(path, lambda text: setting_edits.with_value(text, "b", 1, path), mode=0o600)

    assert path.read_text() == "a = 1\n"


def test_changes_at_once_lose_none(khlone: Khlone, repository: Path) -> None:
    names = [f"gate.n{number}" for number in range(6)]

    def put(name: str) -> Callable[[], Done]:
        return lambda: khlone("config", "set", "--user", name, "true", cwd=repository)

    done = at_once([put(name) for name in names])

    assert {one.code for one in done} == {0}
    assert all(name.partition(".")[2] in user_path().read_text() for name in names)


def test_a_value_that_another_place_beats_is_told(khlone: Khlone, repository: Path) -> None:
    config(khlone, repository, "set", "agent", "claude")

    done = config(khlone, repository, "set", "agent", "generic", "--user")

    assert "warning: in force is what" in done.err
    assert ".git/config:" in done.err


REFUSED = [
    (("set", "trash.agee", "1d"), "usage"),
    (("set", "trash.age", "old"), "invalid-setting"),
    (("set", "worktree", "x", "--project"), "usage"),
    (("set", "hooks", "all", "--user"), "usage"),
    (("set", "gate.tests", "make", "--project"), "usage"),
    (("set", "agent"), "usage"),
    (("get",), "usage"),
    (("get", "no.such"), "usage"),
    (("list", "more"), "usage"),
    (("list", "--user"), "usage"),
    (("edit", "--repository"), "usage"),
    (("frobnicate",), "usage"),
]


@pytest.mark.parametrize(
    ("words", "code"), REFUSED, ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    khlone: Khlone, repository: Path, words: tuple[str, ...], code: str
) -> None:
    before = (repository / ".git/config").read_bytes()

    found = refused(khlone("--json", "config", *words, cwd=repository), code, 2)

    assert found["hint"]
    assert (repository / ".git/config").read_bytes() == before
    assert not user_path().exists()
    assert not (repository / ".khlone.toml").exists()


@pytest.mark.parametrize("variable", ["KHLONE_SESSION", "KHLONE_HOOK"])
@pytest.mark.parametrize("words", [("set", "gate.tests", "true"), ("unset", "gate.tests"), ("edit",)])
def test_what_decides_about_a_session_is_not_changed_inside_it(
    khlone: Khlone, repository: Path, variable: str, words: tuple[str, ...]
) -> None:
    done = khlone("--json", "config", *words, cwd=repository, env={variable: "x", "GIT_EDITOR": "false"})

    refused(done, "not-permitted", 77)


def test_a_value_that_looks_like_an_option_is_one_value(khlone: Khlone, repository: Path, git: Git) -> None:
    config(khlone, repository, "set", "gate.tests", "--", "--global")

    assert git("config", "khlone.gate.tests", cwd=repository) == "--global\n"


# -- the editor ----------------------------------------------------------------------------


def editor(folder: Path, code: str) -> dict[str, str]:
    """An editor that is a program: `text` is the file's text before and after."""
    script = folder / "an editor.py"
    script.write_text(
        f"import sys\npath = sys.argv[-1]\ntext = open(path).read()\n{code}\nopen(path, 'w').write(text)\n"
    )
    return {"GIT_EDITOR": f"'{sys.executable}' '{script}'"}


@pytest.mark.parametrize("place", ["--user", "--project"])
def test_what_the_editor_makes_is_put_in_place(khlone: Khlone, repository: Path, tmp_path: Path, place: str) -> None:
    path = user_file("# mine\n") if place == "--user" else repository / ".khlone.toml"
    path.write_text("# mine\n")

    done = khlone("config", "edit", place, cwd=repository, env=editor(tmp_path, "text += 'agent = \"generic\"\\n'"))

    assert done.code == 0, done
    assert path.read_text() == '# mine\nagent = "generic"\n'
    assert "is changed" in done.err


@pytest.mark.parametrize("text", ["a = 1\nagent = \n", '[trash]\nage = "old"\n'])
def test_what_cannot_be_used_is_not_put_in_place_and_not_lost(
    khlone: Khlone, repository: Path, tmp_path: Path, text: str
) -> None:
    path = user_file("# mine\n")

    done = khlone("config", "edit", "--json", cwd=repository, env=editor(tmp_path, f"text = {text!r}"))

    found = refused(done, "invalid-setting", 2)
    assert path.read_text() == "# mine\n"
    assert f"{path}:2: " in found["message"]
    assert Path(found["hint"].rpartition(" ")[2]).read_text() == text


@pytest.mark.parametrize("code", ["pass", "sys.exit(1)"])
def test_an_editor_that_changes_nothing_changes_nothing(
    khlone: Khlone, repository: Path, tmp_path: Path, code: str
) -> None:
    done = khlone("config", "edit", cwd=repository, env={**editor(tmp_path, code), "TMPDIR": str(tmp_path)})

    assert done.code == (0 if code == "pass" else 77)
    assert not user_path().exists()
    assert [one for one in os.listdir(tmp_path) if one.startswith("khlone-config-")] == []


def test_what_was_typed_is_kept_where_the_editor_fails(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    env = editor(tmp_path, "open(path, 'w').write('# typed\\n')\nsys.exit(1)")

    done = khlone("config", "edit", cwd=repository, env={**env, "TMPDIR": str(tmp_path)})

    assert done.code == 77
    assert [one.read_text() for one in tmp_path.glob("khlone-config-*/config.toml")] == ["# typed\n"]


def test_a_file_that_somebody_else_changed_meanwhile_is_kept(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    path = user_file("# mine\n")
    code = f"text += '# edited\\n'; open({str(path)!r}, 'a').write('# theirs\\n')"

    done = khlone("config", "edit", cwd=repository, env=editor(tmp_path, code))

    assert done.code == 77
    assert "changed since" in done.err
    assert path.read_text() == "# mine\n# theirs\n"


def test_a_file_that_cannot_be_read_is_mended_with_the_editor(khlone: Khlone, repository: Path, tmp_path: Path) -> None:
    path = user_file("agent = \n")

    done = khlone("config", "edit", cwd=repository, env=editor(tmp_path, "text = 'agent = \"generic\"\\n'"))

    assert done.code == 0, done
    assert path.read_text() == 'agent = "generic"\n'


# -- editors that know schemas ---------------------------------------------------------------


def test_the_schema_is_printed_as_it_is_stored(khlone: Khlone, repository: Path) -> None:
    from tests.support import ROOT

    stored = (ROOT / "docs/schema/khlone.toml.json").read_text()

    assert khlone("config", "schema", cwd=repository).out == stored
    assert khlone("--json", "config", "schema", cwd=repository.parent).out == stored
    assert json.loads(khlone("config", "schema", "--user", cwd=repository).out)["properties"]["worktree"]
