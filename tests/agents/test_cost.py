"""A session that costs more than it may is ended with the reason, and a clone that has had all of a day starts none."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.agents.test_ask import INIT, RESULT, Claude, claude
from tests.commands.steps import document, new, refused
from tests.commands.test_resources import wait_for
from tests.commands.test_run import processes_of, project, run, supervisors
from tests.support import Khlone, run_git

__all__ = ["claude", "project", "run"]


def costing(*usd: float) -> list[dict[str, Any]]:
    """What a client prints that has cost so much after each turn."""
    return [INIT, *({**RESULT, "total_cost_usd": one} for one in usd)]


def budget_of(claude: Claude) -> list[str]:
    """What the client was told that it may cost, call by call."""
    return [words[words.index("--max-budget-usd") + 1] for words, _, _ in claude.asked() if "--max-budget-usd" in words]


def last(khlone: Khlone, project: Path, code: int) -> dict[str, Any]:
    """How the session of the clone ended."""
    (ended,) = document(khlone("wait", "one", "--json", cwd=project), "wait", code)["sessions"]
    assert isinstance(ended, dict)
    return ended


@pytest.mark.parametrize("start", [("ask", "one", "hello"), ("run", "one")])
def test_a_session_that_has_cost_more_than_it_may_is_ended_with_the_reason(
    khlone: Khlone, project: Path, claude: Claude, start: tuple[str, ...]
) -> None:
    claude.says(costing(0.4, 1.5))
    claude.hold.touch()
    command = () if start[0] == "ask" else ("--", "claude", "-p")
    words = (*start, "--detach", "--max-cost", "1.25", *command)

    assert khlone(*words, cwd=project).code == 0
    ended = last(khlone, project, 143)

    assert (ended["signal"], ended["reason"]) == (15, "it has cost 1.5000 USD, more than 1.2500 (--max-cost)")
    assert "it has cost 1.5000 USD" in khlone("logs", "one", cwd=project).out
    assert budget_of(claude) == (["1.25"] if start[0] == "ask" else [])
    assert processes_of(ended["id"]) == []


def test_one_that_costs_less_ends_by_itself_and_one_that_is_done_is_not_cut_short(
    khlone: Khlone, project: Path, claude: Claude
) -> None:
    claude.says(costing(0.4))
    within = khlone("ask", "one", "hello", "--max-cost", "0.5", cwd=project)
    beyond = document(khlone("ask", "one", "hello", "--max-cost", "0.3", "--json", cwd=project), "ask")

    assert (within.code, within.out) == (0, "done: 42\n")
    assert (beyond["session"]["exit"], beyond["answer"]["result"]) == (0, "done: 42")
    assert beyond["session"]["reason"] == "it has cost 0.4000 USD, more than 0.3000 (--max-cost)"
    wait_for(lambda: not supervisors())


def test_a_clone_that_has_had_all_of_a_day_starts_no_agent_until_the_next(
    khlone: Khlone, project: Path, claude: Claude
) -> None:
    run_git("config", "khlone.limits.cost", "1", cwd=project)
    claude.says(costing(0.75))
    new(khlone, project, "two", "--agent", "claude")

    codes = [khlone("ask", "one", "hello", cwd=project).code for _ in range(2)]
    over = refused(khlone("ask", "one", "hello", "--json", cwd=project), "over-budget", 75)
    single = khlone("exec", "one", "--", "claude", "-p", cwd=project)
    plain = khlone("run", "one", "--", "true", cwd=project)
    other = khlone("ask", "two", "hello", cwd=project)

    assert (codes, single.code, plain.code, other.code) == ([0, 0], 75, 0, 0)
    assert over["facts"] == {"name": "one", "limit_usd": 1.0, "spent_usd": 1.5}
    assert over["message"] == "one has cost 1.5000 USD today, and may cost 1 (khlone.limits.cost)"
    # The second was told what was left of the day, and ended by itself with more.
    assert budget_of(claude) == ["1", "0.25", "1"]
    assert len(claude.asked()) == 3
    database = Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3")
    with sqlite3.connect(database, timeout=60) as connection:
        connection.execute("UPDATE usage SET minute = minute - 1440")
    assert khlone("ask", "one", "hello", cwd=project).code == 0


def test_the_rest_of_a_day_bounds_a_session_that_runs(khlone: Khlone, project: Path, claude: Claude) -> None:
    run_git("config", "khlone.limits.cost", "0.5", cwd=project)
    claude.says(costing(0.6))
    claude.hold.touch()

    assert khlone("ask", "one", "hello", "--detach", "--max-cost", "9", cwd=project).code == 0

    assert last(khlone, project, 143)["reason"] == "it has cost 0.6000 USD, more than 0.5000 (khlone.limits.cost)"


@pytest.mark.parametrize("usd", ["0", "-1", "nan", "inf", "much", ""])
def test_an_amount_that_is_none_is_refused(khlone: Khlone, project: Path, claude: Claude, usd: str) -> None:
    refused(khlone("ask", "one", "hello", "--max-cost", usd, "--json", cwd=project), "usage", 2)
    refused(khlone("wait", "one", "--json", cwd=project), "no-such-session")


def test_what_tells_nobody_what_it_costs_has_no_such_bound(khlone: Khlone, project: Path, claude: Claude) -> None:
    plain = refused(khlone("run", "one", "-d", "--max-cost", "1", "--json", "--", "true", cwd=project), "cost-untold")
    terminal = khlone("run", "one", "--max-cost", "1", "--", "claude", "-p", cwd=project)
    refused(khlone("run", "one", "--max-cost", "1", "--json", "--", "true", cwd=project), "cost-untold")

    assert "--max-cost cannot be kept to" in plain["message"]
    assert (terminal.code, "--detach" in terminal.err) == (2, True)
    assert not claude.record.exists()
