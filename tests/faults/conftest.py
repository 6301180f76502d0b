"""How often the tests of kills kill, and the runs that nothing happened to."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def kills() -> int:
    """Kills of each run: few, or as many as ``AIGC_TEST_KILLS`` says."""
    return int(os.environ.get("AIGC_TEST_KILLS", "2"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the run of a family that was trained in one go, once for all tests: others must end where it ends."""
    from children import train
    from families import words_of

    @cache
    def trained(family: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        train(folder / family, *words_of(family, folder))
        return folder / family

    return trained
