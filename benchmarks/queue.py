"""The merge queue beside `mergetrain` (PyPI): four branches, two of which fail only together, the same gate.

The scenario is that of `mergetrain demo`, here through both programs' own commands on
repositories with the same content, each fresh in every round, so that no cache is warm.
Both must come to the same: the pair named and held, the other two landed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import KHLONE, Bench, Cost, Series, table

_ROUNDS = 3
_PEER = "mergetrain"
_SEED = {
    "app/__init__.py": "",
    "app/config.py": "DEFAULT_TIMEOUT = 30\n",
    "tests/test_config.py": """import unittest

from app.config import DEFAULT_TIMEOUT


class ConfigTests(unittest.TestCase):
    def test_default_timeout(self):
        self.assertEqual(DEFAULT_TIMEOUT, 30)
""",
    ".gitignore": ".mergetrain/\n__pycache__/\n*.py[cod]\n",
}
_TEST = """import unittest

from app.{module} import {name}


class {name}Tests(unittest.TestCase):
    def test_it(self):
        self.assertTrue({name})
"""
_HEALTH = """import unittest

from app.config import DEFAULT_TIMEOUT
from app.health import TIMEOUT_BUDGET


class HealthTests(unittest.TestCase):
    def test_budget_matches_config(self):
        self.assertEqual(TIMEOUT_BUDGET, DEFAULT_TIMEOUT)
"""
_BRANCHES = {
    "faster-timeout": {
        "app/config.py": "DEFAULT_TIMEOUT = 10\n",
        "tests/test_config.py": _SEED["tests/test_config.py"].replace("30", "10"),
    },
    "health-check": {"app/health.py": "TIMEOUT_BUDGET = 30\n", "tests/test_health.py": _HEALTH},
    "add-retries": {
        "app/retries.py": "MAX_RETRIES = 3\n",
        "tests/test_retries.py": _TEST.format(module="retries", name="MAX_RETRIES"),
    },
    "request-logging": {
        "app/request_logging.py": "LOG_REQUESTS = True\n",
        "tests/test_request_logging.py": _TEST.format(module="request_logging", name="LOG_REQUESTS"),
    },
}
_PAIR = ("faster-timeout", "health-check")
_PEER_CONFIG = """version: 2
project:
  name: bench
state:
  db: .mergetrain/queue.sqlite
  logs: .mergetrain/logs
  worktree_root: .mergetrain/worktrees
git:
  remote: origin
  integration_branch: main
  push_refs:
    - main
queue:
  lock_ttl_minutes: 5
  daemon_interval_seconds: 1
  heartbeat_interval_seconds: 1
  command_timeout_seconds: 60
gates:
  - name: tests
    run: {gate}
"""


def _write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def _commit(bench: Bench, folder: Path, subject: str) -> None:
    bench.ask("git", "add", "-A", cwd=folder)
    bench.ask("git", "commit", "-q", "-m", subject, cwd=folder)


def _repository(bench: Bench, name: str, extra: dict[str, str]) -> Path:
    remote, path = bench.root / f"{name}.git", bench.root / name
    bench.ask("git", "init", "-q", "--bare", str(remote), cwd=bench.root)
    bench.ask("git", "clone", "-q", str(remote), str(path), cwd=bench.root)
    _write(path, {**_SEED, **extra})
    _commit(bench, path, "seed")
    bench.ask("git", "push", "-q", "-u", "origin", "main", cwd=path)
    return path


def _gate(bench: Bench, name: str) -> str:
    """The tests, each run of which is one line in a file."""
    return f"echo run >>{bench.root / name}.runs && {sys.executable} -m unittest discover -s tests"


def _runs(bench: Bench, name: str) -> int:
    return len((bench.root / f"{name}.runs").read_text().splitlines())


def _ours(bench: Bench, number: int) -> tuple[Cost, int]:
    name = f"ours{number}"
    path = _repository(bench, name, {})
    bench.ask("git", "config", "khlone.gate.tests", _gate(bench, name), cwd=path)
    for branch, files in _BRANCHES.items():
        place = Path(bench.ask(KHLONE, "new", branch, "--agent", "generic", cwd=path).splitlines()[-1])
        _write(place, files)
        _commit(bench, place, branch)
    cost = bench.run(KHLONE, "merge", *_BRANCHES, cwd=path, check=False)
    log = json.loads(bench.ask(KHLONE, "queue", "log", "--json", cwd=path))["entries"]
    held = {entry["name"]: entry["partners"] for entry in log if entry["state"] == "held"}
    landed = [entry["name"] for entry in log if entry["state"] == "landed"]
    if held != {_PAIR[0]: [_PAIR[1]], _PAIR[1]: [_PAIR[0]]} or len(landed) != 2:
        raise SystemExit(f"benchmark: khlone held {held} and landed {landed}")
    return cost, _runs(bench, name)


def _theirs(bench: Bench, peer: str, number: int) -> tuple[Cost, Cost, int]:
    """What queueing, testing and landing cost together, what testing costs alone, and the runs of the gate."""
    name = f"theirs{number}"
    gate = json.dumps(f"sh -c {json.dumps(_gate(bench, name))}")
    path = _repository(bench, name, {".mergetrain.yaml": _PEER_CONFIG.format(gate=gate)})
    places = {}
    for branch, files in _BRANCHES.items():
        places[branch] = bench.root / f"{name}-{branch}"
        bench.ask("git", "worktree", "add", "-q", "-b", branch, str(places[branch]), "main", cwd=path)
        _write(places[branch], files)
        _commit(bench, places[branch], branch)
    whole = Cost(wall_s=0.0, cpu_s=0.0)
    for branch, place in places.items():
        words = ("enqueue", "--task", branch, "--branch", branch, "--worktree", str(place))
        whole += bench.run(peer, *words, cwd=path)
    validating = bench.run(peer, "validate", cwd=path, check=False)
    whole += validating
    whole += bench.run(peer, "dismiss", "--all", "--note", "held", cwd=path)
    plan = str(json.loads(bench.ask(peer, "deploy", "--json", cwd=path))["deploy_plan_sha"])
    whole += bench.run(peer, "deploy", "--expected-plan", plan, cwd=path)
    landed = bench.ask("git", "log", "--format=%s", "main", cwd=bench.root / f"{name}.git")
    if "add-retries" not in landed or "health-check" in landed:
        raise SystemExit(f"benchmark: {_PEER} landed {landed}")
    return whole, validating, _runs(bench, name)


def main(bench: Bench) -> None:
    """Print wall times, gate runs and the ratio."""
    venv = bench.root / "peer"
    made = subprocess.run([sys.executable, "-m", "venv", venv], check=False, capture_output=True)
    install = [str(venv / "bin" / "pip"), "--disable-pip-version-check", "--no-input", "install", "--quiet", _PEER]
    if made.returncode != 0 or subprocess.run(install, check=False, capture_output=True).returncode != 0:
        print(f"the merge queue: {_PEER} could not be installed; nothing is compared")
        return
    ours, theirs, validating = Series(name="khlone merge"), Series(name=_PEER), Series(name="validate")
    runs: list[tuple[int, int]] = []
    for number in range(_ROUNDS):
        cost, count = _ours(bench, number)
        ours.costs.append(cost)
        whole, alone, others = _theirs(bench, str(venv / "bin" / _PEER), number)
        theirs.costs.append(whole)
        validating.costs.append(alone)
        runs.append((count, others))
    table(
        "four branches, two of which fail only together: pair named and held, the others landed",
        ("", "wall, ms", "gate runs", "ratio of wall"),
        [
            (f"{_PEER}: enqueue, validate, dismiss, deploy", f"{theirs.wall_ms():.0f}", str(runs[0][1]), "1"),
            (f"{_PEER}: validate alone", f"{validating.wall_ms():.0f}", str(runs[0][1]), ""),
            ("khlone merge", f"{ours.wall_ms():.0f}", str(runs[0][0]), f"{ours.ratio(theirs):.2f} (aim 0.33)"),
            ("khlone merge, against validate alone", "", "", f"{ours.ratio(validating):.2f}"),
        ],
    )
