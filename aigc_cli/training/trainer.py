"""The training loop: phases, precision, accumulation, averaging, reports, checkpoints, stopping.

It knows nothing of any one model. Each step is seeded from (seed, rank, step) and takes the data at a position that
the state counts, so neither random state nor loader state is saved, and a run that was stopped anywhere ends bit for
bit where the uninterrupted one ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TypeVar

import torch

from aigc_cli.data.loader import Loader
from aigc_cli.errors import DataError, Interrupted, NonFiniteError, ResourceError, Terminated, as_user_error
from aigc_cli.modalities.base import Batch, modality
from aigc_cli.models.base import Model
from aigc_cli.nn.blocks import lay_out
from aigc_cli.progress import Progress
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import State
from aigc_cli.training.compiling import Compiler
from aigc_cli.training.distributed import Processes
from aigc_cli.training.early_stop import has_stalled, note_score, why_early
from aigc_cli.training.journal import Journal, Tally
from aigc_cli.training.memory import peak_memory
from aigc_cli.training.optimizers import EMA, OptimizerConfig, Precision, build_optimizers, clip, lr_factor, set_lr
from aigc_cli.training.pace import Pace
from aigc_cli.training.parallel import Replicas, Shards
from aigc_cli.training.plan import plan
from aigc_cli.training.restore import must_fit, refuse_changes, say_resumed
from aigc_cli.training.saver import Saver, bytes_of, load_tensors, newest_for_all, tensors_of
from aigc_cli.training.settings import HANDFUL, Hooks, Plan, TrainerConfig
from aigc_cli.training.signals import GIVEN_UP, Signals, signals_to, stopped_by

T = TypeVar("T")
_UNITS = 10**12  # of a run's progress, which processes agree on as a whole number


class Trainer:
    """Trains one model of one run, from its newest checkpoint or from the start."""

    def __init__(
        self, *, model: Model, loader: Loader, optimizer: OptimizerConfig, config: TrainerConfig, seed: int, run: Run,
        device: torch.device, processes: Processes | None = None,
    ) -> None:  # fmt: skip
        self.config, self.optimizer_config, self.seed, self.run, self.device = config, optimizer, seed, run, device
        self.processes = processes or Processes()
        self.loader, self.model = loader, model.to(device)
        if model.spec.layout in ("map", "volume"):
            lay_out(self.model, modality(model.spec.modality).memory_format)
        phases = dict.fromkeys(phase.name for phase in model.phases(0))
        self.precision = Precision(config.precision, device, phases)
        sharded = config.sharding == "full" and not self.processes.alone
        shards = Shards(model) if sharded else None  # before anything is made of its parameters
        self.optimizers = build_optimizers(optimizer, model, phases)
        self.parallel = shards or Replicas(model, phases, self.processes, self._train_only)
        self.ema = EMA(model.averaged(), config.ema, config.ema_start) if config.ema is not None else None
        self.saver = Saver(run, config.keep)
        self.checkpoint_bytes = bytes_of(model, self.optimizers, self.ema, optimizer)
        self.checkpoints = self.saver.checkpoints
        fingerprint, count = loader.dataset.spec.fingerprint, self.processes.world_size
        self.state = State(fingerprint=fingerprint, batch_size=config.batch_size, processes=count)
        self.tally = Tally()
        self.pace = Pace(config, device)
        self.progress = 0.0  # the share of the run that is done, which all processes agree on

    # the loop

    def fit(self, hooks: Hooks) -> dict[str, float]:
        """Trains for `config.steps`, or `config.minutes`, or until `config.early_stop`; the last value of each curve.

        Raises:
            NonFiniteError: a loss or a gradient is not finite; nothing is saved after it.
            Interrupted, Terminated: a signal asked to stop; the state is saved.
        """
        compiler = Compiler(self.model, self.config, self.device, self.run, self.processes, self.pace)
        self.journal = Journal(self.run, self.state.step, self.config.loggers)
        self.hooks = hooks
        self._reported = time.monotonic(), self.loader.epoch(self.state.batches)
        self.pace.start(self.state)
        self.run.set_status("running", self.state.step)
        signals = Signals()
        try:
            total = self.config.steps if self.config.minutes is None else None
            title = "training" if self.pace.until is None else "measuring"
            with signals_to(signals.handle), Progress(total, title, "steps", initial=self.state.step) as self.bar:
                while not self.finished:
                    compiler.before(self.state.step)
                    self.processes.seed(self.seed, self.state.step)
                    with self.pace.timed("step"):
                        self.train_step(self.state.step)
                    self.state.step += 1
                    self._after_step(signals)
                with self.pace.timed("write"):
                    self.saver.wait()
            self.run.set_status("complete", self.state.step, self.why_early)
        except BaseException as error:
            if isinstance(error, DataError | NonFiniteError) and self.processes.alone and self.state.step:
                with suppress(Exception):  # what it had come to; others would not take part
                    self._preview()
            with suppress(Exception):  # the first error is the one to report
                self.saver.wait()
            status = "stopped" if isinstance(error, Interrupted | Terminated) else "failed"
            with suppress(ResourceError):
                self.run.set_status(status, self.state.step, getattr(as_user_error(error), "message", repr(error)))
            raise
        finally:
            with suppress(OSError, ResourceError), self.pace.timed("curves"):  # a full disk has been reported already
                self.journal.close()
                self.journal.draw()
        return self.journal.figures

    @property
    def finished(self) -> bool:
        """Whether the run has had all of its steps, or of its minutes, or more of them would not help."""
        return self.progress >= 1 or has_stalled(self.state, self.config)

    @property
    def why_early(self) -> str:
        """Why a run that is finished is so before its time; "" where it is not."""
        return why_early(self.state) if self.progress < 1 else ""

    def scheduled(self, count: int) -> float:
        """Where in `config.steps` schedules are after so many steps, or updates: as far as the time is in a run by
        minutes, so that a warm-up, a decay or an average keep their shares of it."""
        return count if self.config.minutes is None else self.progress * self.config.steps

    def train_step(self, step: int) -> None:
        """One update of every phase."""
        self.model.train()
        self.model.pace = self.scheduled(step) / step if step else 1.0
        factor = lr_factor(self.optimizer_config, self.scheduled(self.state.updates), self.config.steps)
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
                self.ema.update(self.state.updates, self.scheduled(self.state.updates))
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
        norm = clip(self.model.network(phase), self.config.clip_grad_norm)
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

    # between steps

    def _after_step(self, signals: Signals) -> None:
        done, config, hooks = self.state.step, self.config, self.hooks
        self.saver.check()
        look, ended, progress = self.pace.look_due(), self.pace.ended(done), round(self.pace.progress(done) * _UNITS)
        # What a signal asks of one process, or its clock says, all do after the same step.
        asked = self.processes.highest(signals.stop or 0, signals.save or self.pace.save_due(), look, ended, progress)
        stop, save, look, last = asked[0], bool(asked[1]), bool(asked[2]), bool(asked[3])
        # Only the last step ends a run: one that is measured may go beyond its length.
        self.progress, self.state.seconds = 1.0 if last else min(asked[4], _UNITS - 1) / _UNITS, self.pace.trained

        def due(every: int | None, *, by_time: bool = False) -> bool:
            return every is not None and (last or by_time or done % every == 0)

        reports, examines = due(config.log_every), hooks.examine is not None and due(config.examine_every, by_time=look)
        if reports or look:
            self._report(whole=reports)
        if examines:
            with self.pace.timed("examine"):
                self._examine()
        self.bar.advance()
        if previews := due(config.sample_every, by_time=look):
            self._preview()
        if look or previews or examines:
            self.pace.looked()
        better, validates = False, hooks.validate is not None and due(config.validate_every)
        if validates:
            with self.pace.timed("validate"):
                better, given_up = self._validate()
            stop = stop or (GIVEN_UP if given_up else 0)
        early = self.finished and not last
        if early:
            self.bar.write(f"aigc: {self.why_early}")
            if not reports:
                self._report(whole=True)
            if not previews:
                self._preview()
        if (reports or examines or look or validates) and len(self.loader.dataset) >= HANDFUL:
            self.journal.warn(done, self.model, self.bar.write)
        if stop or early or better or save or due(config.checkpoint_every):
            signals.save = False
            with self.pace.timed("save"):
                self.save()
        if not (self.pace.planned or last or stop or early) and self.pace.until is None and self.pace.measured():
            self.pace.planned = True
            if hooks.plan is not None and self.processes.main:
                self.bar.write("\n".join(hooks.plan(self.plan())))
        if stop and not self.finished:
            self.saver.wait()
            if not previews:
                self._preview()
            raise stopped_by(stop, self.pace.far(done), self.run)

    def plan(self) -> Plan:
        """What the rest of the run takes, by what was measured so far."""
        disk = self.checkpoint_bytes * self.saver.most(self.config, self.state.step)
        return plan(self.pace, self.config, self.state.step, memory=peak_memory(self.device), disk=disk)

    def _preview(self) -> None:
        """Draws samples of the step that is done, unless that is off."""
        if self.hooks.preview is None or self.config.sample_every is None:
            return
        self.run.check_place()
        with self.pace.timed("preview"):
            self._of_average(lambda: self.hooks.preview(self.state.step))  # type: ignore[misc]
        self.journal.samples(self.state.step)

    def _report(self, *, whole: bool) -> None:
        """Writes a row of means, since the last `whole` one. A row in between, by time, leaves the next as it would be
        without: rows do not depend on the clock."""
        now, (before, last_epoch) = time.monotonic(), self._reported
        epoch = self.loader.epoch(self.state.batches)
        if whole:
            self._reported = now, epoch
        rate = (epoch - last_epoch) * len(self.loader.dataset) / (now - before)
        means = self.tally.read(keep=not whole)
        means = dict(zip(means, self.processes.mean(means.values()), strict=True))
        lr = {f"{phase}/lr": optimizer.param_groups[0]["lr"] for phase, optimizer in self.optimizers.items()}
        row = {"epoch": epoch, "seconds": round(self.state.seconds, 3), "items_per_second": round(rate, 2)}
        self.journal.write(self.state.step, means, {**row, **lr})
        shown = {name: f"{value:.3g}" for name, value in means.items() if name.endswith("/loss")}
        self.bar.notes.update(shown | {"items/s": f"{rate:.0f}"})
        if self.config.minutes is not None and self.progress > 0:
            self.bar.expect(round(self.state.step / self.progress))

    def _examine(self) -> None:
        """The model's own curves, of its weights as they are: a discriminator has not learnt from their average."""
        self.model.eval()
        with torch.no_grad(), self.parallel.whole():
            curves = self.processes.from_main(self.hooks.examine)  # type: ignore[arg-type]
        self.journal.write(self.state.step, {f"examine/{name}": value for name, value in curves.items()})

    def _validate(self) -> tuple[bool, bool]:
        """Scores held-out data; whether this is the best so far, and whether a search gives the run up for it."""
        scores = self._of_average(self.hooks.validate)  # type: ignore[arg-type]
        self.journal.write(self.state.step, {f"val/{name}": value for name, value in scores.items()})
        step, value, judge = self.state.step, next(iter(scores.values())), self.hooks.judge
        better = note_score(self.state, value, self.config.early_stop_delta)
        return better, judge is not None and self.processes.from_main(lambda: judge(step, value))

    def _of_average(self, act: Callable[[], T]) -> T:
        """What the main process makes of the averaged weights, in evaluation mode, without gradients."""
        self.model.eval()
        with torch.no_grad(), self.ema.in_place() if self.ema else nullcontext(), self.parallel.whole():
            return self.processes.from_main(act)

    # saving and restoring

    def check_space(self) -> None:
        """Refuses a run whose checkpoints do not fit on its disk, by a :class:`ResourceError` before the first step."""
        self.saver.check_space(self.checkpoint_bytes, self.config, self.state.step)

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
        with must_fit(checkpoint):
            refuse_changes(self.run, checkpoint, self.loader.dataset.spec, self.model)
            load_tensors(checkpoint, self.model, self.optimizers, self.ema)
            self.precision.load_state_dict(checkpoint.state.scalers)
            self.tally.load(checkpoint.state.tally, self.device)
        self.state = checkpoint.state.continued(self.config.batch_size, self.processes.world_size)
        self.pace.start(self.state)
        (progress,) = self.processes.highest(round(self.pace.progress(self.state.step) * _UNITS))
        self.progress = progress / _UNITS
        if not self.finished:
            say_resumed(self.run, checkpoint, self.processes.world_size)
        return True
