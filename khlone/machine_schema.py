"""What tables does the user's machine database have, and how did they come about? One script a version.

A released script is never edited: a change is a new script at the end.
"""

from __future__ import annotations

_LEASES = """
CREATE TABLE leases (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'starting', 'running')),
  priority INTEGER NOT NULL,
  repository TEXT NOT NULL,
  clone TEXT NOT NULL,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  session TEXT,
  credential TEXT,
  memory INTEGER NOT NULL,
  used INTEGER NOT NULL DEFAULT 0,
  blocker TEXT,
  reason TEXT,
  asked_at TEXT NOT NULL,
  granted_at TEXT,
  granted REAL,
  pid INTEGER NOT NULL,
  start_ticks INTEGER,
  boot_id TEXT,
  host TEXT NOT NULL,
  pid_namespace INTEGER,
  child_pid INTEGER,
  child_ticks INTEGER
) STRICT;
CREATE TABLE memory_seen (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  peak INTEGER NOT NULL,
  seen_at TEXT NOT NULL
) STRICT;
CREATE INDEX memory_seen_kind ON memory_seen (kind, number)
"""

# Slots for heavy commands are leases too: each name is a pool of its own.
_POOLS = """
ALTER TABLE leases ADD COLUMN pool TEXT NOT NULL DEFAULT '';
ALTER TABLE leases ADD COLUMN command TEXT NOT NULL DEFAULT ''
"""

_API = """
CREATE TABLE api_limits (
  credential TEXT PRIMARY KEY,
  status INTEGER NOT NULL,
  until REAL NOT NULL,
  reason TEXT NOT NULL,
  hits INTEGER NOT NULL,
  noted_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE usage (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  minute INTEGER NOT NULL,
  repository TEXT NOT NULL,
  clone TEXT NOT NULL,
  name TEXT NOT NULL,
  agent TEXT NOT NULL,
  session TEXT NOT NULL,
  agent_session TEXT,
  credential TEXT,
  requests INTEGER NOT NULL,
  input INTEGER NOT NULL,
  output INTEGER NOT NULL,
  cache_read INTEGER NOT NULL,
  cache_creation INTEGER NOT NULL,
  cost REAL,
  UNIQUE (repository, clone, session, minute)
) STRICT;
CREATE INDEX usage_minute ON usage (minute)
"""

_STOPS = """
ALTER TABLE leases ADD COLUMN idle REAL;
CREATE TABLE stops (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  owner TEXT NOT NULL,
  session TEXT NOT NULL,
  why TEXT NOT NULL,
  at REAL NOT NULL,
  pid INTEGER NOT NULL,
  start_ticks INTEGER,
  boot_id TEXT,
  host TEXT NOT NULL,
  pid_namespace INTEGER
) STRICT
"""

_LOGINS = """
CREATE TABLE refused_logins (
  credential TEXT PRIMARY KEY,
  status INTEGER NOT NULL,
  agent TEXT NOT NULL,
  repository TEXT NOT NULL,
  clone TEXT NOT NULL,
  name TEXT NOT NULL,
  session TEXT NOT NULL,
  variable TEXT,
  place TEXT,
  content TEXT NOT NULL,
  noted REAL NOT NULL
) STRICT, WITHOUT ROWID
"""

MIGRATIONS: tuple[str, ...] = (_LEASES, _POOLS, _API, _STOPS, _LOGINS)
