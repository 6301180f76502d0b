"""The classes that samples of a conditional model take turns in, and the columns that show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aigc_cli.modalities.image_grid import Layout, columns_of, fitting_columns
from aigc_cli.models.base import Model


def balanced(n: int, model: Model, controls: Any) -> int:
    """`n` samples, or a few less, so that there are as many of each class that is asked for; `n` where it is small."""
    classes = len(model.turns(controls))
    return n // classes * classes if 1 < classes <= n else n


def class_layout(names: Sequence[str], shape: Sequence[int], n: int) -> Layout:
    """A column for each class of `n` samples, or several where classes are few; as it comes where they are too many."""
    names, room = names[:n], fitting_columns(shape)
    if len(names) == 1:
        return Layout(title=names[0])
    if len(names) > room:
        return Layout()
    times = max(1, min(room, round(columns_of(min(n, Layout.limit)) / len(names)) * len(names)) // len(names))
    return Layout(columns=times * len(names), column_titles=tuple(names) * times)
