"""The format of checkpoints: ``step-N/{model,ema,optimizer}.safetensors + state.json + manifest.json``.

A checkpoint is written to a temporary folder, flushed, and renamed, so it is there whole or not at all. The manifest
holds the SHA-256 of each file; what does not match it is skipped with a warning. Nothing is pickled.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import DataError, NonFiniteError, warn
from aigc_cli.files import checksum, read_json, resource_errors, sync, write_atomically, write_json
from aigc_cli.training.journal import Sums

Tensors = dict[str, Tensor]
_NAME = re.compile(r"step-(\d+)")

Position = Annotated[int, Field(ge=0, lt=1 << 53)]
#: The version of the format, which is raised where an older version could not go on from a checkpoint.
FORMAT = 1


@typed(config=STRICT)
class State:
    """What a run must remember beside its tensors: ``state.json``."""

    step: Position = 0  # training steps done
    batches: Position = 0  # micro-batches taken from the loader
    batch_size: Position = 0  # of them
    updates: Position = 0  # steps done that were not skipped, for an fp16 overflow or too large a gradient
    seconds: float = 0.0  # spent in training, over all its processes
    best: float | None = None  # lowest validation score
    best_step: Position | None = None
    to_beat: float | None = None  # score that a validation must be below, by trainer.early_stop_delta, to be better
    since_better: Position = 0  # validations since one was
    fingerprint: str = ""  # of the training data
    processes: Annotated[int, Field(ge=1)] = 1  # that trained it last
    scalers: dict[str, dict[str, int | float]] = field(default_factory=dict)  # for fp16, by phase
    tally: list[Sums] = field(default_factory=list)  # what the next row is made of
    config: dict[str, Any] = field(default_factory=dict)  # that of the run
    format: Annotated[int, Field(ge=1)] = FORMAT

    def continued(self, batch_size: int, processes: int) -> State:
        """As so many processes resume from it, with batches of this size: a smaller one may have replaced that of the
        checkpoint, and a step then accumulates more of them."""
        batches = self.batches * (self.batch_size or batch_size) // batch_size
        return replace(self, batches=batches, batch_size=batch_size, processes=processes)


class NewerCheckpoint(DataError):
    """A checkpoint that is whole, and that this version does not know how to read."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and verified."""

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
        self, step: int, tensors: Mapping[str, Tensors], state: dict[str, Any], files: Mapping[str, str] | None = None
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
                        "resume from the last checkpoint with a lower optimizer.lr, or with trainer.clip_grad_norm",
                    )
        temporary = self.path / f".tmp-step-{step}"
        with resource_errors(self.path):
            try:
                _write(temporary, tensors, state, files or {})
                self._publish(temporary, self.folder(step))
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _publish(self, temporary: Path, final: Path) -> None:
        aside = self.path / f".tmp-replaced-{final.name}"
        if final.exists():
            # Nothing can be renamed over a folder that is not empty. A kill between the two renames does no harm: a
            # run saves a step again only where it could not resume from what was there.
            shutil.rmtree(aside, ignore_errors=True)
            final.rename(aside)
        temporary.rename(final)
        shutil.rmtree(aside, ignore_errors=True)
        sync(self.path)

    def prune(self, newest: int, keep: int, best: int | None) -> None:
        """Deletes all but the best and the last `keep` up to `newest`, which has just been written, so it is valid."""
        # Later ones do not count: they are broken, or the run would have resumed from there.
        for step in [step for step in self.steps() if step <= newest][:-keep]:
            if step != best:
                shutil.rmtree(self.folder(step), ignore_errors=True)

    def load(self, step: int) -> Checkpoint:
        """Reads and verifies one checkpoint.

        Raises:
            DataError: it is broken; the message says how.
            NewerCheckpoint: a newer version wrote it.
        """
        folder = self.folder(step)
        try:
            manifest = read_json(folder / "manifest.json")
            _verify(folder, manifest)
            _refuse_newer(folder)
            state = TypeAdapter(State).validate_json((folder / "state.json").read_bytes())
            files = [name.removesuffix(".safetensors") for name in manifest if name.endswith(".safetensors")]
            tensors = {file: load_file(folder / f"{file}.safetensors") for file in files}
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error)
            if isinstance(error, ValidationError):
                problem = error.errors(include_url=False)[0]
                reason = ": ".join(filter(None, ["state.json", ".".join(map(str, problem["loc"])), problem["msg"]]))
            elif isinstance(error, FileNotFoundError):
                reason = f"{Path(error.filename).name} is missing"
            raise DataError(f"checkpoint {folder} is broken: {reason}") from None
        if state.step != step or "model" not in tensors:
            raise DataError(f"checkpoint {folder} is broken: it is not what its name says")
        return Checkpoint(folder, step, tensors, state, manifest)

    def load_newest(self) -> Checkpoint | None:
        """The newest valid checkpoint; None where there is none at all.

        Raises:
            DataError: there are some, and all are broken.
            NewerCheckpoint: a newer version wrote it; to go on from an older one would replace it.
        """
        broken = []
        for step in reversed(self.steps()):
            try:
                return self.load(step)
            except NewerCheckpoint:
                raise
            except DataError as error:
                broken.append(error.message)
                warn(f"{error.message}; trying an earlier one")
        if broken:
            raise DataError(
                f"all {len(broken)} checkpoints in {self.path} are broken: {'; '.join(broken)}",
                "restore one from a copy, or start again without --resume",
            )
        return None


def is_whole(folder: Path) -> bool:
    """Whether every file of a checkpoint is there and has its sum."""
    try:
        _verify(folder, read_json(folder / "manifest.json"))
    except (OSError, ValueError):
        return False
    return True


def _write(folder: Path, tensors: Mapping[str, Tensors], state: Mapping[str, Any], files: Mapping[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file, group in tensors.items():
        path = folder / f"{file}.safetensors"
        write_tensors(path, group)
        sync(path)
    for file, content in files.items():
        write_atomically(folder / file, content)
    write_json(folder / "state.json", state)
    # Last, since it has the sums of all others.
    write_json(folder / "manifest.json", {path.name: checksum(path) for path in sorted(folder.iterdir())})
    sync(folder)


def _refuse_newer(folder: Path) -> None:
    saved = read_json(folder / "state.json")
    if not isinstance(saved, dict):
        return  # broken, which is said where it is read
    version, unknown = saved.get("format", 1), sorted(saved.keys() - {known.name for known in fields(State)})
    newer = isinstance(version, int) and version > FORMAT
    if newer or unknown:
        how = f"it has format {version}, and this one reads {FORMAT}" if newer else f"it has {', '.join(unknown)}"
        what = f"checkpoint {folder} was written by a newer version of aigc: {how}"
        raise NewerCheckpoint(what, "update aigc; or move that folder away, and the checkpoint before it is used")


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


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors of any device, which may share memory; an :class:`OSError` where there is no room for them."""
    own: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        storage = here.untyped_storage().data_ptr()
        own[name] = here.clone() if storage in taken else here  # tied weights share memory, which is refused
        taken.add(storage)
    try:
        save_file(own, path)
    except SafetensorError as error:
        # safetensors reports the operating system's errors as text: "... (os error 28)"
        match = re.search(r"os error (\d+)", str(error))
        if match is None:
            raise
        raise OSError(int(match[1]), os.strerror(int(match[1]))) from error
