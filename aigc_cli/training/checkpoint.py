"""Checkpoints: ``step-N/{model,ema,optimizer}.safetensors + state.json + manifest.json``, and what a codec needs.

A checkpoint is written to a temporary folder, flushed, and renamed, so it is there whole or not at all. The manifest
holds the SHA-256 of each file; what does not match it is skipped with a warning. Nothing is pickled.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError, NonFiniteError, suggest, warn
from aigc_cli.files import checksum, read_json, resource_errors, sync, write_atomically, write_json
from aigc_cli.modalities.base import Codec, DataSpec, modality
from aigc_cli.models.base import Model, keys_of
from aigc_cli.nn.lora import merge_adapters, train_adapters_only
from aigc_cli.registry import find
from aigc_cli.runs import Run
from aigc_cli.training.precision import resolve_device
from aigc_cli.training.settings import State, read_state
from aigc_cli.training.tensor_files import write_tensors

Tensors = dict[str, Tensor]
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, read and verified."""

    path: Path
    step: int
    tensors: dict[str, Tensors]  # by file: "model", "optimizer", and "ema" where there is one
    state: State
    sums: dict[str, str]  # SHA-256 by file name


class CheckpointFolder:
    """The checkpoints of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, whole or broken, ascending."""
        if not self.path.is_dir():
            return []
        found = (_NAME.fullmatch(entry.name) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def folder(self, step: int) -> Path:
        """Where the checkpoint of `step` is or will be."""
        return self.path / f"step-{step}"

    def clean(self) -> None:
        """Removes what a kill in the middle of a save left behind."""
        for leftover in self.path.glob(".tmp-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensors],
        state: Mapping[str, Any],
        files: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Writes the checkpoint of `step`, replacing one that is there; `files` are further ones, of text, by name.

        Raises:
            NonFiniteError: a tensor holds NaN or Inf; nothing is written.
            ResourceError: no space, or no permission; nothing is left behind.
        """
        for file, group in tensors.items():
            for name, tensor in group.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    raise NonFiniteError(
                        f"step {step}: {file} tensor {name} is not finite, so no checkpoint was written",
                        "go on from the last checkpoint with a lower optimizer.lr, or with trainer.clip_grad_norm",
                    )
        temporary = self.path / f".tmp-step-{step}"
        with resource_errors(self.path):
            try:
                self._write(temporary, tensors, state, files)
                self._publish(temporary, self.folder(step))
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _write(
        self, folder: Path, tensors: Mapping[str, Tensors], state: Mapping[str, Any], files: Mapping[str, str]
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, group in tensors.items():
            path = folder / f"{file}.safetensors"
            write_tensors(path, group)
            sync(path)
        for file, content in files.items():
            write_atomically(folder / file, content)
        write_json(folder / "state.json", dict(state))
        write_json(folder / "manifest.json", {path.name: checksum(path) for path in sorted(folder.iterdir())})
        sync(folder)

    def _publish(self, temporary: Path, final: Path) -> None:
        if final.exists():
            aside = self.path / f".tmp-replaced-{final.name}"
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
            temporary.rename(final)
            shutil.rmtree(aside)
        else:
            temporary.rename(final)
        sync(self.path)

    def prune(self, newest: int, keep: int, best: int | None) -> None:
        """Deletes all but the best and the last `keep` up to `newest`, which has just been written, so it is valid.

        What lies beyond `newest` is broken, or the run would have gone on from there: it counts for nothing.
        """
        for step in [step for step in self.steps() if step <= newest][:-keep]:
            if step != best:
                shutil.rmtree(self.folder(step), ignore_errors=True)

    def load(self, step: int) -> Checkpoint:
        """Reads and verifies one checkpoint.

        Raises:
            DataError: it is broken; the message says how.
        """
        folder = self.folder(step)
        try:
            manifest = read_json(folder / "manifest.json")
            _verify(folder, manifest)
            state = read_state(folder / "state.json")
            files = [name.removesuffix(".safetensors") for name in manifest if name.endswith(".safetensors")]
            tensors = {file: load_file(folder / f"{file}.safetensors") for file in files}
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(f"checkpoint {folder} is broken: {_reason(error)}") from None
        if state.step != step or "model" not in tensors:
            raise DataError(f"checkpoint {folder} is broken: it is not what its name says")
        return Checkpoint(folder, step, tensors, state, manifest)

    def load_newest(self) -> Checkpoint | None:
        """The newest valid checkpoint; None where there is none at all.

        Raises:
            DataError: there are some, and all are broken.
        """
        broken = []
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except DataError as error:
                broken.append(error.message)
                warn(f"{error.message}; trying an earlier one")
        if broken:
            raise DataError(
                f"all {len(broken)} checkpoints in {self.path} are broken: {'; '.join(broken)}",
                "restore one from a copy, or start again without --resume",
            )
        return None


def _verify(folder: Path, manifest: Any) -> None:
    if not isinstance(manifest, dict) or "state.json" not in manifest:
        raise ValueError("manifest.json is not a manifest")
    for name, wanted in manifest.items():
        if Path(name).name != name:
            raise ValueError(f"manifest.json names {name!r}, which is outside the checkpoint")
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if checksum(path) != wanted:
            raise ValueError(f"{name} does not match its sum")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(error.filename).name} is missing"
    return str(error)


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


def build_model(config: Mapping[str, Any], spec: DataSpec) -> Model:
    """The model that the section `model` of a configuration describes, with fresh weights."""
    component = find("model", config["name"])
    model = component.build(check("model", component.config, keys_of(component.config, config)), spec)
    assert isinstance(model, Model)
    train_adapters_only(model)
    return model


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
