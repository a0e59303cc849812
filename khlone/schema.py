"""What tables does the registry have, and how did they come about? One script a version.

A released script is never edited: a change is a new script at the end. `PRAGMA
user_version` counts the scripts that were applied.
"""

from __future__ import annotations

_CLONES = """
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE clones (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  folded TEXT NOT NULL,
  target TEXT,
  path TEXT NOT NULL,
  admin TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('creating', 'ready', 'merging', 'merged', 'removing',
    'trashed', 'purging', 'failed', 'broken', 'adopted')),
  reason TEXT,
  agent TEXT,
  isolation TEXT NOT NULL,
  config_dir TEXT,
  created_at TEXT NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX clones_folded ON clones (folded) WHERE state NOT IN ('trashed', 'purging');
CREATE UNIQUE INDEX clones_path ON clones (path) WHERE state NOT IN ('trashed', 'purging');
CREATE TABLE branches (
  clone TEXT PRIMARY KEY REFERENCES clones (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  base TEXT NOT NULL,
  owned INTEGER NOT NULL,
  live INTEGER NOT NULL DEFAULT 1,
  merged_head TEXT
) STRICT;
CREATE UNIQUE INDEX branches_name ON branches (name) WHERE live = 1;
CREATE TABLE operations (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  clone TEXT NOT NULL,
  name TEXT NOT NULL,
  plan TEXT NOT NULL,
  step TEXT NOT NULL DEFAULT '',
  pid INTEGER NOT NULL,
  start_ticks INTEGER,
  boot_id TEXT,
  host TEXT NOT NULL,
  started_at TEXT NOT NULL,
  ended_at TEXT,
  outcome TEXT,
  message TEXT
) STRICT;
CREATE INDEX operations_open ON operations (clone) WHERE ended_at IS NULL
"""

_SESSIONS_AND_TRASH = """
CREATE TABLE sessions (
  id TEXT PRIMARY KEY,
  clone TEXT NOT NULL,
  pid INTEGER NOT NULL,
  start_ticks INTEGER,
  boot_id TEXT,
  host TEXT NOT NULL,
  state TEXT NOT NULL,
  command TEXT NOT NULL,
  started_at TEXT NOT NULL,
  ended_at TEXT,
  status INTEGER,
  log TEXT
) STRICT;
CREATE INDEX sessions_live ON sessions (clone) WHERE ended_at IS NULL;
CREATE TABLE trash (
  id TEXT PRIMARY KEY,
  clone TEXT NOT NULL REFERENCES clones (id) ON DELETE CASCADE,
  removed_at TEXT NOT NULL,
  head TEXT NOT NULL,
  snapshot TEXT NOT NULL,
  branch_deleted INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  tracked INTEGER NOT NULL,
  untracked INTEGER NOT NULL,
  ignored INTEGER NOT NULL
) STRICT
"""

# Two containers may have one host name, and each has a process of the same number.
_PID_NAMESPACES = """
ALTER TABLE operations ADD COLUMN pid_namespace INTEGER;
ALTER TABLE sessions ADD COLUMN pid_namespace INTEGER
"""

_QUEUE = """
CREATE TABLE queue (
  id TEXT PRIMARY KEY,
  clone TEXT NOT NULL,
  name TEXT NOT NULL,
  target TEXT NOT NULL,
  source TEXT NOT NULL,
  strategy TEXT NOT NULL,
  gate INTEGER NOT NULL,
  remove INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  after TEXT NOT NULL,
  penalty INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'testing', 'landed', 'held', 'removed', 'superseded')),
  queued_at TEXT NOT NULL,
  ended_at TEXT,
  oid TEXT,
  gated INTEGER,
  code TEXT,
  exit_code INTEGER,
  message TEXT,
  hint TEXT,
  paths TEXT NOT NULL,
  partners TEXT NOT NULL,
  resolved_by TEXT,
  record TEXT NOT NULL
) STRICT;
CREATE INDEX queue_waiting ON queue (target) WHERE ended_at IS NULL;
CREATE TABLE seats (
  target TEXT PRIMARY KEY,
  epoch INTEGER NOT NULL,
  paused INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE gate_results (
  tree TEXT NOT NULL,
  gate TEXT NOT NULL,
  passed_at TEXT NOT NULL,
  PRIMARY KEY (tree, gate)
) STRICT
"""

# A supervisor is a process of the host, the boot and the pid namespace that the session is of.
_SUPERVISED = """
ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'exec';
ALTER TABLE sessions ADD COLUMN supervisor_pid INTEGER;
ALTER TABLE sessions ADD COLUMN supervisor_ticks INTEGER;
ALTER TABLE sessions ADD COLUMN reason TEXT;
CREATE INDEX sessions_clone ON sessions (clone)
"""

_PUSHED = """
ALTER TABLE queue ADD COLUMN push INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN notes TEXT NOT NULL DEFAULT '[]'
"""

# Whether the commit hooks that `--no-verify` leaves out at a commit by git look at what lands.
_VERIFIED = """
ALTER TABLE queue ADD COLUMN verify INTEGER NOT NULL DEFAULT 1
"""

MIGRATIONS: tuple[str, ...] = (_CLONES, _SESSIONS_AND_TRASH, _PID_NAMESPACES, _QUEUE, _SUPERVISED, _PUSHED, _VERIFIED)
