"""The house stands as docs/architecture.md says: floors, who may touch what, sizes, docstrings, a light door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

MODULES = sorted([*(ROOT / "khlone").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]

MOST_LINES = 500
#: Modules that may be longer, and why.
LONGER = {
    "khlone/errors.py": "a list, one short class a cause, looked up and not read through",
    "khlone/setting_table.py": "a list, one short entry a setting, looked up in the same way",
    "khlone/hookspecs.py": "the reference of the hooks, one docstring with an example each, looked up in the same way",
}

#: The only modules that may import a library; a name that ends with / is a whole package.
IMPORTERS = {
    "git": {"khlone/repository.py"},
    "filelock": {"khlone/locks.py"},
    "psutil": {"khlone/sessions.py", "khlone/capacity.py"},
    "rich": {"khlone/live.py"},
    "tomlkit": {"khlone/operations/setting_edits.py"},
    "subprocess": {"khlone/process.py", "khlone/children.py"},
    "click": {"khlone/parser.py", "khlone/commands/"},
}
#: What costs too much to be loaded by `import khlone`.
HEAVY = {"click", "git", "psutil", "filelock", "pluggy", "sqlite3", "tomlkit", "rich"}


def parsed(name: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level packages imported anywhere in a tree, for type checking alone aside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING":
            for other in node.orelse:
                yield from imported(ast.Module([other], []))
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        yield from imported(node)


def is_allowed(name: str, importers: set[str]) -> bool:
    """Whether a module is among the importers, or inside one of their packages."""
    return any(name == one or (one.endswith("/") and name.startswith(one)) for one in importers)


def undocumented(body: list[ast.stmt], before: str = "") -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield f"{before}{node.name} (line {node.lineno})"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node.body, f"{before}{node.name}.")


def test_imports_keep_the_contracts() -> None:
    lint = Path(sys.executable).parent / "lint-imports"

    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=120
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_modules_are_found() -> None:
    assert {"khlone/errors.py", "khlone/operations/create.py", "plugins/khlone_plugins/claude.py"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_module_answers_one_question_in_five_hundred_lines(name: str) -> None:
    lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())

    assert (lines > MOST_LINES) == (name in LONGER), f"{name} has {lines} lines; LONGER names those above {MOST_LINES}"


def test_every_reason_for_a_longer_module_is_about_one_that_exists() -> None:
    assert set(LONGER) <= set(NAMES)
    assert all(LONGER.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_library_is_imported_by_its_adapter_alone(name: str) -> None:
    found = {library for library in imported(parsed(name)) if library in IMPORTERS}

    assert {library for library in found if not is_allowed(name, IMPORTERS[library])} == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import git.cmd", {"git"}),
        ("def f():\n    from psutil import Process", {"psutil"}),
        ("try:\n    import click\nexcept ImportError:\n    import filelock", {"click", "filelock"}),
        ("if TYPE_CHECKING:\n    import subprocess\nelse:\n    import git", {"git"}),
        ("from .git import x", set()),
    ],
)
def test_an_import_is_seen_wherever_it_stands(source: str, found: set[str]) -> None:
    assert set(imported(ast.parse(source))) == found


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("khlone/")])
def test_everything_public_says_what_it_promises(name: str) -> None:
    tree = parsed(name)

    assert ast.get_docstring(tree), f"{name} does not say which question it answers"
    assert list(undocumented(tree.body)) == []


def loaded_by(statement: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after a statement."""
    show = f"import sys; {statement}; print(*(set(sys.modules) & set({sorted(HEAVY)!r})))"
    done = subprocess.run([sys.executable, "-c", show], cwd=ROOT, capture_output=True, check=True, text=True)
    return set(done.stdout.split())


def test_importing_khlone_loads_nothing_heavy() -> None:
    assert loaded_by("import khlone") == set()
    assert loaded_by("import khlone.cli") == set()


def test_what_a_plugin_imports_loads_pluggy_alone() -> None:
    assert loaded_by("from khlone import hookimpl, Refusal, AgentProfile") == {"pluggy"}
