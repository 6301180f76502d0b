"""The exponential moving average of a network's weights, which is what is sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from aigc_cli.training.parallel import as_spread


class EMA:
    """Follows a module's floating-point state with a decay.

    Without a warm-up the average of a short run would still hold its initial weights: the decay grows as
    ``(1 + t) / (10 + t)``. With a `start` after the first update, the average is a copy until then, and has its full
    decay at once (Brock et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, 2019, appendix C).
    What is not floating point, such as a batch norm's counter, is copied.
    """

    def __init__(self, module: nn.Module, decay: float, start: int = 0) -> None:
        self.module = module
        self.decay, self.start = decay, start
        self.shadow = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        live = module.state_dict()  # tensors that share memory with the module for as long as it lives
        floating = [name for name, tensor in live.items() if tensor.is_floating_point()]
        self._floating = [live[name] for name in floating]
        self._shadow_floating = [self.shadow[name] for name in floating]
        self._copied = [(self.shadow[name], tensor) for name, tensor in live.items() if name not in set(floating)]

    @torch.no_grad()
    def update(self, updates_done: int) -> None:
        """Moves the average towards the module, after `updates_done` earlier updates."""
        decay = self._decay(updates_done)
        torch._foreach_lerp_(self._shadow_floating, self._floating, 1 - decay)
        for shadow, tensor in self._copied:
            shadow.copy_(tensor)

    def _decay(self, updates_done: int) -> float:
        if self.start:
            return self.decay if updates_done >= self.start else 0.0
        return min(self.decay, (1 + updates_done) / (10 + updates_done))

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes the average from a checkpoint."""
        for name, shadow in self.shadow.items():
            shadow.copy_(as_spread(state[name], shadow))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context the module holds its average."""
        own = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        self.module.load_state_dict(self.shadow)
        try:
            yield
        finally:
            self.module.load_state_dict(own)
