"""What must hold for all that is registered: it composes, it is checked, and models train on all that they serve."""

from dataclasses import fields
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from draws import sampled
from omegaconf import OmegaConf
from toy_text import ToyText, documents, windows

from aigc_cli.config.compose import compose
from aigc_cli.config.recipes import conditions_of
from aigc_cli.config.schema import check, own_keys, walk
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import open_dataset
from aigc_cli.data.sounds import SoundDataset, SoundsConfig
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.audio_config import AudioCodecConfig
from aigc_cli.models.base import METHODS, Ability, Model, build_model
from aigc_cli.randomness import Noise
from aigc_cli.registry import find, names
from aigc_cli.runs import Run
from aigc_cli.sampling.modes import modes_of
from aigc_cli.training.build import check_config
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
GROUPS = {"model", "data", "optimizer", "trainer", "experiment"}
CHOICES = [(path.parent.name, path.stem) for path in sorted(CONFIGS.glob("*/*.yaml")) if path.parent.name in GROUPS]
MODELS = [name for group, name in CHOICES if group == "model"]  # presets too, which share a component


def images(channels, size, classes):
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, channels, size, size), dtype=torch.uint8, generator=random)
    labels = torch.arange(24) % classes if classes else None
    return ImageDataset(pixels, labels, [str(i) for i in range(classes)], views=["flip"] if channels == 3 else [])


def sounds(kind, channels, classes):
    """Clips of a few lengths, as spectrograms of 16x16 or 64x64, or as waveforms."""
    bins, hop = {"mel": (16, 256), "spectrogram": (64, 64), "waveform": (None, None)}[kind]
    codec = AudioCodecConfig(kind=kind, bins=bins, hop=hop)
    config = SoundsConfig(sample_rate=8000, seconds=0.512, channels=channels, normalize="none", codec=codec)
    random = np.random.default_rng(0)
    content = random.integers(-9000, 9000, (24, channels, config.samples)).astype(np.int16)
    for place in range(0, 24, 3):
        content[place, :, 900 + place :] = 0
    labels = np.arange(24) % classes if classes else None
    return SoundDataset(config, content, labels, classes=[str(i) for i in range(classes)])


def clips(frames, size, classes):
    words = ["data=moving_digits", "data.clips=24", f"data.frames={frames}", f"data.size={size}", "data.sprite=7"]
    words += ["data.speed=[0.5,2.0]", f"data.labels={'digit' if classes else 'none'}"]
    return open_dataset(compose("data", words)["data"], "train")


#: Datasets of each kind, by modality.
KINDS = {
    "video": [clips(8, 16, True), clips(4, 32, False), clips(8, 16, True), clips(8, 16, False)],
    "audio": [sounds("mel", 1, 10), sounds("waveform", 1, 0), sounds("mel", 2, 10), sounds("spectrogram", 1, 0)],
    "image": [images(1, 8, 10), images(1, 16, 0), images(3, 32, 10), images(3, 64, 0)],
    "text": [ToyText(rows) for rows in (windows(24, 2), windows(24, 17), documents(24, 9), documents(24, 33))],
    "text from text": [
        ToyText(documents(24, n), documents(24, m, seed=5)) for n, m in ((4, 4), (9, 9), (6, 12), (12, 6))
    ],
}


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_is_checked(group, name):
    check_config(compose("train", [f"{group}={name}"]))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("recipe/*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_applied_where_it_is_named(path):
    conditions = {each.fact: each.value.split("|")[0] for each in conditions_of(path) if each.sign == "="}
    assert "model" in conditions, "what suits one model does not suit another"
    if conditions.get("modality") == "text":  # each kind of data has keys of its own, and recipes may set them
        conditions.setdefault("data", "pairs" if conditions["model"] == "seq2seq" else "text")
    words = [f"{group}={conditions[group]}" for group in ("model", "data") if group in conditions]
    applied = dict(walk(compose("train", [*words, f"recipe={path.stem}"])))
    for key, value in walk(OmegaConf.to_container(OmegaConf.load(path))):
        assert isinstance(value, dict) or key.startswith("defaults") or applied[key] == value, key


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("model", "data") for name in names(kind)])
def test_every_component_has_its_yaml(kind, name):
    component = find(kind, name)
    values = compose("train", [f"{kind}={name}"])[kind]
    assert check(kind, component.config, own_keys(values) if kind == "data" else values).name == name


@pytest.mark.parametrize("name", names("model"))
def test_every_model_has_the_methods_that_it_says_and_no_others(name):
    kind = find("model", name).build
    has = {method for method in METHODS if getattr(kind, method, None) is not getattr(Model, method, None)}
    assert kind.can & set(METHODS) == has
    assert kind.can <= set(get_args(Ability))
    reads = kind.can & {"prompt", "encode", "continue", "infill"}
    assert bool(reads) == ("prompt" in field_names(kind.controls))
    assert ("fill" in kind.can) == bool(kind.fills_from)
    assert ("mode" in field_names(kind.controls)) == (modes_of(kind) != ("sample",))
    assert kind.layouts


def field_names(schema):
    return {field.name for field in fields(schema)}


def test_a_method_that_is_not_said_is_refused():
    with pytest.raises(TypeError, match=r"Mine has sample\(\) and does not say so: add 'sample' to its `can`"):
        type("Mine", (Model,), {"sample": lambda self, noise, controls, prompts=None: noise.normal(1)})


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_is_described(group, name):
    lines = (CONFIGS / group / f"{name}.yaml").read_text().splitlines()
    assert next(line for line in lines if "@package" not in line).startswith("# "), "the first line describes it"


@pytest.mark.parametrize("name", names("metric"))
def test_every_metric_has_its_yaml(name):
    values = compose("eval", [f"metric=[{name}]"])["metric"][name]
    assert check(f"metric.{name}", find("metric", name).config, values).name == name


#: What makes a model small, where it has such a key and it says more.
SMALL = {"width": 8, "max_width": 32, "discriminator_width": 8}


def small(name, dataset, everything):
    """Words for a model that trains fast on `dataset`, and conditional on labels if it always is or `everything`."""
    keys = compose("train", [f"model={name}", "data=image_folder"])["model"]
    large = {key: most for key, most in SMALL.items() if isinstance(keys.get(key), int) and keys[key] > most}
    words = [f"model.{key}={most}" for key, most in large.items()]
    if "conditional" in keys:
        conditional = bool(dataset.spec.classes) and (keys["conditional"] or everything)
        words.append(f"model.conditional={str(conditional).lower()}")
    return [f"model={name}", "data=image_folder", *words]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("place", range(4))
def test_every_model_trains_three_steps_on_all_that_it_serves(name, place, tmp_path):
    kind = find("model", compose("train", [f"model={name}"])["model"]["name"]).build
    for kinds in KINDS.values():
        dataset = kinds[place]
        if dataset.spec.layout not in kind.layouts or kind.from_source != (dataset.spec.source is not None):
            continue
        words = ["trainer.steps=3", "trainer.batch_size=6", "trainer.device=cpu"]
        config = compose("train", [*small(name, dataset, everything=place == 2), *words, "recipe=null"])
        checked = check_config(config)
        torch.manual_seed(0)
        layout = {"wavegan": "sequence", "dcgan3d": "volume"}.get(config["model"].get("network"), "map")
        if (config["model"]["name"] == "gan" or name == "autoencoder") and layout != dataset.spec.layout:
            with pytest.raises(ConfigError, match=r"model\.network="):
                build_model(config["model"], dataset.spec)
            continue
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
        if "sample" not in kind.can:
            continue
        with torch.no_grad():
            drawn = sampled(model.eval(), Noise(0, range(5)))
        assert drawn.shape == (5, *dataset.spec.shape)
        assert torch.isfinite(drawn).all()
