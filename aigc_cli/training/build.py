"""What training is made of, from its configuration: settings that were checked, a device, data, and a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import OF_ALL_DATA, STRICT, check, own_keys
from aigc_cli.data.base import Dataset
from aigc_cli.data.open import Splits
from aigc_cli.data.tokens import CodesConfig
from aigc_cli.errors import ConfigError, warn
from aigc_cli.models.base import Model, build_model, keys_of
from aigc_cli.registry import find
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.distributed import launched, own_device, share_of
from aigc_cli.training.loggers.base import check_loggers
from aigc_cli.training.memory import keep_freed_memory
from aigc_cli.training.optimizers import OptimizerConfig, check_networks
from aigc_cli.training.parallel import check_sharding, synchronize_batchnorm
from aigc_cli.training.settings import TrainerConfig
from aigc_cli.training.warm_start import Taken, warm_start


@typed(config=STRICT, frozen=True, kw_only=True)
class SweepConfig:
    """The section `sweep`."""

    objective: str | None


@typed(config=STRICT, frozen=True, kw_only=True)
class TrainConfig:
    """The top level of a configuration; each section is checked against its own component's."""

    model: dict[str, Any]
    data: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: dict[str, Any]
    seed: Annotated[int, Field(ge=0)]
    run_dir: str | None
    outputs: str
    sweep: SweepConfig


@dataclass(frozen=True)
class Settings:
    """A configuration that was checked."""

    optimizer: OptimizerConfig
    trainer: TrainerConfig
    seed: int


def check_config(config: Mapping[str, Any]) -> Settings:
    """Checks every section, with all problems named at once.

    Raises:
        ConfigError: unknown components or keys, wrong types, values out of range, contradictory choices.
    """
    top = check("", TrainConfig, config)
    schemas = {kind: find(kind, _name(config, kind)).config for kind in ("model", "data", "optimizer")}
    checked, problems = {}, []
    for section, schema in {**schemas, "trainer": TrainerConfig}.items():
        try:
            values = keys_of(schema, config[section]) if section == "model" else config[section]
            if section == "data":
                check(section, CodesConfig, {key: values[key] for key in OF_ALL_DATA if key in values})
                values = own_keys(values)
            checked[section] = check(section, schema, values)
        except ConfigError as error:
            problems.append(error)
    if problems:
        hints = [error.hint for error in problems if error.hint]
        raise ConfigError("; ".join(error.message for error in problems), "; ".join(hints))
    trainer: TrainerConfig = checked["trainer"]
    own_device(trainer)
    processes = launched()
    share_of(trainer.batch_size, processes.world_size if processes else trainer.devices)
    if trainer.early_stop is not None and trainer.validate_every is None:
        what = f"trainer.early_stop={trainer.early_stop} waits for a held-out score, and nothing measures one"
        raise ConfigError(what, "add trainer.validate_every=N, in steps")
    if trainer.early_stop is None and trainer.early_stop_delta:
        what = "trainer.early_stop_delta has no effect without trainer.early_stop"
        raise ConfigError(what, "add trainer.early_stop=N, in validations")
    check_loggers(trainer.loggers)
    return Settings(checked["optimizer"], trainer, top.seed)


def _name(config: Mapping[str, Any], kind: str) -> str:
    name = config[kind].get("name")
    if not isinstance(name, str):
        raise ConfigError(f"the section {kind} names no component", f"choose one with {kind}=NAME")
    return name


def set_up_torch(trainer: TrainerConfig, job: int | None = None) -> torch.device:
    """The device of this process, with torch set up for it; `job` is its number where it is one of a sweep."""
    device, processes = own_device(trainer), launched()
    if device == torch.device("cuda") and job is not None:
        device = torch.device("cuda", job % torch.cuda.device_count())  # a sweep's jobs spread over the GPUs
    keep_freed_memory()
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    elif processes is not None and device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // processes.local_world_size))
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


@dataclass(frozen=True)
class Parts:
    """What a run trains, and on what."""

    splits: Splits
    model: Model
    taken: Taken | None  # of the weights of the run that it starts from

    @property
    def dataset(self) -> Dataset:
        """What it trains on."""
        return self.splits["train"]


def build(config: Mapping[str, Any], settings: Settings, device: torch.device, folder: Path | None = None) -> Parts:
    """Opens the data and builds the model; `folder` is that of a run to resume, which has a tokenizer already.

    Raises:
        ConfigError: model, data and settings do not go together.
        DataError: the data, or the weights to start from, are missing or cannot be trusted.
    """
    splits = Splits.of_config(config["data"], folder)
    dataset = splits["train"]
    for problem in dataset.problems()[:5]:  # all of them are in bad_files.txt
        warn(problem)
    # Fresh weights depend on the seed alone, whatever was drawn before.
    torch.manual_seed(settings.seed)
    model = build_model(config["model"], dataset.spec)
    begun = folder is not None and CheckpointFolder(folder / "checkpoints").steps()
    taken = None
    if not begun:
        model.begin(dataset.codec)
        taken = warm_start(model, dataset.codec, config)
    check_sharding(model, settings.trainer)
    if settings.trainer.sync_batchnorm:
        synchronize_batchnorm(model, device)
    check_networks(settings.optimizer, [phase.name for phase in model.phases(0)])
    return Parts(splits, model, taken)
