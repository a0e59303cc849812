"""khlone gives every coding agent a private place on a shared git repository.

As a library: `App.open(path)` and the functions in `khlone.operations`. For plugins:
`from khlone import hookimpl, Refusal`. Names are loaded when first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

# Known to type checkers as true; without `typing`, since this is the first module that the command loads.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from khlone.app import App as App
    from khlone.errors import KhloneError as KhloneError
    from khlone.errors import Refusal as Refusal
    from khlone.hookspecs import hookimpl as hookimpl
    from khlone.model import Candidate as Candidate
    from khlone.model import Clone as Clone
    from khlone.model import CloneState as CloneState
    from khlone.model import Conflict as Conflict
    from khlone.model import ConflictedFile as ConflictedFile
    from khlone.model import Demand as Demand
    from khlone.model import Finding as Finding
    from khlone.model import Isolation as Isolation
    from khlone.model import MergePlan as MergePlan
    from khlone.model import MergeResult as MergeResult
    from khlone.model import NewRequest as NewRequest
    from khlone.model import RemovePlan as RemovePlan
    from khlone.model import Session as Session
    from khlone.model import Severity as Severity
    from khlone.model import Strategy as Strategy
    from khlone.model import Verdict as Verdict
    from khlone.profiles import AgentProfile as AgentProfile
    from khlone.profiles import AgentReading as AgentReading
    from khlone.profiles import AgentVersions as AgentVersions
    from khlone.profiles import ConfigItem as ConfigItem
    from khlone.profiles import Login as Login
    from khlone.profiles import Sharing as Sharing

_HOMES = {
    "App": "khlone.app",
    "KhloneError": "khlone.errors",
    "Refusal": "khlone.errors",
    "hookimpl": "khlone.hookspecs",
    **dict.fromkeys(
        (
            "Candidate",
            "Clone",
            "CloneState",
            "Conflict",
            "ConflictedFile",
            "Demand",
            "Finding",
            "Isolation",
            "MergePlan",
            "MergeResult",
            "NewRequest",
            "RemovePlan",
            "Session",
            "Severity",
            "Strategy",
            "Verdict",
        ),
        "khlone.model",
    ),
    **dict.fromkeys(
        ("AgentProfile", "AgentReading", "AgentVersions", "ConfigItem", "Login", "Sharing"),
        "khlone.profiles",
    ),
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'khlone' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
