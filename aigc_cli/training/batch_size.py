"""How large a batch is: at most the training split, and smaller, with as many items a step, where memory runs out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from aigc_cli.config.schema import save_yaml
from aigc_cli.errors import ResourceError, warn
from aigc_cli.runs import Run
from aigc_cli.training.distributed import Processes
from aigc_cli.training.memory import is_out_of_memory, release_freed_memory


class BatchTooLarge(ResourceError):
    """A training step for which memory ran out (exit 5)."""


@contextmanager
def naming_the_batch(config: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Turns memory that runs out into a :class:`BatchTooLarge`, which names the batch and what to try."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        trainer, own, smaller = config["trainer"], _own_batch(config), smaller_batch(config)
        batch, first = f"trainer.batch_size={trainer['batch_size']}", _as_words(smaller or {})
        if own is not None:
            batch, first = f"data.{own[0]}={own[1]}", f"data.{own[0]}={own[1] // 2}"
        others = ["trainer.precision=bf16" if device.type == "cuda" else "", "a smaller model"]
        others.append("trainer.auto_batch=true" if smaller and not trainer["auto_batch"] else "")
        hint = "try " + ", or ".join(filter(None, [first, *others]))
        raise BatchTooLarge(f"out of memory on {device} with {batch}", hint) from error


def _own_batch(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """The key of the data, such as ``batch_tokens``, that says how large a batch is in place of the trainer's."""
    keys = ((key, value) for key, value in config["data"].items() if key.startswith("batch_"))
    return next(((key, value) for key, value in keys if type(value) is int), None)


def fitting_data(config: dict[str, Any], items: int, processes: Processes) -> dict[str, Any]:
    """The configuration with a batch of at most the `items` of the training split; a warning says where it had more.

    What lies beyond would repeat items within one step, and take memory for each repetition.
    """
    size, count = config["trainer"]["batch_size"], processes.world_size
    most = max(items // count, 2) * count  # every process gets as many, and a batch norm needs two
    if size <= max(items, most) or _own_batch(config) is not None:
        return config
    if processes.main:
        warn(
            f"trainer.batch_size={size} is more than the {items:,} items of the training split; training with "
            f"{_as_words({'batch_size': most})} (trainer.accumulate= makes a step of several batches)"
        )
    return {**config, "trainer": {**config["trainer"], "batch_size": most}}


def smaller_batch(config: Mapping[str, Any]) -> dict[str, int] | None:
    """The keys of half the batch, or of the next part that divides it, with as many more accumulated.

    A step sees the same items, so the run trains the same. None where a batch is a single item, or the data counts it
    in something else, such as tokens: half of those would put other items together.
    """
    size, accumulate = config["trainer"]["batch_size"], config["trainer"]["accumulate"]
    if size == 1 or _own_batch(config) is not None:
        return None
    parts = next(divisor for divisor in range(2, size + 1) if size % divisor == 0)
    return {"batch_size": size // parts, "accumulate": accumulate * parts}


def shrink_batch(run: Run, smaller: Mapping[str, int]) -> None:
    """Gives a run a :func:`smaller_batch`, says so, and frees what the larger one left in memory."""
    config = run.config
    warn(
        f"out of memory with trainer.batch_size={config['trainer']['batch_size']}; continuing with "
        f"{_as_words(smaller)}, so that a step sees the same items"
    )
    # The identity stays: it is of what was asked for, and of what a step sees.
    save_yaml(run.path / "config.yaml", {**config, "trainer": {**config["trainer"], **smaller}})
    release_freed_memory()


def _as_words(keys: Mapping[str, int]) -> str:
    return " ".join(f"trainer.{key}={value}" for key, value in keys.items())
