"""How many dollars may a session of an agent still cost, and has it cost them?

By what the client's own events say, as they come: of one session, and of a clone since
midnight (UTC). What a client says only at its end is known only then, so a client that
can keep to an amount itself is told it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

from khlone import api_rows
from khlone.app import App
from khlone.errors import CostUntold, KhloneError, OverBudget, UsageError
from khlone.model import CloneRecord
from khlone.operations import turns
from khlone.operations.metering import Meter
from khlone.profiles import AgentProfile
from khlone.values import dataclass

SETTING = "khlone.limits.cost"
_DAY_S = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """A session may cost so many dollars; `of` is the option or the setting that says so."""

    usd: float
    of: str


def parsed(text: str | None) -> float | None:
    """The dollars that `--max-cost` says; raises UsageError."""
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or found <= 0:
        raise UsageError(f"--max-cost {text!r} is no amount of dollars", hint="such as --max-cost 2.50")
    return found


def allowance(app: App, clone: CloneRecord, agent: AgentProfile | None, asked: float | None = None) -> Allowance | None:
    """What a session that is about to start may cost, `None` for any amount.

    Raises CostUntold where that was asked of what tells nobody what it costs, OverBudget
    where the clone has had all that it may cost today.
    """
    tells = agent is not None and bool(agent.reading.output and agent.reading.cost_usd)
    if asked is not None and not tells:
        raise CostUntold(clone.name, None if agent is None else agent.name)
    daily = app.settings.value("limits.cost")
    found = None if asked is None else Allowance(usd=asked, of="--max-cost")
    if not isinstance(daily, float) or agent is None:
        return found
    spent = spent_today(app, clone)
    left = daily - spent
    if left <= 0:
        raise OverBudget(clone.name, daily, spent_usd=spent)
    return found if found is not None and found.usd <= left else Allowance(usd=left, of=SETTING)


def spent_today(app: App, clone: CloneRecord) -> float:
    """The dollars that sessions of a clone have told of since midnight (UTC)."""
    machine = turns.open_machine(app.environment, app.told, make=False)
    if not machine.exists:
        return 0.0
    try:
        with machine.reading() as connection:
            return api_rows.cost_since(connection, app.repository_id, clone.id, int(time.time() // _DAY_S) * 1440)
    finally:
        machine.close()


def words(agent: AgentProfile, found: Allowance | None) -> Sequence[str]:
    """The words by which the client is told what it may cost."""
    return (
        []
        if found is None
        else [word.replace("{usd}", f"{found.usd:.6f}".rstrip("0").rstrip(".")) for word in agent.budget]
    )


def minded(meter: Meter, found: Allowance | None, passed: Callable[[str], None]) -> Callable[[bytes], None]:
    """What is to be given the client's output; `passed` is told, once, why the session is to end."""
    is_over = False

    def heard(piece: bytes) -> None:
        nonlocal is_over
        meter.feed_output(piece)
        if found is not None and not is_over and meter.cost_usd > found.usd:
            is_over = True
            with contextlib.suppress(KhloneError):
                passed(f"it has cost {meter.cost_usd:.4f} USD, more than {found.usd:.4f} ({found.of})")

    return heard
