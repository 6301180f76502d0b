"""What must hold for all that is registered: it composes, it is checked, and models train on all that they serve."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from aigc_cli.commands.train import check_config
from aigc_cli.config import check, compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader
from aigc_cli.randomness import Noise
from aigc_cli.registry import find, names
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import build_model
from aigc_cli.training.trainer import Hooks, Trainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GROUPS = {"model", "data", "optimizer", "trainer", "experiment"}
CHOICES = [(path.parent.name, path.stem) for path in sorted(CONFIGS.glob("*/*.yaml")) if path.parent.name in GROUPS]


def images(channels, size, classes):
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, channels, size, size), dtype=torch.uint8, generator=random)
    labels = torch.arange(24) % classes if classes else None
    return ImageDataset(pixels, labels, [str(i) for i in range(classes)], flip=channels == 3)


#: Datasets of each kind, by modality.
KINDS = {
    "image": [images(1, 8, 10), images(1, 16, 0), images(3, 32, 10), images(3, 64, 0)],
}


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_is_checked(group, name):
    check_config(compose("train", [f"{group}={name}"]))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("recipe/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_applied(path):
    model, data, *optimizer = path.stem.split("_")
    composed = compose("train", [f"model={model}", f"data={data}", *(f"optimizer={name}" for name in optimizer)])
    own = OmegaConf.to_container(OmegaConf.load(path))
    for section, keys in own.items():
        for key, value in keys.items():
            assert composed[section][key] == value, f"{section}.{key}"


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("model", "data") for name in names(kind)])
def test_every_component_has_its_yaml(kind, name):
    component = find(kind, name)
    values = compose("train", [f"{kind}={name}"])[kind]
    assert check(kind, component.config, values).name == name
    first = (CONFIGS / kind / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# "), "the first line describes it"


@pytest.mark.parametrize("name", names("metric"))
def test_every_metric_has_its_yaml(name):
    values = compose("eval", [f"metric=[{name}]"])["metric"][name]
    assert check(f"metric.{name}", find("metric", name).config, values).name == name


@pytest.mark.parametrize("name", names("model"))
@pytest.mark.parametrize("place", range(4))
def test_every_model_trains_three_steps_on_all_that_it_serves(name, place, tmp_path):
    for modality in find("model", name).build.modalities:
        dataset = KINDS[modality][place]
        words = [f"model={name}", "data=mnist", "trainer.steps=3", "trainer.batch_size=6", "trainer.device=cpu"]
        config = compose("train", words)
        checked = check_config(config)
        torch.manual_seed(0)
        model = build_model(config["model"], dataset.spec)
        before = [p.detach().clone() for p in model.parameters()]
        loader = Loader(dataset, batch_size=6, seed=0, device="cpu")
        trainer = Trainer(
            model=model, loader=loader, optimizer=checked.optimizer, config=checked.trainer, seed=0,
            run=Run(tmp_path), device=torch.device("cpu"),
        )  # fmt: skip
        figures = trainer.fit(Hooks())
        assert all(value == value for value in figures.values())
        assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
        with torch.no_grad():
            drawn = model.eval().sample(Noise(0, range(5)))
        assert drawn.shape == (5, *dataset.spec.shape)
        assert torch.isfinite(drawn).all()
