"""Starts a run from the weights of another, in place of random ones: ``model.init_from=RUN``, or from those of Hugging
Face's: ``model.init_from=hf:DIR``.

Tensors go by their names and shapes, as :class:`aigc_cli.models.base.Transfer` has them, and the rows of an embedding
by what their tokens spell. A run writes down where it started from, so that it may be repeated.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from aigc_cli.config.schema import check, walk
from aigc_cli.data.open import kept_sections
from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.files import checksum
from aigc_cli.modalities.base import Codec
from aigc_cli.models.base import Model, ModelConfig, Transfer
from aigc_cli.nn.lora import adapters
from aigc_cli.runs import find_run
from aigc_cli.training.checkpoint import CheckpointFolder, Tensors
from aigc_cli.training.hf_start import folder_in, sum_of, weights_of, with_folder
from aigc_cli.training.restore import Restored, choose_checkpoint, restore_model

_MOST_NAMED = 3  # tensors that do not fit


def start_of(config: Mapping[str, Any]) -> ModelConfig:
    """The keys of a configuration that name the run whose weights it starts from."""
    keys = [field.name for field in dataclasses.fields(ModelConfig) if field.name in config["model"]]
    return cast(ModelConfig, check("model", ModelConfig, {key: config["model"][key] for key in keys}))


def with_source(config: dict[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """A configuration that names the run it starts from as any folder and any later day will find it: by its directory,
    the step of a checkpoint, and the sum of that. Text keeps the tokenizer of that run, if it does.

    Raises:
        ConfigError: there is no such run, or it has no such checkpoint; or a key that was `given` asks for another
            tokenizer.
        DataError: the checkpoint is broken.
    """
    for name, section in config["data"].items():
        if isinstance(section, dict) and section.get("path"):  # what is there says what these keys would
            idle = [f"data.{name}.{key}=" for key in section if key != "path" and f"data.{name}.{key}" in given]
            if idle:
                warn(f"{', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect beside data.{name}.path=")
    start = start_of(config)
    if (folder := folder_in(start.init_from)) is not None:
        return with_folder(config, folder, given)
    if start.init_from is None or (start.init_step is not None and start.init_sha256 is not None):
        return config
    run = find_run(start.init_from, Path(config["outputs"]))
    checkpoint = choose_checkpoint(run, start.init_step)
    found = {
        "init_from": str(run.path),
        "init_step": checkpoint.step,
        "init_sha256": start.init_sha256 or checksum(checkpoint.path / "manifest.json"),
    }
    data = config["data"]
    theirs = {} if start.init_tokenizer == "new" else kept_sections(run.config["data"], run.path)
    own = {key for key, section in data.items() if isinstance(section, dict) and section.get("path", "") is None}
    kept = {key: section for key, section in theirs.items() if key in own}
    for name, section in kept.items():
        for key, value in data[name].items():
            if f"data.{name}.{key}" in given and value != section.get(key):
                what = f"data.{name}.{key}={value} beside model.init_from={start.init_from}, whose {name} is kept"
                raise ConfigError(what, "leave it out, or have a new one made with model.init_tokenizer=new")
    return {**config, "model": {**config["model"], **found}, "data": {**data, **kept}}


def warm_start(model: Model, codec: Codec, config: Mapping[str, Any]) -> Taken | None:
    """Gives a fresh `model`, whose data has `codec`, the weights of the run that `config` starts it from, if any.

    Raises:
        ConfigError: as :func:`take_weights`; or the run or the checkpoint is gone.
        DataError: the checkpoint is broken, or is not the one that the configuration has the sum of.
    """
    start = start_of(config)
    if start.init_from is None:
        return None
    if (folder := folder_in(start.init_from)) is not None:
        return _take_folder(model, codec, folder, start)
    run = find_run(start.init_from)
    with torch.random.fork_rng(devices=()):  # what is drawn from then on does not depend on the other model
        source = restore_model(run, step=start.init_step, device="cpu")
    manifest = CheckpointFolder(run.checkpoints).folder(source.step) / "manifest.json"
    if start.init_sha256 not in (None, checksum(manifest)):
        raise DataError(
            f"the checkpoint of step {source.step} of {run.path} does not match model.init_sha256",
            "restore that one from a copy, or leave model.init_sha256 out to start from the checkpoint as it is now",
        )
    return take_weights(model, codec, source, config)


def _take_folder(model: Model, codec: Codec, folder: Path, start: ModelConfig) -> Taken:
    """Gives a fresh model the weights of a folder of Hugging Face's."""
    if start.init_sha256 not in (None, sum_of(folder)):
        what = f"the weights in {folder} do not match model.init_sha256"
        raise DataError(what, "restore them from a copy, or leave model.init_sha256 out to start from what is there")
    own, found = model.state_dict(), weights_of(folder, model, codec)
    left = set(model.transfer().own)
    problems = [_misfit(name, own[name], found.get(name), Transfer()) for name in own if name not in left]
    if named := [problem.replace("that run", "that folder") for problem in problems if problem]:
        raise ConfigError(f"the weights of {folder} do not fit: {'; '.join(named[:_MOST_NAMED])}",
                          "it is not the model that its config.json says")  # fmt: skip
    with torch.no_grad():
        for name in own.keys() & found.keys():
            own[name].copy_(found[name])
    size = model.spec.vocab_size or 0
    return Taken(str(folder), len(found), len(own) - len(left), size, size)


@dataclass(frozen=True)
class Taken:
    """What a model has of the weights that it starts from."""

    origin: str
    tensors: int
    of_tensors: int
    rows: int | None  # of the vocabulary; None where there is none
    of_rows: int

    def sentence(self) -> str:
        """The same in words."""
        rows = "" if self.rows is None else f" and {self.rows} of {self.of_rows} vocabulary rows"
        whole = self.tensors == self.of_tensors and self.rows in (None, self.of_rows)
        return (
            f"{self.tensors} of {self.of_tensors} tensors{rows} from {self.origin}"
            f"{'' if whole else '; all else is new'}"
        )


def take_weights(model: Model, codec: Codec, source: Restored, config: Mapping[str, Any]) -> Taken:
    """Copies what fits of the source's weights into a fresh `model`, in place; what is new to it stays as it is.

    `codec` is that of its data, and `config` the whole configuration, for a hint at the words to change.

    Raises:
        ConfigError: a tensor of either has no counterpart, or one of another shape; or new rows of the vocabulary would
            stay as they are, since only adapters are trained.
    """
    transfer = model.transfer()
    own, theirs = model.state_dict(), _renamed(source.model, transfer)
    mine = [name for name in own if name not in transfer.own]
    origins = {name: name if name in theirs else transfer.stand_ins.get(name, name) for name in mine}
    problems = [_misfit(name, own[name], theirs.get(origin), transfer) for name, origin in origins.items()]
    known = {*origins.values(), *transfer.stand_ins}
    problems += [f"{name} is in that run, and not in this model" for name in theirs if name not in known]
    if found := [problem for problem in problems if problem]:
        raise _refusal(found, source, config, alike=_kinds(origins) == _kinds(theirs))
    pairs = codec.transfer(source.codec)  # for each token that both have, its id here and its id there
    size, other_size = model.spec.vocab_size or 0, source.model.spec.vocab_size or 0
    if pairs is not None and len(pairs) < size and any(adapters(model)):
        raise ConfigError(
            f"model.lora.rank leaves the embedding as it is, and {size - len(pairs)} of its {size} rows are not in "
            f"{source.run.name}",
            "keep that run's tokenizer (model.init_tokenizer=keep), or train all weights (model.lora.rank=null)",
        )
    with torch.no_grad():
        for name, origin in origins.items():
            if name in transfer.rows and pairs is not None:
                # What lies beyond the vocabularies, such as a mask, goes by its place.
                beyond = range(min(len(own[name]) - size, len(theirs[origin]) - other_size))
                here, there = torch.tensor([*pairs, *((size + place, other_size + place) for place in beyond)]).T
                own[name][here] = theirs[origin][there]
            else:
                own[name].copy_(theirs[origin] if own[name].shape == theirs[origin].shape else theirs[origin].mean())
    rows, of_rows = (None, 0) if pairs is None else (len(pairs), size)
    return Taken(f"{source.run.name}, step {source.step}", len(origins), len(own), rows, of_rows)


def _renamed(model: Model, wanted: Transfer) -> Tensors:
    """The tensors of the source that may be taken, by the names that the new model has for them."""
    transfer = model.transfer()
    found = {name: tensor for name, tensor in model.state_dict().items() if name not in transfer.own}
    for shared, theirs in transfer.parts.items():
        ours = wanted.parts.get(shared, theirs)
        head = f"{theirs}."
        found = {f"{ours}.{k.removeprefix(head)}" if k.startswith(head) else k: t for k, t in found.items()}
    return found


def _misfit(name: str, own: Tensor, other: Tensor | None, transfer: Transfer) -> str:
    """Why a tensor cannot be taken, or ""; those that go by rows may differ in how many they have."""
    if other is None:
        return f"{name} is not in that run"
    if own.shape == other.shape or (name in transfer.rows and own.shape[1:] == other.shape[1:]):
        return ""
    if name.endswith(".log_scale") and min(own.numel(), other.numel()) == 1:
        return ""  # one scale for all heads stands for one a head, and their mean for it
    here, there = ("x".join(map(str, tensor.shape)) or "a number" for tensor in (own, other))
    return f"{name} is {here} here and {there} there"


def _kinds(names: Iterable[str]) -> set[str]:
    """The names of tensors without the numbers of their layers."""
    return {re.sub(r"\d+", "#", name) for name in names}


def _refusal(problems: list[str], source: Restored, config: Mapping[str, Any], *, alike: bool) -> ConfigError:
    """The error of weights that do not fit; `alike` says whether both models have the same kinds of tensors."""
    more = f"; and {len(problems) - _MOST_NAMED} more" if len(problems) > _MOST_NAMED else ""
    family, differing = config["model"]["name"], " ".join(_differing(config, source.run.config))
    hint = f"make this model like that one: {differing}"
    if not differing or not (alike or family == source.run.config["model"]["name"]):
        hint = f"start from a run of model={family}"
    what = f"the weights of {source.run.name} do not fit: {'; '.join(problems[:_MOST_NAMED])}{more}"
    return ConfigError(what, hint)


def _differing(config: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """The arguments that would make a model, and the sizes of its data, those of another configuration."""
    own = dict(walk(config))
    for key, value in walk({"model": theirs["model"], "data": theirs["data"]}):
        section, _, name = key.partition(".")
        sizes = not isinstance(value, dict) and not name.startswith(("init_", "lora."))
        sizes &= name != "name" and "dropout" not in name
        sizes &= section == "model" or type(value) is int
        if sizes and key in own and own[key] != value:
            yield f"{key}={value if isinstance(value, str) else json.dumps(value)}"
