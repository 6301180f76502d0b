"""What the health curves measure, and that their warnings come where they should and only there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.gan import GAN, YOUNG, spread

SMALL = {"latent": 8, "hidden": 32, "width": 8, "max_width": 16}
HEALTHY = {"discriminator/accuracy": 0.75, "examine/diversity": 0.98, "examine/overfitting": 0.5}


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return compose("train", ["model=gan", "data=mnist", "recipe=null"])["model"]


def build(defaults: dict[str, Any], classes: int = 0, **changes: Any) -> GAN:
    torch.manual_seed(0)
    config = check("model", GANConfig, {**defaults, **SMALL, **changes})
    model = GAN(config, DataSpec("image", (1, 8, 8), tuple(map(str, range(classes)))))
    model.phases(YOUNG)
    return model


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def train(model: GAN, data: Batch, steps: int, phases: tuple[str, ...] = ("discriminator", "generator")) -> float:
    """Trains these phases alone; the discriminator's last accuracy."""
    optimizers = {phase: torch.optim.Adam(model.network(phase).parameters(), 3e-3, betas=(0.0, 0.99))
                  for phase in phases}  # fmt: skip
    accuracy = 0.0
    for step in range(steps):
        model.phases(step)
        for phase, optimizer in optimizers.items():
            model.requires_grad_(False)
            model.network(phase).requires_grad_(True)
            losses = model(phase, data)
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
            accuracy = losses.get("accuracy", torch.tensor(accuracy)).item()
    return accuracy


def examined(model: GAN, real: Batch, held_out: Batch | None) -> dict[str, float]:
    model.eval()
    with torch.no_grad():
        return {f"examine/{name}": value.item() for name, value in model.examine(real, held_out).items()}


def said(model: GAN, **figures: float) -> list[str]:
    return [name for name, _ in model.warnings(HEALTHY | {key.replace("__", "/"): x for key, x in figures.items()})]


def test_spread_is_the_mean_distance_between_two() -> None:
    three = torch.tensor([0.0, 1.0, 3.0])[:, None, None, None].expand(3, 2, 4, 4)
    assert spread(three).item() == pytest.approx((1 + 2 + 3) / 3)
    assert spread(three, torch.tensor([0, 1, 1])).item() == pytest.approx(2)


def test_examining_repeats_itself_and_needs_no_held_out_data(defaults: dict[str, Any]) -> None:
    model, real = build(defaults), Batch(images(16))
    first = examined(model, real, Batch(images(16, 1)))
    torch.rand(3)
    assert examined(model, real, Batch(images(16, 1))) == first
    assert set(first) - set(examined(model, real, None)) == {"examine/held_out_score", "examine/overfitting"}


def test_overfitting_is_where_held_out_scores_lie_between_training_and_fake(defaults: dict[str, Any]) -> None:
    model = build(defaults)

    class Brightness(nn.Module):
        def forward(self, x: Tensor, labels: Tensor | None) -> Tensor:
            return x.mean(dim=(1, 2, 3))

    model.discriminator = Brightness()
    fake = examined(model, Batch(images(16)), None)["examine/fake_score"]
    real, between = Batch(torch.ones(16, 1, 8, 8)), Batch(torch.full((16, 1, 8, 8), (3 * 1 + fake) / 4))
    assert examined(model, real, between)["examine/overfitting"] == pytest.approx(0.25, abs=1e-4)
    worse = Batch(torch.full((16, 1, 8, 8), fake - 1))  # a discriminator that ranks samples first has no lead to lose
    assert examined(model, worse, real)["examine/overfitting"] == 0.0


def test_conditional_models_are_examined_on_the_classes_of_the_batch(defaults: dict[str, Any]) -> None:
    model = build(defaults, classes=3, conditional=True)
    labels = torch.arange(12) % 3
    one = examined(model, Batch(images(12), labels), None)
    other = examined(model, Batch(images(12), labels.flip(0)), None)
    assert one["examine/real_score"] != other["examine/real_score"]


def test_a_healthy_run_is_left_alone(defaults: dict[str, Any]) -> None:
    assert said(build(defaults)) == []


def test_nothing_is_said_before_the_first_look(defaults: dict[str, Any]) -> None:
    assert list(build(defaults).warnings({"discriminator/accuracy": 1.0})) == []


def test_a_young_generator_has_not_collapsed(defaults: dict[str, Any]) -> None:
    model = build(defaults)
    model.phases(YOUNG - 1)
    assert said(model, examine__diversity=0.05) == []
    examined(model, Batch(images(8)), None)
    model.phases(YOUNG + 50)  # what is judged is of before
    assert said(model, examine__diversity=0.05) == []


def test_a_discriminator_that_tells_nothing_apart_knows_nothing_by_heart(defaults: dict[str, Any]) -> None:
    scores = {"examine__real_score": 0.27, "examine__fake_score": 0.25, "examine__held_out_score": 0.18}
    assert said(build(defaults), examine__overfitting=4.5, **scores) == []


@pytest.mark.parametrize(
    ("figures", "name"),
    [
        ({"discriminator__accuracy": 0.999}, "discriminator winning"),
        ({"examine__diversity": 0.05}, "mode collapse"),
        ({"examine__overfitting": 0.95}, "overfitting"),
    ],
)
def test_each_trouble_has_its_one_line_with_a_key_to_change(
    defaults: dict[str, Any], figures: dict[str, float], name: str
) -> None:
    variants = [{}, {"penalty": "none"}, {"loss": "wgan"}, {"discriminator_steps": 4}, {"augment": ["ada"]},
                {"augment": ["color"], "lecam": 0.1}, {"augment": ["ada"], "lecam": 0.1}]  # fmt: skip
    for changes in variants:
        model = build(defaults, **changes)
        if name == "discriminator winning" and changes.get("loss") == "wgan":
            assert said(model, **figures) == []  # a critic is to be as sure as it can be
            continue
        assert said(model, **figures) == [name]
        ((_, line),) = model.warnings(HEALTHY | {key.replace("__", "/"): x for key, x in figures.items()})
        assert "\n" not in line
        advised = [word for word in line.replace(",", " ").split() if word.startswith("model.") and "=" in word]
        assert advised
        for word in advised:  # what it advises is something that can be set, and is not set already
            key, value = word.removeprefix("model.").split("=")
            assert key in defaults
            assert str(getattr(model.config, key)) != value


def test_a_discriminator_that_trains_alone_wins(defaults: dict[str, Any]) -> None:
    model, real = build(defaults, penalty="none"), Batch(images(64))
    accuracy = train(model, real, 60, ("discriminator",))
    figures = examined(model, real, None) | {"discriminator/accuracy": accuracy}
    model.phases(50)  # it learns faster at first
    assert "discriminator winning" not in [name for name, _ in model.warnings(figures)]
    model.phases(100)
    assert "discriminator winning" in [name for name, _ in model.warnings(figures)]


def test_a_generator_that_ignores_its_latent_has_collapsed(defaults: dict[str, Any]) -> None:
    model, real = build(defaults, network="mlp", generator_norm="none"), Batch(images(64))
    model.generator.body[0].weight.data.mul_(1e-3)
    figures = examined(model, real, None)
    assert figures["examine/diversity"] < 0.05
    assert [name for name, _ in model.warnings(figures)] == ["mode collapse"]


def test_a_collapse_may_pass_so_nothing_is_to_be_changed_at_once(defaults: dict[str, Any]) -> None:
    ((_, line),) = build(defaults).warnings(HEALTHY | {"examine/diversity": 0.34})
    assert "(mode collapse); if it lasts, try model." in line
    assert line.endswith("take model=vae")


def test_one_image_a_class_is_a_collapse_too(defaults: dict[str, Any]) -> None:
    model = build(defaults, classes=2, conditional=True, network="mlp", generator_norm="none")
    first = model.generator.body[0].weight.data
    first[:, :8] *= 1e-3  # the latent's part
    first[:, 8:] *= 30  # the class's
    figures = examined(model, Batch(images(64), torch.arange(64) % 2), None)
    assert figures["examine/diversity"] < 0.05


def test_a_discriminator_with_few_images_knows_them_by_heart(defaults: dict[str, Any]) -> None:
    """Of noise, where there is nothing to learn but the images themselves."""
    model = build(defaults, network="mlp", penalty="none", hidden=128)
    real, held_out = Batch(images(16)), Batch(images(16, 1))
    train(model, real, 150)
    figures = examined(model, real, held_out)
    assert figures["examine/overfitting"] > 0.8
    assert "overfitting" in [name for name, _ in model.warnings(figures)]
