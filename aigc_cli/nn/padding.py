"""Items that may end before their last frame, such as clips of sound: what comes after the end is `padding` alone.

A frame is all that lies at one place of the last axis. Nothing carries an item's length: its end is where frames other
than `padding` end, and what comes after it costs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from aigc_cli.nn.likelihoods import Likelihood


def before_end(x: Tensor, padding: float) -> Tensor:
    """Which frames of items (n, ..., t) lie before the item's end, bool (n, t)."""
    filled = (x != padding).flatten(1, -2).any(dim=1)
    return torch.gt(filled.flip(1).long().cumsum(dim=1).flip(1), 0)


def end_at(x: Tensor, going: Tensor, padding: float) -> Tensor:
    """Items (n, ..., t) with `padding` in all frames but those that are `going` on, bool (n, t)."""
    return torch.where(going.view(len(x), *[1] * (x.ndim - 2), -1), x, padding)


class Ended(Likelihood):
    """p(x | outputs) of items that may end early: of the frames before the end as another likelihood has them, and of
    the end, for which a decoder has one output more: the logit that a frame still lies before it, a mean over the
    frame's places."""

    def __init__(self, inner: Likelihood, padding: float) -> None:
        super().__init__(inner.channels, inner.width + 1)
        self.inner, self.padding = inner, padding

    def _nats(self, outputs: Tensor, x: Tensor) -> Tensor:
        going = before_end(x, self.padding)
        of_end = binary_cross_entropy_with_logits(self._logits(outputs), going.float(), reduction="none")
        return frames_nats(self.inner, outputs[:, :-1], x, going) - of_end

    def mean(self, outputs: Tensor) -> Tensor:
        """The expected item, up to the end that is most probable."""
        odds = self._logits(outputs).cumsum(dim=1)
        best = torch.nn.functional.pad(odds, (1, 0)).argmax(dim=1, keepdim=True)  # how many frames
        going = torch.arange(outputs.shape[-1], device=outputs.device) < best
        return end_at(self.inner.mean(outputs[:, :-1]), going, self.padding)

    def _logits(self, outputs: Tensor) -> Tensor:
        return outputs[:, -1].float().flatten(1, -2).mean(1) if outputs.ndim > 3 else outputs[:, -1].float()

    def target(self, x: Tensor) -> Tensor:
        """See :meth:`Likelihood.target`."""
        target: Tensor = self.inner.target(x)
        return target

    def begin(self, bias: Tensor) -> None:
        """See :meth:`Likelihood.begin`."""
        self.inner.begin(bias[..., :-1])
        bias[..., -1] = 0


def frames_nats(likelihood: Likelihood, outputs: Tensor, x: Tensor, going: Tensor) -> Tensor:
    """Nats of each frame (n, t), 0 but in those that are `going` on, bool (n, t); what others hold does not matter."""
    outputs, x = outputs.movedim(-1, 1), x.movedim(-1, 1)
    if going.device.type != "cpu":  # which would have to say how many there are before work on them can begin
        each = likelihood(*(part.flatten(0, 1).unsqueeze(-1) for part in (outputs, x)))
        return torch.where(going, each.view_as(going), 0)
    each = likelihood(*(part[going].unsqueeze(-1) for part in (outputs, x)))
    return torch.zeros_like(going, dtype=each.dtype).masked_scatter(going, each)


def ending(likelihood: Likelihood, padding: float | None) -> Likelihood:
    """The likelihood itself, or with the end of items where they have one."""
    return likelihood if padding is None else Ended(likelihood, padding)
