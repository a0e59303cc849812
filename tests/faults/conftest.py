"""The repository of the tests of verbs, for the tests of faults too."""

from __future__ import annotations

from tests.commands.conftest import project

__all__ = ["project"]
