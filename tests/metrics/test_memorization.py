"""Copies of training images are found, and fresh data passes."""

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.memorization import Memorization, MemorizationConfig, above

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
