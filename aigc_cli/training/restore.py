"""The trained model of a run, from one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from aigc_cli.errors import ConfigError, DataError, suggest
from aigc_cli.files import read_json
from aigc_cli.modalities.base import Codec, DataSpec, modality
from aigc_cli.models.base import Model, build_model
from aigc_cli.nn.lora import merge_adapters
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import Checkpoint, CheckpointFolder
from aigc_cli.training.precision import resolve_device


@dataclass(frozen=True)
class Restored:
    """A trained model, ready to sample, with what is needed to say where it came from."""

    run: Run
    model: Model
    step: int
    checksum: str  # SHA-256 of the file of weights in use
    spec: DataSpec
    codec: Codec
    device: torch.device


def restore_model(run: Run, *, step: int | str | None = None, device: str = "auto") -> Restored:
    """The model of a run as it is sampled: averaged weights where there are any, in evaluation mode.

    Args:
        run: The run.
        step: Which checkpoint; None is the newest valid one, "best" the one that validated best.
        device: As `trainer.device`.

    Raises:
        ConfigError: the run has no such checkpoint.
        DataError: the checkpoint is broken, or is not of this model.
    """
    where = resolve_device(device)
    model = build_model(run.config["model"], run.spec)
    checkpoint = choose_checkpoint(run, step)
    try:
        model.load_state_dict(checkpoint.tensors["model"])
        if "ema" in checkpoint.tensors:
            model.averaged().load_state_dict(checkpoint.tensors["ema"])
    except RuntimeError as error:
        raise DataError(
            f"checkpoint {checkpoint.path} is not of the model in {run.path}/config.yaml: {_first_line(error)}",
            "restore the run's own config.yaml, or train again",
        ) from None
    merge_adapters(model)
    model.requires_grad_(False).eval().to(where)
    weights = "ema" if "ema" in checkpoint.tensors else "model"
    used = checkpoint.sums[f"{weights}.safetensors"]
    own = any(not name.endswith(".safetensors") and name != "state.json" for name in checkpoint.sums)
    codec = modality(run.spec.modality).codec(run.spec, checkpoint.path if own else run.path)
    return Restored(run, model, checkpoint.step, used, run.spec, codec, where)


def choose_checkpoint(run: Run, step: int | str | None) -> Checkpoint:
    """The checkpoint of a run that `step` names, as :func:`restore_model` takes and refuses it."""
    folder = CheckpointFolder(run.checkpoints)
    if step is None:
        newest = folder.load_newest()
        if newest is None:
            raise ConfigError(
                f"{run.path} has no checkpoint yet", "let it train until its first one (trainer.checkpoint_every)"
            )
        return newest
    if step == "best":
        best = best_step(run)
        if best is None:
            raise ConfigError(
                f"{run.path} has no best checkpoint", "train with trainer.validate_every=N, or drop step="
            )
        step = best
    known = [str(known) for known in folder.steps()]
    if str(step) not in known:
        choices = known if best_step(run) is None else [*known, "best"]
        raise ConfigError(f"{run.path} has no checkpoint of step {step}", suggest(str(step), choices))
    return folder.load(int(step))


def best_step(run: Run) -> int | None:
    """The step of the checkpoint that validated best, as ``best.json`` records it."""
    try:
        step = read_json(run.path / "best.json")["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]
