"""What requests share is a model, and not what each has asked of it."""

from __future__ import annotations

import contextvars
from pathlib import Path
from typing import Any

import pytest
import torch
from serve_runs import fresh_runs

from aigc_cli.serve.house import Served
from aigc_cli.serve.tickets import Ticket, current


def test_a_request_decodes_with_its_own_controls_whatever_another_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a flow, whose steps are kept in the model."""
    monkeypatch.chdir(tmp_path)
    (loaded,) = fresh_runs(["digits/flow"])
    for parameter in loaded.model.parameters():
        parameter.data.add_(0.3)  # fresh ones move nothing
    shared: Any = Served(loaded).loaded.model
    latents = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    few, many = (loaded.checked({"steps": steps}) for steps in (1, 9))

    def prepare(controls: Any) -> None:
        current.set(Ticket())
        shared.prepare([], controls)

    first, second = contextvars.copy_context(), contextvars.copy_context()
    first.run(prepare, few)
    alone = first.run(shared.decode, latents)
    second.run(prepare, many)
    assert (first.run(shared.decode, latents) == alone).all()
    assert (second.run(shared.decode, latents) != alone).any()
