"""What must hold for all that is registered: it composes, it is checked, and models train on all that they serve."""

from dataclasses import fields
from typing import get_args

import pytest
import torch
from draws import sampled
from kinds import CONFIGS, KINDS, MODELS, small
from omegaconf import OmegaConf

from aigc_cli.config.compose import compose
from aigc_cli.config.recipes import conditions_of
from aigc_cli.config.schema import check, own_keys, walk
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError
from aigc_cli.models.base import METHODS, Ability, Model, build_model
from aigc_cli.randomness import Noise
from aigc_cli.registry import find, names
from aigc_cli.runs import Run
from aigc_cli.sampling.modes import modes_of
from aigc_cli.training.build import check_config
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer

GROUPS = {"model", "data", "optimizer", "trainer", "experiment"}
CHOICES = [(path.parent.name, path.stem) for path in sorted(CONFIGS.glob("*/*.yaml")) if path.parent.name in GROUPS]


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
