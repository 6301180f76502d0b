"""Starts the processes that train together, says how they ended, and starts them again where that helps.

torchrun's elastic agent runs in this process: it starts the others and watches over them.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aigc_cli.config.schema import Options
from aigc_cli.errors import (
    EXIT_BUG,
    AigcError,
    ConfigError,
    DataError,
    Interrupted,
    NonFiniteError,
    ResourceError,
    Terminated,
    as_user_error,
    say,
)
from aigc_cli.files import write_json
from aigc_cli.registry import import_plugin, plugin_words
from aigc_cli.runs import Run
from aigc_cli.threads import watch
from aigc_cli.training.batch_size import BatchTooLarge, shrink_batch, smaller_batch
from aigc_cli.training.distributed import launched
from aigc_cli.training.settings import TrainerConfig
from aigc_cli.training.signals import end_with_parent, signals_to

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

T = TypeVar("T")
#: Trains as a configuration and options say, and writes the run's directory to a file once there is one.
Train = Callable[[dict[str, Any], Options, Path | None], T]

_KINDS = {kind.exit_code: kind for kind in (ConfigError, DataError, NonFiniteError, ResourceError)}
#: What would happen again, or was wanted.
_FINAL = (ConfigError, NonFiniteError, Interrupted, Terminated)
#: Seconds by which a process that was killed is ahead of those that lose it. The agent looks at all ten times a second
#: and reports the first that it finds ended, which would otherwise now and then be one of the others.
_AHEAD = 1.0
#: How Gloo and NCCL word that another process is gone.
_PEER_GONE = ("connection closed", "connection reset", "broken pipe", "nccl", "gloo")


def train_until_done(train: Train[T], config: dict[str, Any], options: Options, trainer: TrainerConfig) -> T:
    """What `train` returns here, or in the main one of ``trainer.devices`` processes.

    Where it fails it starts again from the run's last checkpoint, as often as ``trainer.restarts`` says; where memory
    ran out, with a smaller batch if ``trainer.auto_batch`` says so.
    """
    if launched() is not None:
        return train(config, options, None)  # torchrun or SLURM started several processes, and would start them again
    together = trainer.devices > 1 or trainer.restarts > 0
    attempt = partial(run_together, trainer.devices, _train_in_process, train) if together else train
    left = trainer.restarts
    with tempfile.TemporaryDirectory(prefix="aigc-") as folder:
        note = Path(folder, "run")
        while True:
            try:
                return attempt(config, options, note)
            except Exception as error:
                if not note.exists() or isinstance(error, _FINAL):
                    raise
                run = Run(Path(note.read_text()))
                shrinks = isinstance(error, BatchTooLarge) and run.config["trainer"]["auto_batch"]
                smaller = smaller_batch(run.config) if shrinks else None
                if smaller is None:
                    if not left:
                        raise
                    left -= 1
                    why = error.message if isinstance(error, AigcError) else str(error).strip().splitlines()[-1]
                    say(f"{why}; starting again from the last checkpoint")
            if smaller is not None:
                shrink_batch(run, smaller)  # here, where the error no longer holds what was in memory
            config, options = Run(run.path).config, replace(options, resume=str(run.path))


def _train_in_process(train: Train[T], config: dict[str, Any], options: Options, note: Path) -> T:
    for module in options.plugins:
        import_plugin(module)
    return train(config, options, note)


def run_together(count: int, function: Callable[..., T], *args: Any) -> T:
    """What a function of a module, where fresh processes find it, returns in the main one of `count` processes here.

    Raises:
        AigcError: what the first process that failed raised, or what all of them did together.
        ResourceError: a process was killed.
        KeyboardInterrupt: Ctrl-C ended them before training had begun, or a second one at once.
        RuntimeError: a bug of ours in one, with its traceback.
    """
    # Only training in several processes pays for importing the agent.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we say what happened ourselves
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=uuid.uuid4().hex, rdzv_backend="c10d",
        rdzv_endpoint="localhost:0", local_addr="localhost", max_restarts=0, signals_to_handle="SIGHUP",
    )  # fmt: skip
    # Read by torch's C++ when a process loads it: DDP would otherwise advise each against our settings.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    passed_on: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:  # to processes that know how to stop; this one waits
        passed_on.append(number)
        for child in multiprocessing.active_children():
            with suppress(ProcessLookupError):
                os.kill(child.pid or 0, number)

    with tempfile.TemporaryDirectory(prefix="aigc-") as folder, signals_to(pass_on):
        try:
            outcomes = elastic_launch(config, _work)(function, args, folder)
        except ChildFailedError as error:
            raise first_cause(Path(folder), error, count, interrupted=signal.SIGINT in passed_on) from None
    if isinstance(outcomes[0], AigcError):
        raise outcomes[0]
    return cast(T, outcomes[0])


def first_cause(folder: Path, error: ChildFailedError, count: int, *, interrupted: bool) -> BaseException:
    """The first failure that is not a consequence of another, of those that processes wrote down in `folder`."""
    told = [json.loads(file.read_text()) for file in folder.glob("*.json")]
    causes = sorted((failure for failure in told if not failure["lost"]), key=lambda failure: failure["time"])
    killed = [failure for failure in error.failures.values() if failure.exitcode < 0]
    if interrupted and not any(failure["code"] in _KINDS for failure in causes):
        return KeyboardInterrupt()
    if causes:
        cause = causes[0]
        kind = _KINDS.get(cause["code"])
        if kind is None:
            return RuntimeError(f"in process {cause['rank']}:\n{cause['traceback']}")
        return (BatchTooLarge if cause["too_large"] else kind)(cause["message"], cause["hint"])
    if killed:
        name = signal.Signals(-killed[0].exitcode).name
        if name == "SIGTERM":
            return Terminated(f"process {killed[0].local_rank} of {count} was stopped before training had begun")
        return ResourceError(
            f"process {killed[0].local_rank} of {count} was killed ({name}), and the others ended with it",
            "most often the machine ran out of memory: use a smaller trainer.batch_size, or fewer trainer.devices; "
            f"`aigc train --resume{plugin_words()}` resumes from the last checkpoint",
        )
    return RuntimeError(told[0]["traceback"] if told else str(error))


def _work(function: Callable[..., T], args: tuple[Any, ...], folder: str) -> T | AigcError:
    """What each process does; an error ends it at once, so that the agent ends the others."""
    with suppress(PermissionError):
        os.setpgid(0, 0)  # Ctrl-C reaches the whole group of the terminal; the launcher passes it on, once
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the launcher's, which a fork inherits
    end_with_parent(first=5.0)  # torch sends SIGINT at once, but waits for the launcher then
    rank = int(os.environ["RANK"])
    watch()
    try:
        return function(*args)
    except (Interrupted, Terminated) as error:
        return error  # all stop together, in order
    except BaseException as error:
        known = as_user_error(error) if isinstance(error, Exception) else None
        code = EXIT_BUG if known is None else known.exit_code
        unknown = known is None and isinstance(error, RuntimeError)
        failure = {
            "rank": rank, "time": time.time(), "code": code, "too_large": isinstance(error, BatchTooLarge),
            "lost": unknown and any(words in str(error).lower() for words in _PEER_GONE),
            "message": known.message if known else "", "hint": known.hint if known else "",
            "traceback": "".join(traceback.format_exception(error)),
        }  # fmt: skip
        write_json(Path(folder, f"{rank}.json"), failure)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if failure["lost"]:
            time.sleep(_AHEAD)
        os._exit(code)  # what is left of the group would have the interpreter wait at its end
