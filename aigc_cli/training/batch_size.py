"""A batch that memory has no room for: what to try, and a smaller one that trains the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from aigc_cli.errors import ResourceError, warn
from aigc_cli.runs import Run
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
        raise BatchTooLarge(*_advice(config, device)) from error


def _advice(config: Mapping[str, Any], device: torch.device) -> tuple[str, str]:
    trainer, own = config["trainer"], _own_batch(config)
    smaller = smaller_batch(config)
    if own is not None:
        key, size = own
        batch, first = f"data.{key}={size}", f"data.{key}={size // 2}"
    else:
        batch, first = f"trainer.batch_size={trainer['batch_size']}", _as_words(smaller or {})
    others = ["trainer.precision=bf16" if device.type == "cuda" else "", "a smaller model"]
    others.append("trainer.auto_batch=true" if smaller and not trainer["auto_batch"] else "")
    return f"out of memory on {device} with {batch}", "try " + ", or ".join(filter(None, [first, *others]))


def _own_batch(config: Mapping[str, Any]) -> tuple[str, int] | None:
    """The key of the data, such as ``batch_tokens``, that says how large a batch is in place of the trainer's."""
    keys = ((key, value) for key, value in config["data"].items() if key.startswith("batch_"))
    return next(((key, value) for key, value in keys if type(value) is int), None)


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


def _as_words(keys: Mapping[str, int]) -> str:
    """Keys of the section `trainer` as a user types them."""
    return " ".join(f"trainer.{key}={value}" for key, value in keys.items())


def may_shrink(run: Run) -> bool:
    """Whether a run may continue with a smaller batch by itself: it has ``trainer.auto_batch``, and there is one."""
    return bool(run.config["trainer"]["auto_batch"]) and smaller_batch(run.config) is not None


def shrink_batch(run: Run) -> None:
    """Gives a run a smaller batch, says so, and frees what the larger one left in memory."""
    config = run.config
    smaller = smaller_batch(config)
    assert smaller is not None
    warn(
        f"out of memory with {_as_words({'batch_size': config['trainer']['batch_size']})}; continuing with "
        f"{_as_words(smaller)}, so that a step sees the same items"
    )
    run.save_config({**config, "trainer": {**config["trainer"], **smaller}}, run.spec)
    release_freed_memory()
