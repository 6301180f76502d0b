"""Samples and latents of a model whose controls are given by name, and the others as they usually are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from aigc_cli.models.base import Model, Prompts
from aigc_cli.randomness import Noise


def sampled(
    model: Model,
    noise: Noise,
    *,
    prompt: Sequence[Sequence[int]] | None = None,
    first: Sequence[Sequence[int]] = (),
    **controls: Any,
) -> Tensor:
    """What :meth:`Model.sample` draws, from prompts if there are any."""
    return model.sample(noise, model.controls(**controls), None if prompt is None else Prompts(prompt, first))


def latents_of(model: Model, noise: Noise, **controls: Any) -> Tensor:
    """What :meth:`Model.latents` draws."""
    return model.latents(noise, model.controls(**controls))
