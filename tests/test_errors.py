"""Every error code is documented with its exit code, and nothing else is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest

import khlone
from khlone import errors
from khlone.errors import KhloneError
from tests.support import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
#: Codes that the command line gives without a class of their own.
OF_THE_COMMAND_LINE = {"bug": "3", "interrupted": "128+n"}
#: What scripts were promised from the first version on: these words may never go.
PROMISED = {
    "not-a-repository",
    "git-too-old",
    "repository-unsupported",
    "no-such-clone",
    "clone-exists",
    "branch-exists",
    "branch-checked-out",
    "illegal-name",
    "name-collides",
    "no-such-ref",
    "unborn-head",
    "no-target",
    "target-mismatch",
    "target-dirty",
    "target-moved",
    "target-in-progress",
    "conflict",
    "gate-failed",
    "nothing-to-merge",
    "clone-dirty",
    "not-integrated",
    "has-changes",
    "session-live",
    "clone-busy",
    "no-such-trash",
    "identity-missing",
    "not-trusted",
    "vetoed",
    "locked",
    "no-space",
    "registry-newer",
    "not-permitted",
}


def error_classes() -> list[type[KhloneError]]:
    """Every class of error that a module of khlone has, the base aside."""
    found: set[type[KhloneError]] = set()
    for module in pkgutil.walk_packages(khlone.__path__, "khlone."):
        for value in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(value) and issubclass(value, KhloneError) and value is not KhloneError:
                found.add(value)
    return sorted(found, key=lambda kind: kind.code)


def documented() -> list[tuple[str, str]]:
    """(code, exit) of every row of the table of codes."""
    table = PAGE.partition("\n## Codes\n")[2]
    return re.findall(r"^\| `([^`]+)` \| ([^ |]+) \| [^|]+[^| ] \| [^|]+[^| ] \|$", table, flags=re.MULTILINE)


def test_every_code_is_documented_with_its_exit_code_and_nothing_else_is() -> None:
    raised = {kind.code: str(kind.exit_code) for kind in error_classes()}

    assert dict(documented()) == {**raised, **OF_THE_COMMAND_LINE}


def test_every_row_of_the_table_is_read_and_no_code_stands_twice() -> None:
    rows = [line for line in PAGE.partition("\n## Codes\n")[2].splitlines() if line.startswith("| `")]
    codes = [code for code, _ in documented()]

    assert len(rows) == len(codes) == len(set(codes))


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in error_classes()]

    assert len(codes) == len(set(codes))
    assert KhloneError.code not in codes


def test_what_scripts_were_promised_is_still_there() -> None:
    assert PROMISED - {kind.code for kind in error_classes()} == set()


def test_every_exit_code_is_one_of_the_contract_and_explained() -> None:
    contract = {value for name, value in vars(errors).items() if name.startswith("EXIT_")} - {errors.EXIT_SIGNAL}
    explained = set(re.findall(r"^\| (\d+) \|", PAGE.partition("\n## Codes\n")[0], flags=re.MULTILINE))

    assert {kind.exit_code for kind in error_classes()} <= contract
    assert explained == {str(value) for value in contract}


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.code)
def test_a_code_is_kebab_case(kind: type[KhloneError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
