"""The documentation is true, as far as a machine can tell: its links, and every name of the code in it."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from khlone import faults
from khlone.model import CloneState
from khlone.parser import VERBS
from khlone.setting_table import SETTINGS
from tests.support import ROOT, Khlone

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "hooks").glob("*.md")], key=lambda path: str(path)
)
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONCURRENCY = ROOT / "docs" / "concurrency.md"
GLOSSARY = ROOT / "docs" / "glossary.md"
MAN = ROOT / "docs" / "git-khlone.1"

#: Words that stand where a verb would: what the reader has to fill in.
PLACEHOLDERS = {"VERB"}
#: Pages that other programs read in the user's repositories.
OF_AGENTS = {"SKILL.md", "AGENTS.md", "CLAUDE.md", "GEMINI.md"}
#: Where a function that a page names may live.
HOMES = ("khlone.operations", "khlone")


def text_of(path: Path) -> str:
    """A page as it stands."""
    return path.read_text(encoding="utf-8")


def prose(page: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def words(page: str) -> list[str]:
    """Everything that stands in backticks outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def anchors(page: str) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- links and paths -----------------------------------------------------------------------


def broken_links(path: Path) -> Iterator[str]:
    """The links of a page that lead nowhere, or out of the project's folder."""
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(text_of(path))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        is_there = target.is_relative_to(ROOT.resolve()) and target.exists()
        if not is_there or (anchor and anchor not in anchors(text_of(target))):
            yield link


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    assert list(broken_links(ROOT / name)) == []


@pytest.mark.parametrize(
    "link", ["no-such-page.md", "page.md#no-such-heading", "#neither", "../../../etc/hostname", "/etc/hostname"]
)
def test_a_broken_link_is_noticed(tmp_path: Path, link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_docs.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(f"# A heading: it's here\n\n[good](page.md#a-heading-its-here) [bad]({link})\n")

    assert list(broken_links(page)) == [link]


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_the_project_that_is_named_exists(name: str) -> None:
    named = [
        word
        for word in words(text_of(ROOT / name))
        if re.fullmatch(r"(khlone|plugins|tests|docs|hooks)/[\w./-]+", word)
    ]

    assert [word for word in named if not (ROOT / word).exists()] == []


def test_every_page_that_the_code_names_exists() -> None:
    named = {word for name in modules() for word in re.findall(r"\bdocs/[\w./-]+\w", text_of(ROOT / name))}

    assert "docs/architecture.md" in named
    assert {word for word in named if not (ROOT / word).exists()} == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_page_speaks_of_the_project_alone(name: str) -> None:
    page = text_of(ROOT / name)

    assert str(ROOT) not in page, "the place of this checkout"
    assert re.findall(r"(?:^|[\s(])(?:#|GH-)\d+\b|/(?:issues|pull)/\d+", page) == [], "an issue of a tracker"
    capitals = set(re.findall(r"\b[A-Z][A-Z-]+\.md\b", page)) - OF_AGENTS
    assert {word for word in capitals if not (ROOT / word).exists()} == set(), "a page that a reader does not have"


# -- names of the code ---------------------------------------------------------------------


def modules() -> set[str]:
    """Every module of the package and of the plugins."""
    found = [*(ROOT / "khlone").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    return {str(path.relative_to(ROOT)) for path in found}


def test_the_architecture_names_every_module_and_none_that_does_not_exist() -> None:
    named = {word for word in words(text_of(ARCHITECTURE)) if word.endswith(".py")}
    full = {word if (ROOT / word).exists() else f"khlone/{word}" for word in named}

    assert {word for word in full if not word.startswith("tests/")} == modules()


def test_the_floors_are_those_of_the_import_contract() -> None:
    contracts = tomllib.loads(text_of(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    floors: dict[str, set[int]] = {}
    for number, part in re.findall(r"^### (\d):(.*?)(?=^##|\Z)", text_of(ARCHITECTURE), flags=re.MULTILINE | re.DOTALL):
        for module in re.findall(r"^\| .*?\| ", part, flags=re.MULTILINE):
            for name in re.findall(r"`(\w+)(?:/\w+)?(?:\.py)`", module):
                floors.setdefault(name, set()).add(int(number))

    found = [[floors[name] for name in layer.split(" | ")] for layer in layers]

    assert all(len(set.union(*layer)) == 1 for layer in found), "a layer lies on one floor"
    numbers = [min(layer[0]) for layer in found]
    assert numbers == sorted(numbers, reverse=True)
    assert set(numbers) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("path", [ARCHITECTURE, CONCURRENCY], ids=lambda path: path.stem)
def test_every_function_that_is_named_exists(path: Path) -> None:
    named = {word for word in words(text_of(path)) if re.fullmatch(r"\w+\.\w+\(\)", word)}

    assert len(named) > 1
    assert {word for word in named if not is_function(word)} == set()


def is_function(word: str) -> bool:
    """Whether `module.function()` is one of khlone's."""
    module, _, function = word.removesuffix("()").partition(".")
    for home in HOMES:
        try:
            found = importlib.import_module(f"{home}.{module}")
        except ModuleNotFoundError:
            continue
        if callable(getattr(found, function, None)):
            return True
    return False


def test_a_function_that_does_not_exist_is_noticed() -> None:
    assert is_function("create.create()")
    assert is_function("cli.run()")
    assert not is_function("create.no_such_function()")
    assert not is_function("no_such_module.create()")


def test_the_architecture_names_every_state_of_a_clone() -> None:
    page = text_of(ARCHITECTURE).partition("## A clone's life")[2].partition("\n## ")[0]

    assert {state.value for state in CloneState if state.value not in page} == set()


def test_every_fault_point_has_its_step_and_no_other_is_named() -> None:
    page = text_of(CONCURRENCY)
    operations = "|".join(sorted({point.partition(".")[0] for point in faults.POINTS}))

    named = re.findall(rf"`((?:{operations})\.[a-z-]+)`", page)

    assert set(named) == set(faults.POINTS)
    assert len(named) == len(set(named)), "one step each"


def test_the_steps_stand_in_the_order_in_which_they_are_taken() -> None:
    page = text_of(CONCURRENCY)
    steps = [point for point in faults.POINTS if point != "merge.recover-restored"]

    assert sorted(steps, key=lambda point: page.index(f"`{point}`")) == steps


def test_the_glossary_is_in_the_order_of_the_alphabet() -> None:
    for part in text_of(GLOSSARY).split("\n## ")[1:]:
        terms = re.findall(r"^- \*\*([^*]+)\*\*:", part, flags=re.MULTILINE)

        assert len(terms) > 10
        assert len(re.findall(r"^- ", part, flags=re.MULTILINE)) == len(terms)
        assert sorted(terms) == terms


# -- the command ---------------------------------------------------------------------------


def mentioned_verbs(text: str) -> set[str]:
    """What follows `git khlone` in a text, options left out."""
    found = re.findall(r"\bgit khlone((?: -C \S+| --json| --quiet)*) ([A-Za-z]+)", text)
    return {verb for _, verb in found}


@pytest.mark.parametrize("name", [*NAMES, "docs/git-khlone.1"])
def test_every_verb_that_is_named_exists(name: str) -> None:
    page = text_of(ROOT / name)
    fenced = re.findall(r"^```.*?^```$", page, flags=re.MULTILINE | re.DOTALL)
    typed = re.findall(r"^\$ .*$", page.replace("\\-", "-"), flags=re.MULTILINE)

    found = mentioned_verbs("\n".join([*words(page), *fenced, *typed]))

    assert found - set(VERBS) - PLACEHOLDERS == set()


def test_a_verb_that_does_not_exist_is_noticed() -> None:
    assert mentioned_verbs("git khlone -C x frobnicate a; git khlone new b") == {"frobnicate", "new"}


def options_of_help(shown: str) -> set[str]:
    """The options that a `-h` lists."""
    found: set[str] = set()
    for line in shown.splitlines():
        listed = re.match(r"  (-[\w-]+)(?:, (--[\w-]+))?", line)
        if listed is not None:
            found |= {option for option in listed.groups() if option}
    return found


def plain(roff: str) -> str:
    """A line of the man page without its marks."""
    return re.sub(r"^\.[A-Z]+ ", "", re.sub(r"\\f[A-Z]|\"", "", roff.replace("\\-", "-")))


def options_in(lines: list[str]) -> set[str]:
    """Every option that some lines of the man page name."""
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", "\n".join(map(plain, lines))))


def section(name: str) -> list[str]:
    """The lines of one section of the man page."""
    return text_of(MAN).partition(f"\n.SH {name}\n")[2].partition("\n.SH ")[0].splitlines()


def verbs_of_man() -> dict[str, list[str]]:
    """The lines of each verb's entry, in the order of the man page."""
    found: dict[str, list[str]] = {}
    entry: list[str] = []
    depth, lines = 0, iter(section("VERBS"))
    for line in lines:
        depth += (line == ".RS") - (line == ".RE")
        if line == ".TP" and depth == 0:
            tag = next(lines)
            entry = found.setdefault(plain(tag).split()[0], [])
            entry.append(tag)
        elif not line.startswith(".SS"):
            entry.append(line)
    return found


def test_the_man_page_has_every_verb_and_no_other(khlone: Khlone, tmp_path: Path) -> None:
    shown = khlone("-h", cwd=tmp_path).out.partition("Verbs:\n")[2]
    listed = re.findall(r"^  ([a-z]+) ", shown, flags=re.MULTILINE)

    assert set(listed) == set(VERBS)
    assert list(verbs_of_man()) == listed


def test_the_man_page_has_every_option_of_the_command_and_no_other(khlone: Khlone, tmp_path: Path) -> None:
    assert options_in(section("OPTIONS")) == options_of_help(khlone("-h", cwd=tmp_path).out)


@pytest.mark.parametrize("verb", VERBS)
def test_the_man_page_has_every_option_of_a_verb_and_no_other(verb: str, khlone: Khlone, tmp_path: Path) -> None:
    everywhere = options_in(section("OPTIONS"))
    shown = khlone(verb, "-h", cwd=tmp_path)

    assert shown.code == 0
    assert options_in(verbs_of_man()[verb]) - everywhere == options_of_help(shown.out) - everywhere


def test_the_man_page_has_every_setting_and_no_other() -> None:
    tags = [
        plain(line).replace(" ", "")
        for line in section("CONFIGURATION")
        if line.startswith((".B khlone.", ".BI khlone."))
    ]
    named = [tag.removeprefix("khlone.").replace("NAME", "*") for tag in tags]

    # One entry for all that can be said of an agent.
    assert sorted(named) == sorted({re.sub(r"^agents\..*", "agents.*.KEY", one.key) for one in SETTINGS})


def faults_of_man(page: Path) -> str:
    """What a formatter has to say against a man page: the first of groff and mandoc that is there."""
    for argv in (["groff", "-man", "-t", "-Tutf8", "-ww", "-z"], ["mandoc", "-T", "lint", "-W", "warning"]):
        if shutil.which(argv[0]) is not None:
            done = subprocess.run([*argv, page], capture_output=True, stdin=subprocess.DEVNULL, check=False, timeout=60)
            return (done.stdout + done.stderr).decode()
    lines = page.read_text(encoding="utf-8").splitlines()
    pairs = ((".RS", ".RE"), (".TS", ".TE"), (".EX", ".EE"), (".SY", ".YS"))
    return " ".join(
        f"{begin} without {end}"
        for begin, end in pairs
        if sum(line.split(" ")[0] == begin for line in lines) != lines.count(end)
    )


def test_the_man_page_is_well_formed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.1"
    broken.write_text(text_of(MAN).replace("\n.TE\n", "\n", 1))

    assert faults_of_man(MAN) == ""
    assert faults_of_man(broken) != ""
