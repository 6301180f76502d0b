"""Neighbours, and the metrics that count them."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.neighbours import PRDC, Memorization, MemorizationConfig, PRDCConfig, above, nearest


@pytest.mark.parametrize("memory_mb", [1, 64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_neighbours_are_those_of_brute_force(memory_mb: int, offset: float) -> None:
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(offset, 1, (n, 5))).float() for n in (1500, 700))
    distance, index = nearest(x, y, memory_mb)
    every = torch.cdist(x.double(), y.double())
    assert torch.equal(index, every.argmin(dim=1))
    assert torch.allclose(distance, every.min(dim=1).values, atol=1e-9)
    among, _ = nearest(y[100:], y, memory_mb, own=torch.arange(100, 700))
    every = torch.cdist(y[100:].double(), y.double())
    every[torch.arange(600), torch.arange(100, 700)] = torch.inf
    assert torch.allclose(among, every.min(dim=1).values, atol=1e-9)


def measured(real: np.ndarray, fake: np.ndarray, k: int = 5, memory_mb: int = 64, batch: int = 64) -> dict[str, float]:
    metric = PRDC(PRDCConfig(name="prdc", extractor="pixels", k=k, memory_mb=memory_mb), real.shape[1])
    for part in torch.from_numpy(real).split(batch):
        metric.update("real", part)
    for part in torch.from_numpy(fake).split(batch):
        metric.update("fake", part)
    return {name: float(value) for name, value in metric.compute().items()}


@pytest.mark.parametrize(("n_real", "n_fake", "k"), [(200, 200, 5), (300, 120, 3), (90, 250, 1)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_they_are_the_packages(
    n_real: int, n_fake: int, k: int, offset: float, capsys: pytest.CaptureFixture[str]
) -> None:
    from prdc import compute_prdc

    rng = np.random.default_rng(n_real)
    real = (rng.normal(0, 1, (n_real, 12)) + offset).astype(np.float32)
    fake = (rng.normal(0.3, 0.8, (n_fake, 12)) + offset).astype(np.float32)
    wanted = compute_prdc(real, fake, k)
    assert measured(real, fake, k) == pytest.approx({key: float(value) for key, value in wanted.items()}, abs=1e-12)


def test_blocks_give_the_figures_of_one_piece() -> None:
    rng = np.random.default_rng(0)
    real, fake = (rng.normal(0, 1, (700, 4)).astype(np.float32) for _ in range(2))
    assert measured(real, fake, memory_mb=1) == measured(real, fake, memory_mb=1000, batch=700)


def test_the_ends_of_the_scale() -> None:
    real = np.random.default_rng(0).normal(0, 1, (60, 4)).astype(np.float32)
    same = measured(real, real)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    far = measured(real, real + 100)
    assert far == dict.fromkeys(("precision", "recall", "density", "coverage"), 0)
    collapsed = measured(real, np.repeat(real[:1], 60, axis=0))
    assert collapsed["precision"] == 1
    assert collapsed["recall"] == 0
    assert collapsed["coverage"] < 0.2


@pytest.mark.parametrize(("n_real", "n_fake"), [(5, 60), (60, 5), (60, 0)])
def test_too_few_images_give_no_number(n_real: int, n_fake: int) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    with pytest.raises(DataError, match="needs at least 6"):
        measured(rows[:n_real], rows[:n_fake])


CONFIG = MemorizationConfig(name="memorization", extractor="x", quantile=0.05, pairs=3, memory_mb=1)


def pictures(n: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 1, 4, 4), dtype=np.uint8))


def metric(train: torch.Tensor, held: torch.Tensor, fake: torch.Tensor) -> Memorization:
    built = Memorization(CONFIG, 16)
    for stream, images in (("real", train), ("fake", fake), ("held_out", held)):
        for part in images.split(50):
            built.update(stream, part.flatten(1).float() / 255, part)  # type: ignore[arg-type]
    return built


def figures(*sides: torch.Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in metric(*sides).compute().items()}


def test_fresh_data_is_where_held_out_data_is() -> None:
    got = figures(pictures(300, 0), pictures(200, 1), pictures(200, 2))
    assert got["closer"] == pytest.approx(0.5, abs=0.1)
    assert got["closer_pixels"] == pytest.approx(0.5, abs=0.1)
    assert got["copies"] < 0.12
    assert got["copies_pixels"] < 0.12


def test_copies_are_seen_in_every_figure() -> None:
    train = pictures(300, 0)
    got = figures(train, pictures(200, 1), train[:150])
    assert got == {"closer": 1, "closer_pixels": 1, "copies": 1, "copies_pixels": 1, "authenticity": 0}


def test_blur_and_few_items_are_told_apart_from_copies_by_no_pixels() -> None:
    train, held, fresh = pictures(300, 0), pictures(200, 1), pictures(200, 2)
    (means,) = metric(train, held, fresh).notes()
    assert "closer is one half of new items and 1 of copies; copies is the share nearer" in means
    _, blurry = metric(train, held, fresh // 4 + 96).notes()
    assert "samples vary less than real items" in blurry
    _, few = metric(train, held[:20], fresh).notes()
    assert "20 held-out items are few (in their own column 10 against the others)" in few
    assert Memorization.figures["closer"] == "near"


def test_the_share_of_copies_among_others_is_found() -> None:
    train = pictures(300, 0)
    got = figures(train, pictures(200, 1), torch.cat([train[:40], pictures(160, 2)]))
    assert got["copies"] == pytest.approx(0.2 + 0.8 * 0.05, abs=0.05)


def test_copies_are_copies_where_some_held_out_images_are_in_the_training_set() -> None:
    """Even if those are so many that no sample can be nearer than the nearest of them."""
    train = pictures(300, 0)
    got = figures(train, torch.cat([train[:40], pictures(160, 1)]), torch.cat([train[:75], pictures(25, 2)]))
    assert got["copies"] == got["copies_pixels"] == 0.75


def test_the_gallery_shows_the_copies_beside_their_originals() -> None:
    train = pictures(300, 0)
    built = metric(train, pictures(50, 1), torch.cat([pictures(60, 2), train[7:10]]))
    built.compute()
    gallery = built.gallery()
    assert gallery is not None
    assert gallery.shape == (3, 3, 1, 4, 4)
    for column in range(3):
        assert torch.equal(gallery[:, column], train[7:10])


def test_the_chance_of_being_below_counts_ties_half() -> None:
    a, b = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([2.0, 3.0])
    assert above(a, b) == pytest.approx((1 + 1 + 0.5 + 1 + 0.5 + 1) / 6)


def test_half_of_the_held_out_images_is_judged_by_the_other() -> None:
    train, held = pictures(300, 0), pictures(201, 1)
    halved = metric(train, held, pictures(0, 2))
    assert halved.halve_held_out() == 101
    got = {name: float(value) for name, value in halved.compute().items()}
    assert got == figures(train, held[1::2], held[::2])
    assert got["closer"] != 0.5


def test_without_held_out_images_there_is_no_number() -> None:
    built = Memorization(CONFIG, 16)
    train = pictures(20, 0)
    built.update("real", train.flatten(1).float(), train)
    built.update("fake", train.flatten(1).float(), train)
    with pytest.raises(DataError, match="held-out"):
        built.compute()
