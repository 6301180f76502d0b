"""One model trained by several processes: a replica of it in each, or shards of it spread over them.

Either is called as the model is; what differs is how gradients are averaged and where weights are.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Losses, Model
from aigc_cli.nn import collective
from aigc_cli.nn.transformer import Block
from aigc_cli.training.distributed import Processes
from aigc_cli.training.settings import TrainerConfig

if TYPE_CHECKING:  # what spreads a model takes a second to import, and most runs spread none
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


class Replicas:
    """The same model in every process: called as it is, and with gradients that a backward pass averages.

    Each phase has a :class:`DistributedDataParallel` of its own over the parameters that it trains, so that a phase
    waits for no gradient of another. A gradient penalty differentiates by images inside the forward pass; parameters
    get their gradients once, in the outer backward pass, which is what the averaging hangs on.
    `train_only` leaves gradients on for the network of one of the `phases`.
    """

    def __init__(
        self, model: Model, phases: Iterable[str], processes: Processes, train_only: Callable[[str], None]
    ) -> None:
        self.model, self.processes = model, processes
        self._parallel: dict[str, DistributedDataParallel] = {}
        if processes.alone:
            return
        # Of 1x1 convolutions in channels_last, whose strides are as good one way as the other.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        for phase in phases:
            train_only(phase)
            # Buffers are kept alike where they change. Looking for unused parameters also keeps the order in which
            # gradients are summed, which would otherwise differ between the first step of a process and the next.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # torch 2.14 gives `broadcast_buffers` another name
                self._parallel[phase] = DistributedDataParallel(
                    _Phase(model, phase), broadcast_buffers=False, find_unused_parameters=True
                )
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        buffers = [[norm.running_mean, norm.running_var] for norm in norms if not isinstance(norm, nn.SyncBatchNorm)]
        self._statistics = [buffer for pair in buffers for buffer in pair if buffer is not None]

    def __call__(self, phase: str, batch: Batch) -> Losses:
        """The losses of a phase on this process's share of a batch."""
        return cast(Losses, self.model(phase, batch) if self.processes.alone else self._parallel[phase](batch))

    def accumulating(self, phase: str, last: bool) -> AbstractContextManager[Any]:
        """Within the context gradients add up, and only those of the `last` batch are averaged, with all before."""
        if last or self.processes.alone:
            return nullcontext()
        return self._parallel[phase].no_sync()

    def whole(self) -> AbstractContextManager[Any]:
        """Within the context every process has all of the weights, which it has anyway."""
        return nullcontext()

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Averages what batch norms have seen: each saw its own share of the batch."""
        if self.processes.alone or not self._statistics:
            return
        flat = collective.averaged(torch.cat([buffer.flatten() for buffer in self._statistics]))
        sizes = [buffer.numel() for buffer in self._statistics]
        for buffer, mean in zip(self._statistics, torch.split(flat, sizes), strict=True):
            buffer.copy_(mean.view_as(buffer))


class _Phase(nn.Module):
    """One phase of a model, as the module that it is to data parallelism."""

    def __init__(self, model: Model, phase: str) -> None:
        super().__init__()
        self.model, self.phase = model, phase

    def forward(self, batch: Batch) -> Losses:
        return cast(Losses, self.model(self.phase, batch))


def synchronize_batchnorm(model: Model, device: torch.device) -> None:
    """Makes batch norms see the batch of all processes, in place; a :class:`ConfigError` where torch cannot."""
    if device.type != "cuda":
        raise ConfigError(
            f"trainer.sync_batchnorm=true: torch synchronises batch norms on GPUs alone, and this is a {device.type}",
            "leave it false; each process then normalises its own share of a batch",
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]


class Shards:
    """One transformer spread over the processes: each keeps a share of the weights, their average and their moments.

    The weights of a block are gathered when they are needed and let go of afterwards, by torch's :func:`fully_shard`
    (Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023). It spreads the model in
    place, before optimizers and averages are made of its parameters.
    """

    def __init__(self, model: Model) -> None:
        from torch.distributed.fsdp import fully_shard

        self.model = model
        for module in model.modules():
            if isinstance(module, Block):
                fully_shard(module)
        fully_shard(model)

    def __call__(self, phase: str, batch: Batch) -> Losses:
        """The losses of a phase on this process's share of a batch."""
        return cast(Losses, self.model(phase, batch))

    def accumulating(self, phase: str, last: bool) -> AbstractContextManager[Any]:
        """Within the context gradients add up, and only those of the `last` batch are averaged, with all before."""
        cast("FSDPModule", self.model).set_requires_gradient_sync(last)
        return nullcontext()

    def average_statistics(self) -> None:
        """A transformer has none."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the context every process has all of the weights, so that one may look at the model by itself."""
        from torch.distributed.fsdp import FSDPModule

        parts = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        for part in parts:
            part.set_reshard_after_forward(False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.reshard()
                part.set_reshard_after_forward(isinstance(part, Block))


def check_sharding(model: Model, config: TrainerConfig) -> None:
    """Refuses, by a :class:`ConfigError`, to spread what is not a transformer, or trains in a way that rules it out."""
    if config.sharding == "none":
        return
    if not any(isinstance(module, Block) for module in model.modules()):
        what = f"trainer.sharding=full spreads transformers over processes, and {type(model).__name__} is not one"
        raise ConfigError(what, "leave trainer.sharding=none")
    if config.compile is True or config.precision == "fp16":
        word = "trainer.compile=true" if config.compile is True else "trainer.precision=fp16"
        what = f"trainer.sharding=full cannot be combined with {word}"
        raise ConfigError(what, "leave that out, or leave trainer.sharding=none")


def whole(tensor: Tensor) -> Tensor:
    """The tensor, whole; all processes call it together where it is spread."""
    return tensor.full_tensor() if _is_spread(tensor) else tensor


def as_spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process has, spread as `like` is."""
    if not _is_spread(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _is_spread(tensor: Tensor) -> TypeGuard[DTensor]:
    """No tensor is before torch has loaded what spreads them."""
    spread = sys.modules.get("torch.distributed.tensor")
    return spread is not None and isinstance(tensor, spread.DTensor)
