"""Draws the images of a run that ``aigc eval`` looks at: its samples, or its reconstructions of held-out images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from aigc_cli.data.open import Splits
from aigc_cli.errors import ConfigError
from aigc_cli.metrics.images import GeneratedImages
from aigc_cli.runs import Run
from aigc_cli.sampling.controls import check_controls, named_values
from aigc_cli.sampling.generate import generate, prepare, reconstruct
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.restore import Restored, restore_model

if TYPE_CHECKING:
    from torch import Tensor

    from aigc_cli.commands.evaluating import Setting


class Drawer:
    """A run's model, ready to be drawn from.

    Args:
        setting: Of the evaluation.
        run: Whose model.
        controls: The user's words for it; None is those of the command line.

    Raises:
        ConfigError: controls that the model does not have, or a run that does not generate images.
        DataError: the checkpoint cannot be trusted.
    """

    def __init__(self, setting: Setting, run: Run, controls: Mapping[str, Any] | None = None) -> None:
        asked = setting.asked
        checked = check_controls(run, asked.controls if controls is None else controls, "eval")
        self.setting, self.run = setting, run
        self._controls = checked
        self.named = {word: value for word, value in named_values(checked).items() if value is not None}
        mode = getattr(checked, "mode", None) or "sample"
        if mode not in ("sample", "reconstruct"):
            raise ConfigError(f"mode={mode} shows how samples change, and is no set of samples", "use mode=sample")
        self.mode = mode
        self.restored: Restored = restore_model(run, step=asked.step, device=asked.device)
        if self.restored.spec.modality != "image":
            raise ConfigError(
                f"the metrics here judge images, and {run.name} generates {self.restored.spec.modality}",
                "name a run on images with run=",
            )
        self._prepared = False

    def facts(self) -> dict[str, Any]:
        """What a stamp says of the model."""
        return {**facts_of(self.restored), **({"controls": self.named} if self.named else {})}

    def most(self) -> int:
        """How many images there can be."""
        return len(self._held_out()[1]) if self.mode == "reconstruct" else 2**62

    def images(self, n: int, seed: int) -> GeneratedImages:
        """`n` samples of a seed, or the reconstructions of the first `n` held-out images."""
        if self.mode == "reconstruct":
            return self._reconstructions(n)

        def stream(batch_size: int) -> Iterator[Tensor]:
            restored, asked = self.restored, self.setting.asked
            self._prepare()
            return generate(
                restored.model,
                restored.codec,
                range(n),
                seed=seed,
                device=self.setting.device,
                batch_size=asked.batch_size,
                controls=self._controls,
            )

        facts = {**self.facts(), "seed": seed}
        return GeneratedImages(stream, n, self.restored.spec.shape, facts, lambda: self._asked_classes(n))

    def _asked_classes(self, n: int) -> Tensor | None:
        return self.restored.model.labels(range(n), self._controls, "cpu")

    def _prepare(self) -> None:
        if not self._prepared:
            prepare(self.restored.model, lambda: self._open()["train"], self._controls, device=self.setting.device)
            self._prepared = True

    def _open(self) -> Splits:
        return Splits.of_run(self.run, self.setting.asked.data)

    def _held_out(self) -> tuple[str, Any]:
        from aigc_cli.commands.evaluating import other_splits

        for split, dataset in other_splits(self.setting):
            return split, dataset
        raise ConfigError("there are no held-out images to reconstruct", "set data.test_fraction=, or name other data")

    def _reconstructions(self, n: int) -> GeneratedImages:
        from aigc_cli.metrics.images import DatasetImages

        split, dataset = self._held_out()
        originals = DatasetImages(dataset, split, self.setting.data or "", n)
        rows = originals.rows()

        def stream(batch_size: int) -> Iterator[Tensor]:
            size = self.setting.asked.batch_size
            pairs = reconstruct(self.restored.model, dataset, rows, device=self.setting.device, batch_size=size)
            return (made for _, made in pairs)

        facts = {**self.facts(), "reconstructed": split}
        return GeneratedImages(stream, n, self.restored.spec.shape, facts, originals.labels)


def facts_of(restored: Restored) -> dict[str, Any]:
    """Which run, which checkpoint, and whether its averaged weights are in use."""
    folder = CheckpointFolder(restored.run.checkpoints).folder(restored.step)
    return {
        "run": str(restored.run.path),
        "step": restored.step,
        "checkpoint": restored.checksum,
        "weights": "ema" if (folder / "ema.safetensors").is_file() else "raw",
    }
