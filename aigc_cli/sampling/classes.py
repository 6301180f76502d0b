"""The classes that samples of a conditional model take turns in."""

from __future__ import annotations

from typing import Any

from aigc_cli.models.base import Model


def balanced(n: int, model: Model, controls: Any) -> int:
    """`n` samples, or a few less, so that there are as many of each class that is asked for; `n` where it is small."""
    classes = len(model.turns(controls))
    return n // classes * classes if 1 < classes <= n else n
