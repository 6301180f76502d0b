"""Training in several processes from one command, and again after one of them failed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from aigc_cli.config.schema import Options
from aigc_cli.errors import AigcError, ConfigError, Interrupted, NonFiniteError, Terminated, say
from aigc_cli.registry import import_plugin
from aigc_cli.runs import Run
from aigc_cli.training.meeting import place
from aigc_cli.training.memory import BatchTooLarge, may_shrink, shrink_batch
from aigc_cli.training.settings import TrainerConfig

Result = TypeVar("Result")
#: Trains as a configuration and options say, and writes the run's directory to a file once there is one.
Train = Callable[[dict[str, Any], Options, Path], Result]

#: What would happen again, or was wanted.
_FINAL = (ConfigError, NonFiniteError, Interrupted, Terminated)


def starts_processes(trainer: TrainerConfig) -> bool:
    """Whether this process is to start those that train; not where torchrun or SLURM has started it as one of them."""
    return place() is None and (trainer.devices > 1 or trainer.restarts > 0)


def run_together(train: Train[Result], config: dict[str, Any], options: Options, trainer: TrainerConfig) -> Result:
    """What `train` gives in the main one of ``trainer.devices`` processes.

    Where one fails, all end, and start again from the run's last checkpoint as often as ``trainer.restarts`` says.
    """
    from aigc_cli.training.launch import Launcher  # torchrun's agent takes a while to import

    launcher: Launcher[Result] = Launcher(_in_process, trainer.devices)
    with tempfile.TemporaryDirectory(prefix="aigc-") as folder:
        note = Path(folder, "run")
        left = trainer.restarts
        while True:
            try:
                return launcher(train, config, options, note)
            except Exception as error:
                run = Run(Path(note.read_text())) if note.exists() else None
                if run is None or isinstance(error, _FINAL):
                    raise
                if isinstance(error, BatchTooLarge) and may_shrink(run):
                    shrink_batch(run)
                elif left:
                    left -= 1
                    say(f"{_last_line(error)}; starting again from the last checkpoint")
                else:
                    raise
                options = replace(options, resume=str(run.path), overrides=())


def _last_line(error: Exception) -> str:
    return error.message if isinstance(error, AigcError) else str(error).strip().splitlines()[-1]


def _in_process(train: Train[Result], config: dict[str, Any], options: Options, note: Path) -> Result:
    for module in options.plugins:
        import_plugin(module)
    return train(config, options, note)
