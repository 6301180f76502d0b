"""Writes the checkpoints of a run beside its training loop, which waits for a copy of its tensors alone."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace

import torch

from aigc_cli.files import write_json
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder, Tensors
from aigc_cli.training.settings import State


class Saver:
    """Saves one checkpoint at a time, in a thread of its own.

    The run's records follow, and older checkpoints go, only when it is there. What goes wrong is raised where the loop
    looks next: :meth:`check`, :meth:`wait`, or the next :meth:`start`.

    Args:
        run: The run.
        keep: How many of the newest checkpoints stay, beside the best one.
    """

    def __init__(self, run: Run, keep: int) -> None:
        self.run, self.keep = run, keep
        self.checkpoints = CheckpointFolder(run.checkpoints)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._thread.submit(int)  # it starts now, so that there is room for it when there is something to save
        self._pending: Future[None] | None = None

    def start(self, state: State, tensors: Mapping[str, Tensors], files: Mapping[str, str]) -> None:
        """Copies what is to be saved and begins to write it, when what was begun before is written."""
        self.wait()
        self._pending = self._thread.submit(self._save, replace(state), _copies(tensors), files)

    def check(self) -> None:
        """Raises what went wrong with a save that has ended.

        Raises:
            NonFiniteError: a tensor held NaN or Inf; nothing was written.
            ResourceError: no space, or no permission; nothing was left behind.
        """
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits until all is written; raises as :meth:`check`."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _save(self, state: State, tensors: Mapping[str, Tensors], files: Mapping[str, str]) -> None:
        self.checkpoints.save(state.step, tensors, asdict(state), files)
        if state.best_step == state.step:
            write_json(self.run.path / "best.json", {"step": state.step, "value": state.best})
        self.checkpoints.prune(state.step, self.keep, state.best_step)
        self.run.set_status("running", state.step)


def _copies(tensors: Mapping[str, Tensors]) -> dict[str, Tensors]:
    """The tensors in this machine's memory, as they are now."""
    return {
        file: {
            name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, tensor in group.items()
        }
        for file, group in tensors.items()
    }
