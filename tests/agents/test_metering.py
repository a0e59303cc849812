"""What agents say of limits of their API holds new sessions back, and what they have used is summed up."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from collections.abc import Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from khlone.agent_events import Evidence, Reader, Tokens, counted, evidence_of, tokens_of
from khlone.api_rows import ApiLimit
from khlone.operations.admission import allowed
from khlone.profiles import AgentReading
from tests.agents.steps import on_path, program
from tests.commands.steps import document, new, refused
from tests.faults.test_clock import clock
from tests.support import Khlone, write

NOW = 1_800_000_000.0
READING = AgentReading(output="jsonl", rate_limit="type=rate_limit_event")
RFC = "2027-01-15T08:01:30Z"
RESULT = {
    "type": "result",
    "is_error": False,
    "session_id": "s-1",
    "usage": {
        "input_tokens": 100,
        "output_tokens": 20,
        "cache_read_input_tokens": 3000,
        "cache_creation_input_tokens": 400,
    },
    "total_cost_usd": 0.25,
}


# -- what an event says ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "status", "seconds", "is_told"),
    [
        ({"type": "system", "subtype": "api_retry", "error_status": 429, "retry_delay_ms": 700}, 429, 60, False),
        ({"subtype": "api_retry", "attempt": 1, "retry_delay_ms": 620, "error_status": 429}, 429, 60, False),
        ({"subtype": "api_retry", "attempt": 3, "retry_delay_ms": 2500, "error_status": 429}, 429, 60, False),
        ({"subtype": "api_retry", "attempt": 1, "retry_delay_ms": 9000, "error_status": 429}, 429, 9, True),
        ({"subtype": "api_retry", "attempt": True, "retry_delay_ms": 9000, "error_status": 429}, 429, 60, False),
        ({"type": "system", "subtype": "api_retry", "error_status": 529}, 529, 30, False),
        ({"type": "result", "is_error": True, "api_error_status": 429, "retry-after": "120"}, 429, 120, True),
        ({"error_status": 429, "headers": {"retry-after": formatdate(NOW + 90, usegmt=True)}}, 429, 90, True),
        ({"api_error": "usage_limit_reached", "resetsAt": NOW + 3600}, 429, 3600, True),
        ({"api_error": "usage_limit_reached", "resetsAt": (NOW + 3600) * 1000}, 429, 3600, True),
        (
            {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": NOW + 50}},
            429,
            50,
            True,
        ),
        (
            {
                "error_status": 429,
                "headers": {
                    "anthropic-ratelimit-requests-remaining": "0",
                    "anthropic-ratelimit-requests-reset": RFC,
                    "anthropic-ratelimit-input-tokens-remaining": "12",
                    "anthropic-ratelimit-input-tokens-reset": "2027-01-15T09:00:00Z",
                },
            },
            429,
            90,
            True,
        ),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, 529, 30, False),
        ({"error_status": 429, "resetsAt": NOW - 5}, 429, 60, False),
        ({"error_status": 429, "retry_after": 10**9}, 429, 8 * 86400, True),
    ],
)
def test_a_limit_is_seen_with_its_end(event: dict[str, Any], status: int, seconds: float, is_told: bool) -> None:
    found = evidence_of(event, READING, NOW)

    assert found is not None
    assert (found.status, round(found.until_s - NOW), found.is_told) == (status, seconds, is_told)


@pytest.mark.parametrize(
    "event",
    [
        RESULT,
        {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed_warning", "resetsAt": NOW + 50}},
        {"type": "other_event", "rate_limit_info": {"status": "rejected", "resetsAt": NOW + 50}},
        {"type": "system", "subtype": "api_retry", "error_status": 500, "retry_delay_ms": 700},
        {"type": "assistant", "message": {"id": "m", "content": "the API says 429, retry-after: 5"}},
        {"status": True, "message": {"error_status": "429"}},
        {},
    ],
)
def test_nothing_else_is_taken_for_a_limit(event: dict[str, Any]) -> None:
    assert evidence_of(event, READING, NOW) is None


def test_lines_are_read_however_they_are_cut() -> None:
    content = b'\nno json\n{"a": 1}\n{"b": \xff}\n[1]\n{"c": {"d": 2}}\n{"e": 3}'
    reader = Reader()

    found = [event for at in range(len(content)) for event in reader.feed(content[at : at + 1])]

    assert found == [{"a": 1}, {"c": {"d": 2}}]
    assert list(reader.end()) == [{"e": 3}]


def test_tokens_of_an_answer_are_those_of_its_message() -> None:
    event = {"type": "assistant", "message": {"id": "m1", "usage": {"input_tokens": 5, "output_tokens": True}}}

    assert tokens_of(event) == Tokens(key="m1", input=5)
    assert tokens_of({**event, "isApiErrorMessage": True}) is None
    assert tokens_of({"type": "user", "message": {"content": "x"}}) is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"input_tokens": 9, "cached_input_tokens": 5, "output_tokens": 2},
            Tokens(key="", input=4, cache_read=5, output=2),
        ),
        (
            {"input": 7, "output": 3, "cache": {"read": 2, "write": 1}},
            Tokens(key="", input=7, output=3, cache_read=2, cache_creation=1),
        ),
        ({"cache": 3, "input": "x"}, Tokens(key="")),
    ],
)
def test_tokens_are_counted_by_the_names_of_each_api(usage: dict[str, Any], expected: Tokens) -> None:
    assert counted("", usage) == expected


def test_after_a_limit_one_may_start_and_then_one_more_by_and_by() -> None:
    limit = ApiLimit(credential="c", status=429, until_s=NOW, reason="", hits=1, noted_at="")

    assert [allowed(limit, NOW + passed) for passed in (-1, 0, 29, 30, 61, 300)] == [0, 1, 1, 2, 3, 11]


# -- through the real command -----------------------------------------------------------------


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder whose `claude` prints `says`, and ends with what `code` holds."""
    folder = tmp_path / "programs"
    program(
        folder,
        "claude",
        f'case "$1" in --version) echo "2.1.330 (Claude Code)"; exit;; esac\n'
        f"cat {folder}/says\nexit $(cat {folder}/code)",
    )
    write(folder, {"code": "0", "says": json.dumps(RESULT) + "\n"})
    return folder


def ask(
    khlone: Khlone,
    where: Path,
    name: str,
    fake: Path,
    *words: str,
    key: str = "sk-ant-one",
    env: Mapping[str, str] | None = None,
) -> Any:
    """One headless run of the agent."""
    environment = {**on_path(fake), "ANTHROPIC_API_KEY": key, **(env or {})}
    command = ("exec", name, *words, "--json", "--", "claude", "-p", "hello")
    return khlone(*command, cwd=where, env=environment)


def machine_rows(query: str) -> list[tuple[object, ...]]:
    """Ask the machine database, without khlone."""
    with sqlite3.connect(Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3"), timeout=60) as connection:
        return list(connection.execute(query))


@pytest.fixture
def clone(khlone: Khlone, repository: Path) -> Path:
    """A clone whose agent bills by use."""
    write(Path(os.environ["XDG_CONFIG_HOME"]) / "khlone", {"config.toml": "[agents.claude]\ninherit-key = true\n"})
    return new(khlone, repository, "one", "--agent", "claude")


def test_a_limit_that_one_session_meets_holds_the_next_of_that_login_back(
    khlone: Khlone, repository: Path, clone: Path, fake: Path
) -> None:
    event = {"type": "system", "subtype": "api_retry", "error_status": 429, "headers": {"retry-after": 600}}
    write(fake, {"says": json.dumps(event) + "\n", "code": "1"})

    assert ask(khlone, repository, "one", fake).code == 1
    again = refused(ask(khlone, repository, "one", fake, "--no-wait"), "no-room", 75)
    write(fake, {"says": "", "code": "0"})
    other = ask(khlone, repository, "one", fake, "--no-wait", key="sk-ant-two")

    assert "the API of its login says: too many requests (429), until 2" in again["facts"]["reason"]
    assert other.code == 0, other
    (limit,) = document(khlone("limits", "--json", cwd=repository), "limits")["credentials"]
    assert (limit["status"], limit["lifted"], limit["allowed"]) == (429, False, 0)
    state = (Path(os.environ["XDG_STATE_HOME"]) / "khlone" / "machine.sqlite3").read_bytes()
    assert b"sk-ant" not in state


def test_a_limit_that_was_noted_before_the_clock_was_set_back_lets_one_try(
    khlone: Khlone, repository: Path, clone: Path, fake: Path, tmp_path: Path
) -> None:
    """By the clock of now it would lift in three days, and by the one that noted it in ten minutes."""
    event = {"type": "system", "subtype": "api_retry", "error_status": 429, "headers": {"retry-after": 600}}
    write(fake, {"says": json.dumps(event) + "\n", "code": "1"})
    assert ask(khlone, repository, "one", fake).code == 1
    write(fake, {"says": "", "code": "0"})

    control = ask(khlone, repository, "one", fake, "--no-wait")
    done = ask(khlone, repository, "one", fake, "--no-wait", env=clock(tmp_path / "site", days=-3))

    refused(control, "no-room", 75)
    assert done.code == 0, done


def test_a_session_waits_until_the_limit_lifts(khlone: Khlone, repository: Path, clone: Path, fake: Path) -> None:
    event = {"type": "result", "api_error": "usage_limit_reached", "is_error": True, "resetsAt": time.time() + 3}
    write(fake, {"says": json.dumps(event) + "\n", "code": "1"})
    assert ask(khlone, repository, "one", fake).code == 1
    (until,) = machine_rows("SELECT until FROM api_limits")[0]
    write(fake, {"says": json.dumps(RESULT) + "\n", "code": "0"})

    done = ask(khlone, repository, "one", fake)

    assert done.code == 0, done
    assert isinstance(until, float)
    assert time.time() >= until
    assert "waits, number 1 of 1 in line: the API of its login says: its usage limit is reached" in done.err


def test_usage_is_summed_up_over_living_and_removed_clones(
    khlone: Khlone, repository: Path, clone: Path, fake: Path
) -> None:
    new(khlone, repository, "two", "--agent", "claude")
    answers = [{"type": "assistant", "message": {"id": f"m{number}", "usage": {}}} for number in (1, 1, 2)]
    write(fake, {"says": "".join(json.dumps(event) + "\n" for event in (*answers, RESULT))})

    for name in ("one", "two", "two"):
        assert ask(khlone, repository, name, fake).code == 0
    assert khlone("remove", "--force", "two", cwd=repository).code == 0
    found = document(khlone("usage", "--json", cwd=repository), "usage")

    assert [(one["name"], one["state"], one["sessions"], one["requests"]) for one in found["clones"]] == [
        ("one", "live", 1, 2),
        ("two", "trashed", 2, 4),
    ]
    total: Mapping[str, object] = found["total"]
    assert (total["input_tokens"], total["output_tokens"]) == (300, 60)
    assert (total["cache_read_tokens"], total["cache_creation_tokens"], total["cost_usd"]) == (9000, 1200, 0.75)
    (rate, _) = document(khlone("limits", "--json", cwd=repository), "limits")["rates"]
    assert rate["name"] == "one"
    assert 1 <= rate["requests_per_minute"] <= 2
    assert 250 <= rate["input_tokens_per_minute"] <= 500


def test_sessions_that_nobody_read_are_found_in_their_files_and_no_session_counts_twice(
    khlone: Khlone, repository: Path, clone: Path, fake: Path
) -> None:
    assert ask(khlone, repository, "one", fake).code == 0
    config = Path(document(khlone("show", "one", "--json", cwd=repository), "show")["clone"]["config_dir"])
    line = json.dumps({"type": "assistant", "message": {"id": "m1", "usage": {"input_tokens": 7, "output_tokens": 1}}})
    later = line.replace('"output_tokens": 1', '"output_tokens": 9')
    write(
        config / "projects" / "x",
        # The first was read as it ran; the second says one answer twice, the last time in full.
        {"s-1.jsonl": line + "\n", "s-2.jsonl": f"{line}\n{later}\nno json\n", "deep/s-3.jsonl": line},
    )
    (config / "projects" / "x" / "s-4.jsonl").symlink_to(config / "projects" / "x" / "s-2.jsonl")

    (found,) = document(khlone("usage", "one", "--json", cwd=repository), "usage")["clones"]
    text = khlone("usage", cwd=repository).out

    assert (found["sessions"], found["input_tokens"], found["output_tokens"]) == (2, 107, 29)
    assert text.splitlines()[-1].split()[:1] == ["all"]
    assert refused(khlone("usage", "nobody", "--json", cwd=repository), "no-such-clone")


def test_a_cost_without_tokens_counts_and_a_total_that_is_told_twice_counts_once(
    khlone: Khlone, repository: Path, clone: Path, fake: Path
) -> None:
    results = [
        {"type": "result", "is_error": False, "session_id": "s-1", "total_cost_usd": cost} for cost in (0.5, 0.75)
    ]
    write(fake, {"says": "".join(json.dumps(event) + "\n" for event in results)})

    assert ask(khlone, repository, "one", fake).code == 0

    shown = document(khlone("show", "one", "--json", cwd=repository), "show")["usage"]
    assert (shown["cost_usd"], shown["input_tokens"], shown["sessions"]) == (0.75, 0, 1)
    assert "0.7500 USD" in khlone("show", "one", cwd=repository).out


def test_many_limits_at_once_are_one_and_one_after_its_end_pauses_for_longer(
    khlone: Khlone, repository: Path, clone: Path, fake: Path
) -> None:
    event = {"type": "system", "subtype": "api_retry", "error_status": 429}
    write(fake, {"code": "1"})
    command = ("exec", "one", "--json", "--", "claude", "-p", "hello")
    env = {**on_path(fake), "ANTHROPIC_API_KEY": "sk-ant-one"}
    # As from sessions that all run by the time the first is limited: three events, and the end of none.
    write(fake, {"says": (json.dumps(event) + "\n") * 3})
    assert khlone(*command, cwd=repository, env=env).code == 1
    ((until, hits),) = machine_rows("SELECT until, hits FROM api_limits")
    assert isinstance(until, float)
    assert (until - time.time() <= 60, hits) == (True, 1)

    with sqlite3.connect(Path(os.environ["XDG_STATE_HOME"], "khlone", "machine.sqlite3"), timeout=60) as connection:
        connection.execute("UPDATE api_limits SET until = ?", (time.time() - 1,))
    assert khlone(*command, cwd=repository, env=env).code == 1

    ((later, again),) = machine_rows("SELECT until, hits FROM api_limits")
    assert isinstance(later, float)
    assert again == 2
    assert later > until + 30


def test_evidence_holds_no_words_of_the_client() -> None:
    event = {"error_status": 429, "error": {"message": "key sk-ant-secret is over its limit"}}

    found = evidence_of(event, READING, NOW)

    assert isinstance(found, Evidence)
    assert found.reason == "too many requests (429)"


def test_a_long_session_file_that_has_not_changed_is_not_read_again(
    khlone: Khlone, repository: Path, clone: Path
) -> None:
    def said() -> int:
        return int(document(khlone("show", "one", "--json", cwd=repository), "show")["usage"]["input_tokens"])

    def answer(number: int, tokens: int) -> str:
        return json.dumps({"message": {"id": f"m{number}", "usage": {"input_tokens": tokens}}}) + "\n"

    config = Path(document(khlone("show", "one", "--json", cwd=repository), "show")["clone"]["config_dir"])
    write(
        config / "projects" / "x", {"long.jsonl": answer(1, 7) + "x" * (64 << 10) + "\n", "short.jsonl": answer(2, 1)}
    )
    path = config / "projects" / "x" / "long.jsonl"
    then = path.stat().st_mtime_ns
    before = said()
    with path.open("r+") as stream:
        stream.write(answer(1, 9))
    os.utime(path, ns=(then, then))
    noted = said()
    (notes,) = config.parent.parent.glob("run/transcripts-*.json")
    mode, content = stat.S_IMODE(notes.stat().st_mode), notes.read_text()
    notes.write_text(content.replace("7", '"7"'))
    damaged = said()
    with path.open("a") as stream:
        stream.write(answer(3, 30))

    assert (before, noted, damaged, said()) == (8, 8, 10, 40)
    assert (mode, "short" in content) == (0o600, False)
