"""One transformer spread over processes: each keeps a share of the weights, their average and their moments.

The weights of a block are gathered when they are needed and let go of afterwards, by torch's :func:`fully_shard` (Zhao
et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

from torch import Tensor
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Losses, Model
from aigc_cli.nn.transformer import Block
from aigc_cli.training.settings import TrainerConfig


def check_sharding(model: Model, config: TrainerConfig) -> None:
    """Refuses to spread a model that cannot be.

    Raises:
        ConfigError: it is no transformer, or trains in a way that does not go with it.
    """
    if config.sharding == "none":
        return
    if not any(isinstance(module, Block) for module in model.modules()):
        name = type(model).__name__
        raise ConfigError(
            f"trainer.sharding=full spreads transformers over processes, and {name} is none",
            "leave trainer.sharding=none",
        )
    if config.compile or config.precision == "fp16":
        word = "trainer.compile=true" if config.compile else "trainer.precision=fp16"
        raise ConfigError(
            f"trainer.sharding=full does not go with {word}", "leave that out, or leave trainer.sharding=none"
        )


class Shards:
    """A transformer that is spread over the processes; what :class:`Replicas` is to models that each has whole.

    It spreads the model in place, before optimizers and averages are made of its parameters.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        for module in model.modules():
            if isinstance(module, Block):
                fully_shard(module)
        fully_shard(model)

    def __call__(self, phase: str, batch: Batch) -> Losses:
        """The losses of a phase on this process's share of a batch."""
        losses: Losses = self.model(phase, batch)
        return losses

    def accumulating(self, phase: str, last: bool) -> AbstractContextManager[Any]:
        """Within the context gradients add up, and only those of the `last` batch are averaged, with all before."""
        _root(self.model).set_requires_gradient_sync(last)
        return nullcontext()

    def average_statistics(self) -> None:
        """A transformer has none."""

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the context every process has all of the weights, so that one may look at the model by itself."""
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


def _root(model: Model) -> FSDPModule:
    return cast(FSDPModule, model)


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, whole; all processes call it together."""
    return {name: whole(tensor) for name, tensor in tensors.items()}


def whole(tensor: Tensor) -> Tensor:
    """The tensor, whole; all processes call it together where it is spread."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which every process has, spread as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
