"""The asserts of the tour say what they saw."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.layouts.tour", "tests.commands.steps")
