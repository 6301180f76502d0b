"""The training loop: phases, precision, accumulation, averaging, reports, checkpoints, stopping.

It knows nothing of any one model. Each step is seeded from (seed, rank, step) and takes the data at a position that
the state counts, so neither random state nor loader state is saved, and a run that was stopped anywhere ends bit for
bit where the uninterrupted one ends.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from aigc_cli.data.loader import Loader
from aigc_cli.errors import AigcError, DataError, Interrupted, ResourceError, Terminated, as_user_error
from aigc_cli.modalities.base import Batch, modality
from aigc_cli.models.base import Model
from aigc_cli.progress import Progress
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import State
from aigc_cli.training.distributed import Processes
from aigc_cli.training.journal import Journal, Tally
from aigc_cli.training.memory import is_out_of_memory
from aigc_cli.training.optimizers import (
    EMA,
    OptimizerConfig,
    Precision,
    build_optimizers,
    lr_factor,
    set_lr,
    state_copies,
)
from aigc_cli.training.parallel import Replicas, Shards, whole
from aigc_cli.training.restore import refuse_changes, say_resumed
from aigc_cli.training.saver import Saver, load_tensors, newest_for_all, tensors_of
from aigc_cli.training.settings import Hooks, TrainerConfig
from aigc_cli.training.signals import Signals, signals_to

T = TypeVar("T")


class Trainer:
    """Trains one model of one run, from its newest checkpoint or from the start."""

    def __init__(
        self, *, model: Model, loader: Loader, optimizer: OptimizerConfig, config: TrainerConfig, seed: int, run: Run,
        device: torch.device, processes: Processes | None = None,
    ) -> None:  # fmt: skip
        self.config, self.optimizer_config, self.seed, self.run, self.device = config, optimizer, seed, run, device
        self.processes = processes or Processes()
        self.loader = loader
        self.model = model.to(device)
        if (memory_format := modality(model.spec.modality).memory_format) is not None:
            self.model.to(memory_format=memory_format)
        phases = dict.fromkeys(phase.name for phase in model.phases(0))
        self.precision = Precision(config.precision, device, phases)
        sharded = config.sharding == "full" and not self.processes.alone
        shards = Shards(model) if sharded else None  # before anything is made of its parameters
        self.optimizers = build_optimizers(optimizer, model, phases)
        self.parallel = shards or Replicas(model, phases, self.processes, self._train_only)
        self.ema = EMA(model.averaged(), config.ema, config.ema_start) if config.ema is not None else None
        self.saver = Saver(run, config.keep)
        self.checkpoints = self.saver.checkpoints
        fingerprint, count = loader.dataset.spec.fingerprint, self.processes.world_size
        self.state = State(fingerprint=fingerprint, batch_size=config.batch_size, processes=count)
        self.tally = Tally()

    # the loop

    def fit(self, hooks: Hooks) -> dict[str, float]:
        """Trains to `config.steps` and returns the last value of each curve.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; nothing is saved after it.
            Interrupted, Terminated: a signal asked to stop; the state is saved.
        """
        if self.config.compile:
            self.model.compile_networks()
        self.journal = Journal(self.run, self.state.step, tensorboard=self.config.tensorboard)
        self.hooks = hooks
        self._reported = time.monotonic(), self.loader.epoch(self.state.batches)
        self.run.set_status("running", self.state.step)
        signals = Signals()
        try:
            bar = Progress(self.config.steps, "training", "steps", initial=self.state.step)
            with signals_to(signals.handle), bar as self.bar:
                for step in range(self.state.step, self.config.steps):
                    self.processes.seed(self.seed, step)
                    self.train_step(step)
                    self.state.step = step + 1
                    self._after_step(signals)
                self.saver.wait()
            self.run.set_status("complete", self.state.step)
        except BaseException as error:
            with suppress(Exception):  # the first error is the one to report
                self.saver.wait()
            status = "stopped" if isinstance(error, Interrupted | Terminated) else "failed"
            known = as_user_error(error)
            with suppress(ResourceError):
                self.run.set_status(status, self.state.step, known.message if known else repr(error))
            raise
        finally:
            self.journal.close()
            with suppress(ResourceError):  # a full disk has been reported already
                self.journal.draw()
        return self.journal.figures

    def train_step(self, step: int) -> None:
        """One update of every phase."""
        self.model.train()
        factor = lr_factor(self.optimizer_config, self.state.updates, self.config.steps)
        batches: list[Batch] = []
        stepped = True
        for phase in self.model.phases(step):
            if phase.new_batch:
                first = self.state.batches
                batches = [self.loader.batch(first + k) for k in range(self.config.accumulate)]
                self.state.batches += self.config.accumulate
            stepped &= self._run_phase(step, phase.name, batches, factor)
        self.parallel.average_statistics()
        if stepped:  # else an update was left out, and neither average nor schedule moves on
            if self.ema is not None:
                self.ema.update(self.state.updates)
            self.state.updates += 1

    def _run_phase(self, step: int, phase: str, batches: list[Batch], factor: float) -> bool:
        self._train_only(phase)
        optimizer, scaler = self.optimizers[phase], self.precision.scalers[phase]
        optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches, 1):
            with self.parallel.accumulating(phase, last=number == len(batches)):
                with self.precision.autocast():
                    losses = self.parallel(phase, batch)
                torch.autograd.backward(scaler.scale(losses["loss"] / len(batches)))
            self.tally.add(phase, step, losses)
        scaler.unscale_(optimizer)
        norm = self._clip(phase)
        if not self.precision.scales:  # an fp16 overflow is the scaler's to handle
            self.tally.add(phase, step, {"gradient_norm": norm})
        if self.device.type == "cpu":
            self.tally.check()  # here it costs nothing; on a GPU it would wait for the step
        set_lr(optimizer, factor)
        if self.config.skip_grad_norm is not None:  # as in VDVAE (Child, 2021); a GPU waits for the step here
            large = norm > self.config.skip_grad_norm
            self.tally.add(phase, step, {"skipped": large})
            if large:
                scaler.update()  # it unscaled this gradient, and waits for the step's end
                return False
        stepped = self.precision.step(phase, optimizer)
        if self.precision.scales:
            self.tally.add(phase, step, {"overflow": torch.tensor(float(not stepped))})
        return stepped

    def _train_only(self, phase: str) -> None:
        """Leaves gradients on for this phase's network alone: the others run without a graph of their weights."""
        if len(self.optimizers) > 1:
            self.model.requires_grad_(False)
            self.model.network(phase).requires_grad_(True)

    def _clip(self, phase: str) -> Tensor:
        parameters = [p for p in self.model.network(phase).parameters() if p.grad is not None]
        norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if self.config.clip_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip_grad_norm, norm)
        return norm

    # between steps

    def _after_step(self, signals: Signals) -> None:
        done, config, hooks = self.state.step, self.config, self.hooks
        self.saver.check()
        # What a signal asks of one process, all do after the same step.
        stop, save = self.processes.highest(signals.stop or 0, signals.save)
        last = done == config.steps

        def due(every: int | None) -> bool:
            return every is not None and (last or done % every == 0)

        reports, examines = due(config.log_every), hooks.examine is not None and due(config.examine_every)
        if reports:
            self._report()
        if examines:
            self._examine()
        if reports or examines:
            self.journal.warn(done, self.model, self.bar.write)
        self.bar.advance()
        if hooks.preview is not None and due(config.sample_every):
            self._of_average(partial(hooks.preview, done))
        better = hooks.validate is not None and due(config.validate_every) and self._validate()
        if stop or better or save or due(config.checkpoint_every):
            signals.save = False
            self.save()
        if stop and not last:
            self.saver.wait()
            kinds: dict[int, type[AigcError]] = {signal.SIGINT: Interrupted, signal.SIGTERM: Terminated}
            raise kinds[stop](
                f"stopped at step {done} of {config.steps}, saved in {self.run.path}",
                f"resume with `aigc train --resume {self.run.word}`",
            )

    def _report(self) -> None:
        now, (before, last_epoch) = time.monotonic(), self._reported
        epoch = self.loader.epoch(self.state.batches)
        self._reported = now, epoch
        self.state.seconds += now - before
        rate = (epoch - last_epoch) * len(self.loader.dataset) / (now - before)
        means = self.tally.read()
        means = dict(zip(means, self.processes.mean(means.values()), strict=True))
        lr = {f"{phase}/lr": optimizer.param_groups[0]["lr"] for phase, optimizer in self.optimizers.items()}
        row = {"epoch": epoch, "seconds": round(self.state.seconds, 3), "items_per_second": round(rate, 2)}
        self.journal.write(self.state.step, means, {**row, **lr})
        shown = {name: f"{value:.3g}" for name, value in means.items() if name.endswith("/loss")}
        self.bar.notes.update(shown | {"items/s": f"{rate:.0f}"})

    def _examine(self) -> None:
        """The model's own curves, of its weights as they are: a discriminator has not learnt from their average."""
        self.model.eval()
        with torch.no_grad(), self.parallel.whole():
            curves = self.processes.from_main(self.hooks.examine)  # type: ignore[arg-type]
        self.journal.write(self.state.step, {f"examine/{name}": value for name, value in curves.items()})

    def _validate(self) -> bool:
        """Scores held-out data; whether this is the best so far."""
        scores = self._of_average(self.hooks.validate)  # type: ignore[arg-type]
        self.journal.write(self.state.step, {f"val/{name}": value for name, value in scores.items()})
        value = next(iter(scores.values()))
        if not math.isfinite(value) or (self.state.best is not None and value >= self.state.best):
            return False
        self.state.best, self.state.best_step = value, self.state.step
        return True

    def _of_average(self, act: Callable[[], T]) -> T:
        """What the main process makes of the averaged weights, in evaluation mode, without gradients."""
        self.model.eval()
        with torch.no_grad(), self.ema.in_place() if self.ema else nullcontext(), self.parallel.whole():
            return self.processes.from_main(act)

    # saving and restoring

    def check_space(self) -> None:
        """Refuses a run whose checkpoints do not fit on its disk, by a :class:`ResourceError` before the first step."""
        trained = [parameter for phase in self.optimizers for parameter in self.model.network(phase).parameters()]
        tensors = [*self.model.state_dict().values(), *(self.ema.shadow.values() if self.ema is not None else ())]
        tensors += trained * state_copies(self.optimizer_config)  # what optimizers remember has no size before a step
        self.saver.check_space(sum(tensor.nbytes for tensor in tensors), self.config, self.state.step)

    def save(self) -> None:
        """Begins to write a checkpoint; when it is there, those go that `keep` no longer covers."""
        self.tally.check()
        state = self.state
        state.scalers, state.tally = self.precision.state_dict(), self.tally.state()
        for part in state.tally:
            part.sums = self.processes.mean(part.sums)
        tensors = tensors_of(self.model, self.optimizers, self.ema)
        if self.processes.main:
            self.saver.start(state, tensors, self.loader.dataset.codec.files())

    def restore(self) -> bool:
        """Resumes from the newest valid checkpoint; False where the run has none yet.

        Raises:
            DataError: all checkpoints are broken, or are not of this configuration.
            ConfigError: the data or the model is not what the checkpoint was trained with.
        """
        checkpoint = newest_for_all(self.checkpoints, self.processes)
        if checkpoint is None:
            return False
        try:
            refuse_changes(self.run, checkpoint, self.loader.dataset.spec, self.model)
            load_tensors(checkpoint, self.model, self.optimizers, self.ema)
            self.precision.load_state_dict(checkpoint.state.scalers)
            self.tally.load(checkpoint.state.tally, self.device)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise DataError(
                f"checkpoint {checkpoint.path} does not fit this configuration: {' '.join(str(error).split())[:200]}",
                "restore the run's own config.yaml, or start a new run without --resume",
            ) from None
        if checkpoint.step < self.config.steps:
            say_resumed(self.run, checkpoint, self.processes.world_size)
        before, size = checkpoint.state, self.config.batch_size
        # A smaller batch may have replaced that of the checkpoint; a step then accumulates more of them.
        batches = before.batches * (before.batch_size or size) // size
        self.state = replace(before, batches=batches, batch_size=size, processes=self.processes.world_size)
        return True
