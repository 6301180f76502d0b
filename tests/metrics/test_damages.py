"""Real images that are spoilt step by step: each metric moves the way its paper says, and is blind where it says so."""

import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_cli.metrics.extractors import classifier, own_ssl

ROOT = Path(__file__).resolve().parents[2]
Curves = dict[str, list[dict[str, float]]]

#: For each damage the figures that must fall or rise step by step.
FALLS = {
    "noise": ("precision", "density", "coverage", "recall", "cs"),
    "blur": ("precision", "density", "coverage", "recall", "cs"),
    "dropped classes": ("recall", "coverage", "vendi", "cs"),
    "duplicates": ("recall", "coverage", "vendi"),
    "memorised": ("authenticity",),
}
RISES = {
    "noise": ("fd", "kd", "fd_infinity", "authenticity"),
    "blur": ("fd", "kd", "fd_infinity", "authenticity"),
    "dropped classes": ("fd", "kd", "fd_infinity"),
    "duplicates": ("fd",),
    "memorised": ("closer", "copies"),
}
#: What stays about where it was, though the damage is great: the reason to ask for more than one figure.
BLIND = {"dropped classes": ("precision",), "duplicates": ("precision",), "memorised": ("precision", "coverage")}


@pytest.fixture(scope="module", params=["classifier", "own-ssl"])
def curves(request: pytest.FixtureRequest) -> Curves:
    spec = importlib.util.spec_from_file_location("metric_controls", ROOT / "benchmarks" / "metric_controls.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = {"name": "digits", "size": 8, "flip": False, "val_fraction": 0.0, "test_fraction": 0.5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_FEWEST", 6_000)
        patch.setattr(own_ssl, "_FEWEST", 8_000)
        patch.setitem(module.METRICS, "fd_infinity", {"points": 4, "smallest": 0.6, "seed": 0})
        found: Curves = module.curves(module.Data(values, torch.device("cpu")), 250, extractor=request.param)
    return found


def pairs(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(damage, figure) for damage, figures in table.items() for figure in figures]


def steps(curves: Curves, damage: str, figure: str) -> list[float]:
    if figure not in curves[damage][0]:
        pytest.skip("the extractor does not classify")
    return [level[figure] for level in curves[damage]]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "figure"), pairs(FALLS))
def test_it_falls_with_the_damage(curves: Curves, damage: str, figure: str) -> None:
    values = steps(curves, damage, figure)
    slack = 0.03 * abs(values[0])
    assert all(after <= before + slack for before, after in pairwise(values)), values
    assert values[-1] < 0.8 * values[0]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "figure"), pairs(RISES))
def test_it_rises_with_the_damage(curves: Curves, damage: str, figure: str) -> None:
    values = steps(curves, damage, figure)
    slack = 0.03 * abs(values[-1])
    assert all(after >= before - slack for before, after in pairwise(values)), values
    assert values[-1] > values[0] + 0.2 * abs(values[-1])


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "figure"), pairs(BLIND))
def test_it_does_not_see_the_damage(curves: Curves, damage: str, figure: str) -> None:
    values = steps(curves, damage, figure)
    assert values[-1] > values[0] - 0.15


@pytest.mark.slow
def test_copies_of_the_training_set_look_better_than_new_images_to_a_distance(curves: Curves) -> None:
    values = steps(curves, "memorised", "fd")
    assert values[-1] < values[0]
