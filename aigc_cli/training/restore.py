"""A run read back: its trained model, from a checkpoint, and what may change where its training is resumed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from aigc_cli.config.schema import check, walk
from aigc_cli.errors import ConfigError, DataError, say, suggest, warn
from aigc_cli.exported_run import ExportedRun
from aigc_cli.files import read_json
from aigc_cli.modalities.base import Codec, DataSpec
from aigc_cli.modalities.token_codec import codec_of
from aigc_cli.models.base import Model, build_model
from aigc_cli.nn.lora import merge_adapters
from aigc_cli.progress import clock
from aigc_cli.registry import find
from aigc_cli.runs import Run, list_runs
from aigc_cli.training.checkpoint import Checkpoint, CheckpointFolder, State
from aigc_cli.training.memory import is_out_of_memory
from aigc_cli.training.onnx_model import opened
from aigc_cli.training.optimizers import OptimizerConfig, lr_factor
from aigc_cli.training.settings import TrainerConfig, resolve_device

#: How far a run goes, at what rate, how closely it is monitored, and where things are. All else would make it another.
MAY_CHANGE = frozenset(
    f"trainer.{key}"
    for key in (
        "steps", "minutes", "device", "devices", "restarts", "sharding", "compile", "compile_mode", "log_every",
        "first_look", "examine_every", "checkpoint_every", "keep", "sample_every", "samples", "validate_every",
        "validate_items", "validate_metric", "early_stop", "early_stop_delta", "workers", "threads", "logger",
        "tensorboard",
    )
) | {
    "data.root", "data.source", "data.target", "outputs", "run_dir", "sweep.objective",
    "optimizer.lr", "optimizer.schedule", "optimizer.decay_fraction", "optimizer.final_lr_fraction",
}  # fmt: skip
_MOST_NAMED = 5  # keys that differ
_JUMP = 1.5  # times by which a learning rate grows that is worth a warning


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
    weights: str  # which these are: "ema", averaged; "raw"; or in which form they were exported, "onnx fp32"


def restore_model(run: Run, *, step: int | str | None = None, device: str = "auto") -> Restored:
    """The model of a run as it is sampled: averaged weights where there are any, in evaluation mode.

    It is of the checkpoint of `step`: None is the newest valid one, "best" the one that validated best.

    Raises:
        ConfigError: the run has no such checkpoint.
        DataError: the checkpoint is broken, or is not of this model.
    """
    if isinstance(run, ExportedRun):
        return _of_export(run, step, device)
    where = resolve_device(device)
    model = build_model(run.config["model"], run.spec)
    checkpoint = choose_checkpoint(run, step)
    try:
        model.load_state_dict(checkpoint.tensors["model"])
        if "ema" in checkpoint.tensors:
            model.averaged().load_state_dict(checkpoint.tensors["ema"])
    except RuntimeError as error:
        raise DataError(
            f"checkpoint {checkpoint.path} is not of the model in {run.path}/config.yaml: {_brief(error, 300)}",
            "restore the run's own config.yaml, or train again",
        ) from None
    merge_adapters(model)
    model.requires_grad_(False).eval().to(where)
    weights = "ema" if "ema" in checkpoint.tensors else "model"
    used = checkpoint.sums[f"{weights}.safetensors"]
    own = any(not name.endswith(".safetensors") and name != "state.json" for name in checkpoint.sums)
    codec = codec_of(run.spec, run.path, checkpoint.path if own else run.path)
    return Restored(run, model, checkpoint.step, used, run.spec, codec, where, "ema" if weights == "ema" else "raw")


def _of_export(run: ExportedRun, step: int | str | None, device: str) -> Restored:
    """As :func:`restore_model`, of what was exported, which has one step; of ONNX it runs on a CPU."""
    if step not in (None, run.step):
        raise ConfigError(f"step={step}: {run.folder} was exported at step {run.step}", "leave step= out")
    onnx = run.record["format"] == "onnx"
    where = resolve_device("cpu" if onnx and device == "auto" else device)
    if onnx and where.type != "cpu":
        raise ConfigError(f"device={device}: files of ONNX run on the CPU here", "leave device= out")
    model, codec = opened(run)
    model.requires_grad_(False).eval().to(where)
    checksum = str(run.record["model_checksum"])
    return Restored(run, model, run.step, checksum, run.spec, codec, where, run.weights)


def choose_checkpoint(run: Run, step: int | str | None) -> Checkpoint:
    """The checkpoint of a run that `step` names, as :func:`restore_model` takes and refuses it."""
    folder = CheckpointFolder(run.checkpoints)
    if step is None:
        newest = folder.load_newest()
        if newest is None:
            raise _no_checkpoint(run)
        return newest
    if step == "best":
        best = best_step(run)
        if best is None:
            hint = "train with trainer.validate_every=N, or drop step="
            raise ConfigError(f"{run.path} has no best checkpoint", hint)
        step = best
    known = [str(known) for known in folder.steps()]
    if str(step) not in known:
        choices = known if best_step(run) is None else [*known, "best"]
        raise ConfigError(f"{run.path} has no checkpoint of step {step}", suggest(str(step), choices))
    return folder.load(int(step))


def _no_checkpoint(run: Run) -> ConfigError:
    status = run.status()
    if status == "running":
        hint = "let it train until its first one (trainer.checkpoint_every)"
        return ConfigError(f"{run.path} has no checkpoint yet", hint)
    failed = status == "failed"
    hint = "correct that and train again" if failed else f"resume it with `aigc train --resume {run.word}`"
    others = (other.word for other in reversed(list_runs()) if CheckpointFolder(other.checkpoints).steps())
    if other := next(others, None):
        hint += f", or name the newest run that has one: {other}"
    ended = f"it {'failed' if failed else 'ended'} at step {run.step}" + (f": {run.why}" if run.why else "")
    return ConfigError(f"{run.path} has no checkpoint: {ended}", hint)


def best_step(run: Run) -> int | None:
    """The step of the checkpoint that validated best, as ``best.json`` records it."""
    try:
        step = read_json(run.path / "best.json")["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def changed_config(saved: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A run's configuration with the user's key=value `words` applied.

    Raises:
        ConfigError: a word names no key of the run, or would change what a resumed run keeps.
    """
    config = copy.deepcopy(saved)
    # Runs of before there were these have no value for them.
    for key in ("minutes", "first_look", "early_stop", "early_stop_delta"):
        config["trainer"].setdefault(key, getattr(TrainerConfig, key))
    config["trainer"].setdefault("logger", [])
    for word in words:
        _apply(config, word)
    if saved["trainer"].get("early_stop") is not None and config["trainer"]["early_stop"] is None:
        config["trainer"]["early_stop_delta"] = 0.0  # it belongs to early_stop, and is refused without
    before, after = dict(walk(saved)), dict(walk(config))
    changed = sorted(key for key, value in after.items() if not isinstance(value, Mapping) and value != before.get(key))
    refused = [f"{key}: {before.get(key)} -> {after[key]}" for key in changed if key not in MAY_CHANGE]
    if refused:
        allowed = ", ".join(sorted(key for key in MAY_CHANGE if key in before))
        raise ConfigError(
            f"a resumed run keeps its configuration; refused: {'; '.join(refused)}",
            f"remove these arguments, or start a new run without --resume; what may change: {allowed}",
        )
    return config


def _apply(config: dict[str, Any], word: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(word)
    key, value = override.key_or_group, _plain(override.value())
    *sections, last = key.split(".")
    node: Any = config
    for section in sections:
        node = node.get(section) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise ConfigError(f"there is no key {key} in this run's configuration", suggest(key, dict(walk(config))))
    if isinstance(node[last], dict):  # a group: model=gan names the component that the section was made of
        value = {**node[last], "name": value}
    node[last] = value


def _plain(value: Any) -> Any:
    """A value of Hydra's grammar as plain data."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    return getattr(value, "text", value)  # a quoted string holds its text


@contextmanager
def must_fit(checkpoint: Checkpoint) -> Iterator[None]:
    """Turns what goes wrong with a checkpoint that is of something else into a :class:`DataError`."""
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"checkpoint {checkpoint.path} does not fit this configuration: {_brief(error, 200)}",
            "restore the run's own config.yaml, or start a new run without --resume",
        ) from None


def refuse_changes(run: Run, checkpoint: Checkpoint, spec: DataSpec, model: Model) -> None:
    """Refuses, by a :class:`ConfigError`, to resume from a checkpoint with other data than `spec`, another model, or a
    ``config.yaml`` that was edited where a run keeps it."""
    if run.writes and checkpoint.state.config:  # others of several processes might read the new one already
        _refuse_edits(run, checkpoint)
    saved = checkpoint.state.fingerprint
    if saved != spec.fingerprint:
        # A run without data.json can still be told by its fingerprint, so this compares what is known of both.
        before = {**(asdict(run.spec) if (run.path / "data.json").is_file() else {}), "fingerprint": saved}
        now = {key: value for key, value in asdict(spec).items() if key in before}
        what = f"the data of {run.name} has changed since its checkpoint: {differences(before, now)}"
        hint = "put the data back as it was (data.root=); where it is, this version reads or splits it in another way"
        raise ConfigError(what, f"{hint}: start a new run without --resume")
    shapes = {name: list(tensor.shape) for name, tensor in checkpoint.tensors["model"].items()}
    here = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    if shapes != here:
        what = f"the model of {run.name} has changed since its checkpoint: {differences(shapes, here)}"
        raise ConfigError(what, "restore the run's own config.yaml, or start a new run without --resume")


def _refuse_edits(run: Run, checkpoint: Checkpoint) -> None:
    before, now = ({key: value for key, value in walk(json.loads(json.dumps(config))) if not isinstance(value, dict)}
                   for config in (checkpoint.state.config, run.config))  # fmt: skip
    edited = {key for key in before.keys() & now.keys() if before[key] != now[key]}
    if now.get("trainer.auto_batch"):  # it was divided anew, so that a step sees the same items
        edited -= {"trainer.batch_size", "trainer.accumulate"}
    kept, rate = edited - MAY_CHANGE, {key for key in edited & MAY_CHANGE if key.startswith("optimizer.")}

    def told(keys: set[str]) -> str:
        return differences({key: before[key] for key in keys}, {key: now[key] for key in keys})

    if kept:
        what = f"{run.path / 'config.yaml'} is not what {run.name} has been trained by: {told(kept)}"
        raise ConfigError(what, "put it back as it was, or start a new run without --resume")
    if rate:
        say(f"since the checkpoint of step {checkpoint.step} the configuration has changed: {told(rate)}")


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The keys whose values differ, as ``key: before -> after``, the first few."""
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    found = [f"{key}: {_brief(before.get(key, 'none'))} -> {_brief(after.get(key, 'none'))}" for key in keys]
    more = f"; and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return "; ".join(found[:_MOST_NAMED]) + more


def _brief(value: object, longest: int = 40) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[: longest - 4]}..."


def refuse_less(run: Run, trainer: TrainerConfig, step: int, seconds: float) -> None:
    """Refuses, by a :class:`ConfigError`, to resume a run that has done more than is asked for."""
    if trainer.minutes is None and step > trainer.steps:
        done, asked = f"{step} steps", f"trainer.steps={trainer.steps}"
    elif trainer.minutes is not None and run.config["trainer"].get("minutes") != trainer.minutes:
        done, asked = clock(seconds), f"trainer.minutes={trainer.minutes:g}"
    else:
        return
    hint = "ask for more than that; `aigc sample step=` and `aigc eval step=` use an earlier checkpoint"
    raise ConfigError(f"{run.name} has been trained for {done} already, which {asked} would take back", hint)


def warn_of_jump(run: Run, optimizer: OptimizerConfig, trainer: TrainerConfig, state: State) -> None:
    """Warns where a resumed run has another length, or another schedule, so that its learning rate jumps up."""
    section = run.config["optimizer"]
    before: OptimizerConfig = check("optimizer", find("optimizer", section["name"]).config, section)
    lengths = run.config["trainer"]
    asked = (trainer.steps, trainer.minutes, optimizer)
    if asked == (lengths["steps"], lengths.get("minutes"), before):
        return  # within a warm-up the rate of the same run grows too
    last = before.lr * _factor(before, lengths["steps"], lengths.get("minutes"), state, 1)
    now = optimizer.lr * _factor(optimizer, trainer.steps, trainer.minutes, state, 0)
    if now > _JUMP * last > 0:
        length = f"{trainer.steps} steps" if trainer.minutes is None else f"{trainer.minutes:g} minutes"
        warn(
            f"the learning rate jumps from {last:.2g} to {now:.2g}: optimizer.schedule={optimizer.schedule} is now for "
            f"{length}; to keep the rate where it was, add optimizer.schedule=constant optimizer.lr={last:.2g}"
        )


def _factor(optimizer: OptimizerConfig, steps: int, minutes: float | None, state: State, back: int) -> float:
    """The share of the base rate after a run's last update, or at that one if it is counted `back` by 1."""
    scheduled = state.updates if minutes is None else state.seconds / (60 * minutes) * steps
    return lr_factor(optimizer, max(0, scheduled - back), steps)


def say_resumed(run: Run, checkpoint: Checkpoint, processes: int) -> None:
    """Says which step a run resumes from, and whether it is trained by another number of `processes` than before."""
    say(f"{run.name} resumes from step {checkpoint.step}")
    before = checkpoint.state.processes
    if before != processes:
        warn(
            f"trained by {before} processes so far, now by {processes}: "
            "items come in the same order, but sums round differently, so that it does not repeat bit for bit"
        )
