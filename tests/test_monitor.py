"""What is shown and measured of a model while it trains, on a model with latents."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from toy import Toy

from aigc_cli import registry
from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import Splits, open_dataset
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.base import Losses, Model
from aigc_cli.monitor import Monitor
from aigc_cli.randomness import Noise
from aigc_cli.runs import Run, find_run, read_rows
from aigc_cli.training.build import check_config

WORDS = ["train", "model=toy", "data=digits", "data.size=8", "trainer.batch_size=8", "trainer.device=cpu"]


pytestmark = pytest.mark.usefixtures("toy_here")


def train(*words: str) -> Run:
    assert main([*WORDS, *words]) == 0
    return find_run("latest")


def test_previews_are_drawn_from_the_same_noise_and_the_same_items() -> None:
    run = train("trainer.steps=4", "trainer.sample_every=2", "trainer.samples=8", "optimizer.lr=1e-9")
    drawn = {path.name: np.asarray(Image.open(path)) for path in (run.path / "samples").iterdir()}
    assert set(drawn) == {f"step-{step}{part}.png" for step in (2, 4) for part in ("", "-reconstructions")}
    for part in ("", "-reconstructions"):
        first, second = (drawn[f"step-{step}{part}.png"][22:].astype(int) for step in (2, 4))
        assert np.abs(first - second).max() <= 1
    assert drawn["step-4-reconstructions.png"].shape[0] == 22 + 2 * 66 + 2  # four originals, four reconstructions


def test_the_preview_of_a_conditional_model_has_a_column_for_each_class() -> None:
    run = train("trainer.steps=1", "model.conditional=true", "trainer.samples=64")
    with Image.open(run.path / "samples" / "step-1.png") as drawn:
        assert drawn.size == (10 * 66 + 2, 2 * 22 + 6 * 66 + 2)
        columns = np.asarray(drawn.convert("L"))[44 + 2 :, 2 + 32 :: 66].mean(axis=0)
    assert (np.diff(columns) > 5).all()  # the toy's classes differ in brightness


def test_a_resumed_run_is_examined_and_warned_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def examine(self: Toy, train: Batch, held_out: Batch | None) -> Losses:
        assert not self.training
        assert held_out is not None
        assert len(train) == len(held_out)
        assert train.labels is not None
        return {"gain": self.gain.sum(), "error": (self.encode(train) - self.encode(held_out)).mean()}

    def warnings(self: Toy, figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        if "examine/gain" in figures:
            yield "looked", "it was looked at"

    monkeypatch.setattr(Toy, "can", Toy.can | {"examine"})
    monkeypatch.setattr(Toy, "examine", examine)
    monkeypatch.setattr(Toy, "warnings", warnings)
    words = [
        "trainer.examine_every=2",
        "trainer.log_every=2",
        "trainer.checkpoint_every=4",
        "trainer.sample_every=null",
    ]
    whole = train("trainer.steps=8", *words)
    parts = train("trainer.steps=4", *words)
    assert main(["train", "--resume", parts.name, "trainer.steps=8"]) == 0

    def rows(run: Run) -> list[dict[str, Any]]:
        found = read_rows(run.path / "metrics.jsonl")
        return [{key: value for key, value in row.items() if "second" not in key} for row in found]

    assert rows(whole) == rows(parts)
    assert [row["step"] for row in rows(whole) if "examine/gain" in row] == [2, 4, 6, 8]
    assert (parts.path / "warnings.txt").read_text() == "step 2: looked: it was looked at\n"


# the pieces


def pictures(n: int) -> ImageDataset:
    random = torch.Generator().manual_seed(n)
    return ImageDataset(
        torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=random), torch.arange(n) % 10, "0123456789"
    )


def monitor(model: Model, *words: str) -> Monitor:
    config = compose("train", ["data=digits", "data.size=8", "trainer.batch_size=16", *words])
    train = pictures(300)
    splits = Splits("digits", lambda split: train if split == "train" else open_dataset(config["data"], split))
    return Monitor(model, splits, check_config(config).trainer, torch.device("cpu"))


def toy(kind: type[Toy] = Toy) -> Toy:
    from toy import ToyConfig

    return kind(ToyConfig(name="toy"), DataSpec("image", (1, 8, 8), tuple("0123456789"))).eval()


def validated(model: Model, *words: str) -> dict[str, float]:
    validate = monitor(model, "trainer.validate_every=1", *words).validate
    assert validate is not None
    return validate()


def test_nothing_is_looked_at_unasked() -> None:
    hooks = monitor(toy(), "trainer.examine_every=null").hooks(Path("samples"))
    assert (hooks.validate, hooks.examine) == (None, None)


def test_the_held_out_score_does_not_depend_on_the_batch() -> None:
    one, other = validated(toy()), validated(toy(), "trainer.batch_size=7")
    assert one.keys() == other.keys() == {"nelbo"}
    assert one["nelbo"] == pytest.approx(other["nelbo"], rel=1e-6)
    few = ("trainer.validate_items=20",)
    assert validated(toy(), *few) == pytest.approx(validated(toy(), *few, "trainer.batch_size=20"))
    assert validated(toy(), *few)["nelbo"] != pytest.approx(one["nelbo"])


@dataclass(frozen=True)
class PlainConfig:
    name: str


class Pixels:
    """An extractor that need not be trained: the pixels themselves."""

    name, checksum, canonical = "pixels", "0" * 64, False
    facts: ClassVar[Mapping[str, Any]] = {}
    widths: ClassVar[Mapping[str, int]] = {"features": 16}

    def __init__(self, config: PlainConfig, sources: Any) -> None:
        pass

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"features": images.float().flatten(1)[:, :16] / 255}


def test_the_distance_of_samples_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = registry.Component("extractor", "classifier", Pixels, PlainConfig)
    registry.load("extractor")
    monkeypatch.setitem(registry._components, ("extractor", "classifier"), stand_in)
    distance = validated(toy(), "trainer.validate_metric=fd", "trainer.validate_items=40")
    assert set(distance) == {"fd[pixels]"}
    assert distance == validated(toy(), "trainer.validate_metric=fd", "trainer.validate_items=40")


def test_a_model_without_score_and_samples_cannot_be_validated() -> None:
    class Coder(Toy):
        can = frozenset({"encode", "decode"})

    with pytest.raises(ConfigError, match="has no samples to judge"):
        validated(toy(Coder))
    with pytest.raises(ConfigError, match="has no held-out score"):
        validated(toy(Coder), "trainer.validate_metric=score")


def test_of_a_handful_of_items_there_is_no_verdict() -> None:
    class Looking(Toy):
        can = Toy.can | {"examine"}

        def examine(self, train: Batch, held_out: Batch | None) -> Losses:
            return {"few": torch.tensor(float(held_out is None))}

    def few(train: int, val: int) -> Callable[[], dict[str, float]] | None:
        splits = Splits("few", lambda split: pictures(train if split == "train" else val))
        config = check_config(compose("train", ["data=digits", "data.size=8"])).trainer
        return Monitor(toy(Looking), splits, config, torch.device("cpu")).examine

    assert few(4, 1) is None
    look, whole = few(40, 7), few(40, 8)
    assert look is not None
    assert whole is not None
    assert look() == {"few": 1.0}
    assert whole().keys() == {"few", "held_out/nelbo"}


def test_only_reconstructions_of_a_model_that_only_reconstructs(toy_here: Path) -> None:
    class Coder(Toy):
        can = frozenset({"encode", "decode"})

    monitor(toy(Coder)).preview(toy_here / "samples", 3)
    assert [path.name for path in (toy_here / "samples").iterdir()] == ["step-3-reconstructions.png"]


def test_a_model_is_examined_on_items_that_stay_the_same() -> None:
    seen: list[tuple[Batch, Batch | None]] = []

    class Looking(Toy):
        can = Toy.can | {"examine"}

        def examine(self, train: Batch, held_out: Batch | None) -> Losses:
            seen.append((train, held_out))
            return {"score": torch.tensor(2.0)}

    validated = "trainer.validate_every=5"  # else its score on held-out items is a curve too
    assert monitor(toy(), validated).examine is None
    look = monitor(toy(Looking), validated).examine
    assert look is not None
    assert look() == look() == {"score": 2.0}
    (train, held_out), (again, _) = seen
    assert held_out is not None
    assert len(train) == len(held_out) == 180  # the val split is the smaller one
    assert torch.equal(train.content, again.content)
    assert train.content.dtype == torch.float32
    assert train.content.abs().max() <= 1
    assert not torch.equal(train.content, held_out.content)
    none = monitor(toy(Looking), "data.val_fraction=0.0").examine
    assert none is not None
    none()
    assert seen[-1][1] is None
    assert len(seen[-1][0]) == 256


def test_samples_are_what_the_usual_controls_give(toy_here: Path) -> None:
    class Strict(Toy):
        def latents(self, noise: Noise, controls: Any) -> torch.Tensor:
            assert controls.mode == "sample"
            return super().latents(noise, controls)

    monitor(toy(Strict), "trainer.samples=4").preview(toy_here / "samples", 1)
    assert {path.name for path in (toy_here / "samples").iterdir()} == {"step-1.png", "step-1-reconstructions.png"}
