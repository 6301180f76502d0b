"""How often the tests of kills kill."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def kills() -> int:
    """Kills of each run: few, or as many as ``AIGC_TEST_KILLS`` says."""
    return int(os.environ.get("AIGC_TEST_KILLS", "2"))
