"""The classes that samples of a conditional model take turns in."""

from __future__ import annotations

from aigc_cli.models.base import Model
from aigc_cli.models.latent import LatentModel, chosen_classes


def turns(model: Model, word: str | None) -> list[int]:
    """The classes that samples take turns in; none where the model does not know classes."""
    return chosen_classes(model.spec, word, model.conditional) if isinstance(model, LatentModel) else []


def balanced(n: int, model: Model, word: str | None = None) -> int:
    """`n` samples, or a few less, so that there are as many of each class that `word` names; `n` where it is small."""
    classes = len(turns(model, word))
    return n // classes * classes if 1 < classes <= n else n
