"""Runs that nobody trained, for tests of what is done with runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aigc_cli.config.compose import compose
from aigc_cli.data.open import open_dataset
from aigc_cli.models.base import build_model
from aigc_cli.new_run import create_run
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder


def fresh(words: Sequence[str]) -> Run:
    """The run of these words, whose checkpoint of step 3 holds fresh weights."""
    config = compose("train", list(words))
    dataset, run = open_dataset(config["data"], "train"), create_run(config)
    run.save_config(config, dataset.spec, dataset.codec.files())
    torch.manual_seed(0)
    model = build_model(config["model"], dataset.spec)
    CheckpointFolder(run.checkpoints).save(3, {"model": model.state_dict()}, {"step": 3})
    run.set_status("complete", 3)
    return run
