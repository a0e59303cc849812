"""Where can an agent program be run without an account and without a network?

`Loopback` is the services it talks to, on 127.0.0.1 alone; `install_fake_agent` is a
program with the habits of a real one. `khlone.testing` offers both to the authors of
plugins; nothing that khlone does at a start imports this.
"""

from __future__ import annotations

from khlone.loopback.accounts import Accounts as Accounts
from khlone.loopback.accounts import Tokens as Tokens
from khlone.loopback.answers import Answer as Answer
from khlone.loopback.answers import Failure as Failure
from khlone.loopback.limits import TIER_1 as TIER_1
from khlone.loopback.limits import RateLimit as RateLimit
from khlone.loopback.programs import Habits as Habits
from khlone.loopback.programs import install_fake_agent as install_fake_agent
from khlone.loopback.server import Loopback as Loopback
from khlone.loopback.server import Seen as Seen
from khlone.loopback.server import Tally as Tally
