"""Runs of a few steps draw no curves, which would take longer than their training."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_curves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the drawing to the tests of the journal."""
    from aigc_cli.training.journal import Journal

    if request.node.path.name != "test_journal.py":
        monkeypatch.setattr(Journal, "draw", lambda _: None)
