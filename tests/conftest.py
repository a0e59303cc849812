"""The house in which every test runs: an account of its own, nothing of the machine's, no quiet skips."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests import support

#: What a test may want that a machine may lack. Only for these it is skipped.
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "needs_root": (lambda: os.geteuid() == 0, "needs root"),
    "needs_strace": (support.has_strace, "needs strace"),
    "needs_bubblewrap": (support.has_bubblewrap, "needs bubblewrap"),
    "needs_podman": (support.has_podman, "needs podman and runc, and busybox-static"),
    "needs_docker": (support.has_docker, "needs root, docker and dockerd, and busybox-static"),
    "needs_gh": (lambda: shutil.which("gh") is not None, "needs gh"),
    "needs_tmux": (lambda: shutil.which("tmux") is not None, "needs tmux"),
    "needs_git_254": (lambda: support.git_version() >= (2, 54), "needs git 2.54"),
}


#: Those of them that `.ci/run` installs: where skips are forbidden, that they are missing is a failure too.
INSTALLED = frozenset({"needs_bubblewrap", "needs_podman", "needs_gh", "needs_tmux"})


def _skips_are_forbidden() -> bool:
    return os.environ.get("KHLONE_FORBID_SKIPS") == "1"


def _why(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


def pytest_configure() -> None:
    """A run that was started in the background ignores SIGINT, and so would all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose marker names something that is not here."""
    for marker, (is_met, why) in NEEDS.items():
        if item.get_closest_marker(marker) is not None and not is_met():
            pytest.skip(why)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where skips are forbidden, the tests with a marker of `NEEDS` aside."""
    report = yield
    is_expected_failure = hasattr(report, "wasxfail")
    may_be_skipped = any(item.get_closest_marker(marker) for marker in NEEDS.keys() - INSTALLED)
    if report.skipped and not is_expected_failure and not may_be_skipped and _skips_are_forbidden():
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden in this run, and this test was skipped: {_why(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure where skips are forbidden."""
    report = yield
    if report.skipped and _skips_are_forbidden():
        report.outcome = "failed"
        report.longrepr = f"skips are forbidden in this run, and this was skipped: {_why(report.longrepr)}"
    return report


def _account(folder: Path) -> Iterator[None]:
    # A MonkeyPatch of our own: the `undo` of a test must not bring the machine's settings back.
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if support.is_foreign(name)]:
            patch.delenv(name)
        for name, value in support.make_account(folder).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def _account_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The account that fixtures of modules and of the session see."""
    yield from _account(tmp_path_factory.mktemp("session-account"))


@pytest.fixture(autouse=True)
def _account_of_the_test(_account_of_the_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A fresh account for each test, beside its `tmp_path`, which stays empty."""
    yield from _account(tmp_path_factory.mktemp("account"))


@pytest.fixture
def git() -> support.Git:
    """The real git: `git("status", cwd=path)` returns stdout."""
    return support.run_git


@pytest.fixture
def khlone() -> support.Khlone:
    """The real command: `khlone("new", "a", cwd=path)` returns a `Done`."""
    return support.run_khlone


@pytest.fixture
def commit() -> support.Commit:
    """`commit(path, {"file": "text"}, "message")` writes and commits; returns the oid."""
    return support.make_commit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small real repository in `tmp_path / "project"`."""
    return support.make_repository(tmp_path / "project")
