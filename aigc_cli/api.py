"""What a program or a notebook needs of all this: a trained run in memory, and the scores of what it holds.

``import aigc_cli`` gives these by name. The commands stand on the same calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.config.folders import top_level_keys
from aigc_cli.config.schema import Options, check
from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError
from aigc_cli.exported_run import ExportedRun, open_exported
from aigc_cli.modalities.arrays import find_writer
from aigc_cli.modalities.base import DataSpec, Items
from aigc_cli.modalities.prompts import Prompt
from aigc_cli.modalities.samples import Provenance
from aigc_cli.modalities.text import Texts
from aigc_cli.models.base import Model
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling import readings
from aigc_cli.sampling.controls import check_controls, named_values, usual_controls
from aigc_cli.sampling.filters import Filters, filtered
from aigc_cli.sampling.generate import Look, Plan, Request
from aigc_cli.sampling.marked import Watermark
from aigc_cli.sampling.modes import modes_of, plan
from aigc_cli.sampling.readings import Content, Labels
from aigc_cli.training.restore import Restored, restore_model

if TYPE_CHECKING:  # what measures is imported by what measures: a run that is only sampled does without
    from aigc_cli.metrics.record import Record


def open_run(
    run: str | Path = "latest", *, step: int | str | None = None, device: str = "auto", watermark: str | None = None
) -> LoadedRun:
    """Loads a trained run.

    Args:
        run: A run's directory, its name, or ``latest``, as after ``run=`` on the command line; or what ``aigc
            export`` wrote, a folder or a file of it.
        step: Which checkpoint: a step, or "best"; None is the newest.
        device: auto, cpu, cuda or cuda:N.
        watermark: A key, or a file that holds one: all that is drawn has its mark, as of ``aigc sample watermark=``.

    Raises:
        ConfigError: there is no such run or checkpoint, or no mark would hold in what it makes.
        DataError: the checkpoint is broken.
    """
    return LoadedRun(restore_model(find_run(str(run), exported=open_exported), step=step, device=device), watermark)


class LoadedRun:
    """A trained run in memory, its averaged weights where there are any, in evaluation mode.

    Raw content is what samples, datasets and files have: uint8 pixels (n, channels, height, width), int16 waveforms (n,
    channels, samples), strings. What the model sees of it, and back, is the codec's work, and is done here.
    """

    def __init__(self, restored: Restored, watermark: str | None = None) -> None:
        self.restored = restored
        self.watermark = None if watermark is None else Watermark(watermark, restored)

    def __repr__(self) -> str:
        return f"<run {self.name}, step {self.step}, on {self.restored.device}>"

    @property
    def run(self) -> Run:
        """Its folder, and what that says."""
        return self.restored.run

    @property
    def name(self) -> str:
        """``<model>-<data>/<stamp>``."""
        return self.run.name

    @property
    def model(self) -> Model:
        """A plain :class:`torch.nn.Module`."""
        return self.restored.model

    @property
    def step(self) -> int:
        """The training step of its checkpoint."""
        return self.restored.step

    @property
    def spec(self) -> DataSpec:
        """What the model knows of its data: shapes, classes, the size of the vocabulary."""
        return self.restored.spec

    @property
    def controls(self) -> dict[str, Any]:
        """The words that :meth:`sample` takes for this model, with their usual values."""
        return named_values(usual_controls(self.model))

    @property
    def modes(self) -> tuple[str, ...]:
        """The values of ``mode=`` that it knows, the usual one first."""
        return modes_of(self.model)

    # sampling

    def sample(
        self, n: int | None = None, *, seed: int = 0, prompt: str | Path | Sequence[str] | None = None,
        batch_size: int | None = None, **controls: Any,
    ) -> Any:  # fmt: skip
        """Draws samples: raw content (n, ...) on the CPU, or strings of a model of text.

        Sample ``i`` depends on the seed and ``i`` alone, not on `n` or `batch_size`.

        Args:
            n: How many, for each prompt; None is as many as the command shows.
            prompt: What a text begins with or is made from, or a file; or several, in which samples take turns.
            controls: As on the command line, such as ``temperature=0.8`` or ``mode="reconstruct"``; ``class_="cat"``
                is ``class=cat``.

        Raises:
            ConfigError: a control that this model does not have, or a wrong value of one.
        """
        several = [prompt] if isinstance(prompt, (str, Path)) else list(prompt or ())
        prompts = [Prompt(str(text), f"prompt {place}") for place, text in enumerate(several)]
        drawn = self.plan(self.checked(controls), n, seed=seed, prompts=prompts)
        parts = list(drawn.batches(batch_size))
        texts = [self.restored.codec.text(part) for part in parts]
        return torch.cat(parts) if parts and texts[0] is None else [text for some in texts for text in some or ()]

    def checked(self, controls: Mapping[str, Any]) -> Any:
        """The controls of the model, typed and complete, from the words for them; raises ConfigError as
        :meth:`sample`."""
        words = {"class" if word == "class_" else word: value for word, value in controls.items()}
        number = type(words.get("class")) in (int, float)  # which the command line reads as text
        return check_controls(self.run, {**words, "class": str(words["class"])} if number else words)

    def request(
        self, controls: Any, n: int | None = None, *, seed: int = 0, prompts: Sequence[Prompt] = (),
        usual: int | None = None, splits: Splits | None = None,
    ) -> Request:  # fmt: skip
        """What is to be sampled, with :meth:`checked` controls.

        `usual` are those of a look where `n` is None, and `splits` the run's data where it was moved.
        """
        data = splits or Splits.of_run(self.run)
        usual = find_writer(self.spec.modality)[1].usual if usual is None else usual
        return Request(
            model=self.model, codec=self.restored.codec, controls=controls, seed=seed, device=self.restored.device, n=n,
            usual=usual, prompts=prompts, train=lambda: data["train"], held_out=data.held_out,
        )  # fmt: skip

    def plan(
        self, controls: Any, n: int | None = None, *, filters: Filters | None = None, look: Look = None, **how: Any
    ) -> Plan:
        """How samples are drawn and arranged, as of :meth:`request`; `look` sees them before they get a mark."""
        request = self.request(controls, n, **how)
        drawn = (plan(request) if filters is None else filtered(request, filters)).seen(look)
        return drawn if self.watermark is None else self.watermark.of(drawn, self.model, controls)

    def provenance(self, controls: Any, *, seed: int, format: str, source: Mapping[str, Any]) -> Provenance:
        """What made samples, for their label."""
        run = self.run
        exported = {"exported": self.restored.weights} if isinstance(run, ExportedRun) else {}
        return Provenance(
            modality=run.spec.modality, format=format, run=run.name, model=run.config["model"]["name"],
            data=run.config["data"]["name"], step=self.step, model_checksum=self.restored.checksum, seed=seed,
            controls=named_values(controls), source={**exported, **source},
            watermark="" if self.watermark is None else self.watermark.key.name,
        )  # fmt: skip

    # reading

    def encode(self, items: Content, labels: Labels | None = None, *, batch_size: int = 64) -> Tensor:
        """A vector for each item of raw content, or text, float32 (n, d); of a tokenizer its codes, int64 (n, t)."""
        return readings.encode(self.restored, items, labels, batch_size)

    def decode(self, latents: Tensor, labels: Labels | None = None, *, batch_size: int = 64) -> Tensor:
        """Raw content (n, ...) of latents (n, d), such as those that :meth:`encode` gives of a VAE."""
        return readings.decode(self.restored, latents, labels, batch_size)

    def score(
        self, items: Content, *, labels: Labels | None = None, sources: Content | None = None, seed: int = 0,
        samples: int | None = None, batch_size: int = 64,
    ) -> dict[str, Tensor]:  # fmt: skip
        """How likely the model finds each item of raw content, or text: scores by name, each (n,), in nats.

        `sources` are what translations are of; of a bound, `samples` are drawn an item, from `seed`.
        """
        more: dict[str, Any] = {"labels": labels, "sources": sources, "seed": seed, "samples": samples}
        return readings.score(self.restored, items, **more, batch_size=batch_size)


class Scores(dict[str, float]):
    """Scores by name, such as ``scores["fd"]``; as a string they are the table that ``aigc eval`` prints."""

    def __init__(self, records: Sequence[Record]) -> None:
        super().__init__({name: value for record in records for name, value in record.generated.figures.items()})
        #: All that each depends on, with the baseline; one for each metric.
        self.records = list(records)

    def __str__(self) -> str:
        from aigc_cli.metrics.report import describe

        return describe(self.records, [])


def evaluate(
    fake: Any, real: Any = None, metrics: str | Sequence[str] | None = None, *, held_out: Any = None,
    data: str | None = None, **keys: Any,
) -> Scores:  # fmt: skip
    """Measures samples, as ``aigc eval`` does; nothing is written.

    Args:
        fake: A :class:`LoadedRun`, which is sampled; or samples: raw content (n, ...), a list of strings, or the path
            of a folder or a file.
        real: What they are compared with: the same kinds but for a run. None is the data of the run, or `data`.
        metrics: A name, several in one string with commas between, or a list; None is what is usual.
        held_out: Further real items, for the baseline.
        data: The name of a dataset to compare with.
        keys: Other keys of ``aigc eval``, such as ``n=1000``, ``seed=1`` or ``extractor="own-ssl"``, and of a run the
            controls of its model.

    Raises:
        ConfigError: words that fit nothing; items of different kinds.
        DataError: items that are too few, or cannot be trusted.
    """
    from aigc_cli.metrics.asked import EvalConfig, with_usual_metrics
    from aigc_cli.metrics.setting import open_setting

    named = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else list(metrics or ())
    words = [] if data is None else [f"data={data}"]
    config = compose("eval", [*words, *([f"metric=[{','.join(named)}]"] if named else [])])
    known = top_level_keys("eval") - {"controls", "data", "metric", "task", "run", "out"}
    own = {key: value for key, value in keys.items() if key in known}
    config |= {"data": config["data"] or {}, "run": None, **own}
    config["controls"] = {word.rstrip("_"): value for word, value in keys.items() if word not in known}
    run = None
    if isinstance(fake, LoadedRun):
        run = fake.run
        config |= {"run": str(fake.run.path), "step": fake.step, "device": own.get("device", str(fake.restored.device))}
    given: dict[str, Items] = {}
    sides = {"fake": None if run is not None else fake, "real": real, "held_out": held_out}
    for key, side in sides.items():
        if isinstance(side, (str, Path)) or side is None:
            config[key] = None if side is None else str(side)
        else:
            given[key], config[key] = items_of(side, key), f"the {key} items"
    options = Options(overrides=(*words, *(["run="] if run else []), *(f"{key}=" for key in own)))
    asked: EvalConfig = check("", EvalConfig, config)
    if not named and run is not None:
        asked = with_usual_metrics(asked, Options(overrides=tuple(words)), [run])
    return Scores(replace(open_setting(asked, options, run), given=given).records())


def items_of(content: Any, what: str) -> Items:
    """Raw content (n, ...), or a list of strings, as items that can be measured.

    Raises:
        ConfigError: it is neither.
    """
    from aigc_cli.metrics.items import HeldItems

    if isinstance(content, Tensor):
        return HeldItems(content)
    if isinstance(content, Sequence) and content and all(isinstance(text, str) for text in content):
        sum_ = hashlib.sha256("\0".join(content).encode("utf-8", "surrogatepass")).hexdigest()
        return Texts(content, {"file": what, "sha256": sum_}, called=f"{len(content):,} texts")
    hint = "give a tensor of raw content (n, ...), a list of strings, or a path"
    raise ConfigError(f"{what}: these are not items, but {type(content).__name__}", hint)
