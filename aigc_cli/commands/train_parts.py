"""What a training process is made of before its run is there: its device, its data, its model, and what it watches."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aigc_cli.commands.watching import Watched, examiner, validator, watch
from aigc_cli.config.schema import Options
from aigc_cli.data import open_dataset
from aigc_cli.data.base import Dataset
from aigc_cli.errors import warn
from aigc_cli.models.base import Model
from aigc_cli.training.checkpoint import CheckpointFolder, build_model
from aigc_cli.training.distributed import Processes, own_device, synchronized
from aigc_cli.training.meeting import place
from aigc_cli.training.memory import keep_freed_memory
from aigc_cli.training.optimizers import OptimizerConfig, check_networks
from aigc_cli.training.settings import TrainerConfig
from aigc_cli.training.sharding import check_sharding
from aigc_cli.training.warm_start import Taken, warm_start


@dataclass(frozen=True)
class Settings:
    """A configuration that was checked."""

    optimizer: OptimizerConfig
    trainer: TrainerConfig
    seed: int


@dataclass(frozen=True)
class Work:
    """What a process is to do, on what, and with whom."""

    config: dict[str, Any]
    settings: Settings
    device: torch.device
    processes: Processes
    note: Path | None = None  # where the run's directory is written down


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built before a run directory is: until then anything may turn out not to fit."""

    dataset: Dataset
    model: Model
    taken: Taken | None  # of another run's weights
    watched: Watched
    validate: Callable[[], dict[str, float]] | None
    examine: Callable[[], dict[str, float]] | None


def prepare(trainer: TrainerConfig, options: Options) -> torch.device:
    """The device of this process, with torch set up for it."""
    device, where = own_device(trainer), place()
    if device == torch.device("cuda") and options.job is not None:
        device = torch.device("cuda", options.job % torch.cuda.device_count())  # a sweep's jobs spread over the GPUs
    keep_freed_memory()
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    elif where is not None and device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // where.local_world_size))
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)  # what asks for no GPU in particular, such as pinned memory, means this one
        if trainer.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else cuBLAS may not repeat itself
        torch.backends.cuda.matmul.allow_tf32 = not trainer.deterministic
        torch.backends.cudnn.allow_tf32 = not trainer.deterministic
        torch.backends.cudnn.benchmark = not trainer.deterministic
        torch.use_deterministic_algorithms(trainer.deterministic)
    return device


def build(work: Work, folder: Path | None = None) -> Parts:
    """Opens the data and builds the model; `folder` is that of a run which has a tokenizer already."""
    config, settings = work.config, work.settings.trainer
    dataset = open_dataset(config["data"], "train", folder)
    for problem in dataset.problems()[:5]:
        warn(f"{problem}")
    # Fresh weights depend on the seed alone, whatever was drawn before.
    torch.manual_seed(config["seed"])
    model = build_model(config["model"], dataset.spec)
    begun = folder is not None and CheckpointFolder(folder / "checkpoints").steps()
    taken = None if begun else warm_start(model, dataset.codec, config)
    check_sharding(model, settings)
    if settings.sync_batchnorm:
        synchronized(model, work.device)
    check_networks(work.settings.optimizer, [phase.name for phase in model.phases(0)])
    watched = watch(model, dataset, config["data"], settings, work.device, folder)
    validate = validator(watched) if settings.validate_every is not None else None
    examine = examiner(watched) if settings.examine_every is not None else None
    return Parts(dataset, model, taken, watched, validate, examine)
