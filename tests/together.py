"""What processes that are started together do in tests: fresh ones must find it by its name."""

from __future__ import annotations

import torch

from aigc_cli.errors import NonFiniteError
from aigc_cli.training.distributed import join


def fails_in_one() -> None:
    """One of two raises while the other waits for it."""
    with join(torch.device("cpu")) as processes:
        if not processes.main:
            raise NonFiniteError("step 7: main/loss is not finite", "lower optimizer.lr")
        processes.highest(0)
