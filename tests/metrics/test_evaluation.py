"""One pass for all metrics, with the floor beside them, and never a figure that is not one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from noise import ALL, FD, IS, PRDC, generated, ready, side
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics import evaluation
from aigc_cli.modalities.image_files import open_images

Make = Callable[..., Tensor]

pytestmark = pytest.mark.usefixtures("pixels")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path))
    return tmp_path


def test_the_same_images_are_at_the_end_of_the_scale(images: Make) -> None:
    content = images(50)
    results = ready(ALL, side(content), size=16).of(generated(content))
    fd, prdc, inception = results
    assert fd.labelled() == {"fd[pixels]": pytest.approx(0, abs=1e-12)}
    assert prdc.generated.figures["precision"] == 1
    assert (fd.n_real, fd.generated.n) == (50, 50)
    assert inception.n_real == 0
    assert fd.baseline is None


def test_sizes_matter_where_sides_are_compared(images: Make) -> None:
    fake, larger = images(20), torch.zeros(30, 3, 16, 16, dtype=torch.uint8)
    (alone,) = ready({"is": IS}).of(generated(fake))
    (beside,) = ready({"is": IS}, side(larger)).of(generated(fake))
    assert alone.generated == beside.generated
    with pytest.raises(DataError, match="16x16"):
        ready({"fd": FD}, side(larger)).of(generated(fake))
    with pytest.raises(ConfigError, match="real="):
        ready({"fd": FD})


def test_batches_do_not_matter(images: Make) -> None:
    real, fake = images(50), images(41, seed=1, low=60)
    a, b = (
        ready(ALL, side(real), side(images(20, seed=2), "test"), size=size).of(generated(fake)) for size in (7, 100)
    )
    for x, y in zip(a, b, strict=True):
        for score in ("generated", "baseline", "at_baseline_n"):
            assert getattr(x, score).figures == pytest.approx(getattr(y, score).figures, abs=1e-9)


def test_the_floor_is_held_out_images_in_the_place_of_generated_ones(images: Make) -> None:
    real, held_out, fake = images(60), images(20, seed=2), images(60, seed=1, low=90)
    result = ready({"fd": FD}, side(real), side(held_out, "test")).of(generated(fake))[0]
    as_fake = ready({"fd": FD}, side(real)).of(generated(held_out))[0]
    first = ready({"fd": FD}, side(real)).of(generated(fake[:20]))[0]
    assert result.baseline is not None
    assert result.at_baseline_n is not None
    assert result.baseline.n == result.at_baseline_n.n == 20
    assert result.baseline.figures == pytest.approx(as_fake.generated.figures, abs=1e-12)
    assert result.at_baseline_n.figures == pytest.approx(first.generated.figures, abs=1e-12)
    assert result.baseline.figures["fd"] < result.generated.figures["fd"]


def test_an_equal_number_needs_no_third_figure(images: Make) -> None:
    held_out = side(images(20, seed=2), "test")
    result = ready({"fd": FD}, side(images(60)), held_out).of(generated(images(20, seed=3)))[0]
    assert result.at_baseline_n is None


def test_too_few_held_out_images_cost_only_the_floor(images: Make, capsys: pytest.CaptureFixture[str]) -> None:
    evaluator = ready({"prdc": PRDC}, side(images(60)), side(images(3, seed=2), "test"))
    assert "no baseline for prdc" in capsys.readouterr().err
    result = evaluator.of(generated(images(20, seed=3)))[0]
    assert result.baseline is None
    assert result.at_baseline_n is None


def test_an_evaluator_serves_many_times(images: Make) -> None:
    evaluator = ready(ALL, side(images(30)), side(images(10, seed=5), "test"))
    first = evaluator.of(generated(images(20, seed=1)))
    evaluator.of(generated(images(20, seed=2)))
    again = evaluator.of(generated(images(20, seed=1)))
    assert [result.generated for result in first] == [result.generated for result in again]


def test_sample_sets_share_the_features_of_the_reference(images: Make) -> None:
    evaluator = ready({"prdc": PRDC}, side(images(30)))
    (copied,) = evaluation._fresh(evaluator._primed).values()
    primed = evaluator._primed["prdc"]
    assert copied.real[0] is primed.real[0]
    copied.update("fake", torch.zeros(2, 16))
    assert (len(primed.fake), len(copied.fake)) == (0, 1)


def test_features_that_are_not_finite_give_no_number(images: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = ready({"fd": FD}, side(images(30)))
    broken = {"features": torch.full((30, 16), float("nan"))}
    monkeypatch.setattr(type(evaluator._extractor("fd")), "__call__", lambda self, batch: broken)
    with pytest.raises(DataError, match="NaN or infinite"):
        evaluator.of(generated(images(30)))


def test_images_of_another_size_give_no_number(images: Make) -> None:
    evaluator = ready({"fd": FD}, side(images(30)))
    with pytest.raises(DataError, match="1x8x8"):
        evaluator.of(generated(images(30, (1, 8, 8))))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_images_give_no_number(images: Make, n: int) -> None:
    evaluator = ready({"fd": FD}, side(images(30)))
    with pytest.raises(DataError, match="too few"):
        evaluator.of(generated(images(n)))


def test_wrong_names_and_keys_are_named(images: Make) -> None:
    with pytest.raises(ConfigError, match="no metric named 'fdi'"):
        ready({"fdi": FD}, side(images(30)))
    with pytest.raises(ConfigError, match="no extractor named 'pixel'"):
        ready({"fd": {**FD, "extractor": "pixel"}}, side(images(30)))
    with pytest.raises(ConfigError, match=r"metric\.prdc\.k=0"):
        ready({"prdc": {**PRDC, "k": 0}}, side(images(30)))


def test_fewer_images_of_files_beside_the_floor_are_of_all_kinds(images: Make, tmp_path: Path) -> None:
    kinds = torch.zeros(40, 16, dtype=torch.uint8)
    for kind in range(4):  # which stand together, as class folders do
        kinds[10 * kind : 10 * kind + 10, 4 * kind : 4 * kind + 4] = 255
    np.savez(tmp_path / "a.npz", kinds.reshape(40, 4, 4).numpy())
    vendi = {"vendi": {"name": "vendi", "extractor": "pixels"}}
    (result,) = ready(vendi, None, side(images(10))).of(open_images(tmp_path / "a.npz"))
    assert result.generated.figures["vendi"] == pytest.approx(4)
    assert result.at_baseline_n is not None
    assert result.at_baseline_n.figures["vendi"] > 3
