"""What may not have changed between a checkpoint and the run that goes on from it, and what is said of what has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aigc_cli.errors import ConfigError, say
from aigc_cli.modalities.base import DataSpec
from aigc_cli.models.base import Model
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import Checkpoint

SHOWN = 5  # keys that a message names


def refuse_changes(run: Run, checkpoint: Checkpoint, spec: DataSpec, model: Model) -> None:
    """Refuses to go on from `checkpoint` with other data than `spec`, or with another `model`.

    Raises:
        ConfigError: they differ; the message names the keys that do.
    """
    saved = checkpoint.state.fingerprint
    if saved != spec.fingerprint:
        before = asdict(run.spec) if (run.path / "data.json").is_file() else {}
        keys = differences({**before, "fingerprint": saved}, asdict(spec), present=set(before) | {"fingerprint"})
        raise ConfigError(
            f"the data of {run.name} has changed since its checkpoint: {keys}",
            "put the data back as it was (data.root=), or start a new run without --resume",
        )
    shapes = {name: list(tensor.shape) for name, tensor in checkpoint.tensors["model"].items()}
    now = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    if shapes != now:
        raise ConfigError(
            f"the model of {run.name} has changed since its checkpoint: {differences(shapes, now)}",
            "restore the run's own config.yaml, or start a new run without --resume",
        )


def say_resumed(run: Run, checkpoint: Checkpoint, processes: int) -> None:
    """Says from where a run goes on, and whether another number of `processes` does than before."""
    say(f"resuming {run.name} from step {checkpoint.step}")
    before = checkpoint.state.processes
    if before != processes:
        say(
            f"warning: trained by {before} processes so far, now by {processes}: "
            "items come in the same order, but sums round differently, so that it does not repeat bit for bit"
        )


def differences(before: Mapping[str, Any], after: Mapping[str, Any], present: set[str] | None = None) -> str:
    """The keys whose values differ, as ``key: before -> after``, the first few; `present` are those to compare."""
    keys = sorted({*before, *after} if present is None else present)
    found = [
        f"{key}: {_brief(before, key)} -> {_brief(after, key)}" for key in keys if before.get(key) != after.get(key)
    ]
    more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _brief(values: Mapping[str, Any], key: str) -> str:
    text = str(values[key]) if key in values else "none"
    return text if len(text) <= 40 else f"{text[:36]}..."
