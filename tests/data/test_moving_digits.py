"""Moving digits: clips whose truth is known, on straight lines that the edges reflect."""

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.config.compose import compose
from aigc_cli.data.base import DRAWS
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import open_dataset
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.video import centres


def opened(*words, split="train"):
    return open_dataset(compose("data", ["data=moving_digits", "data.clips=40", *words])["data"], split)


@pytest.fixture(scope="module")
def train():
    return opened()


def test_a_clip_does_not_depend_on_its_batch_nor_on_the_order_of_asking(train):
    index = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    together = train.gatherer("cpu")(index)
    for place, row in enumerate(index.tolist()):
        content, label = train.read(row)
        assert torch.equal(content, together.content[place])
        assert label == row % 10 == together.labels[place]


def test_what_moves_is_where_its_truth_says(train):
    clips = train(torch.arange(40)).content
    for row in range(40):
        off = centres(clips[row : row + 1])[0].numpy() - train.truth(row)["centres"][0]
        assert np.abs(off - off.mean(axis=0)).max() < 0.05  # the mass of a digit is off its middle, always alike
        assert np.abs(off).max() < 1.5


def test_paths_are_straight_but_for_walls_and_as_fast_as_asked_for():
    dataset = opened("data.speed=[2.0,2.5]", "data.frames=16")
    for row in range(20):
        steps = np.diff(dataset.truth(row)["centres"][0], axis=0)
        straight = np.abs(np.diff(np.abs(steps), axis=0)).max(axis=1) < 1e-3
        assert straight.sum() >= 8  # two steps are cut short by each of at most three reflections
        speeds = np.hypot(*steps.T)
        assert speeds.max() <= 2.5001
        assert np.median(speeds) >= 1.9999


def test_each_epoch_has_new_clips_of_the_same_classes_and_evaluation_always_the_same(train):
    loader = Loader(train, batch_size=20, seed=0, device="cpu")
    first, again = loader.batch(0), Loader(train, batch_size=20, seed=0, device="cpu").batch(0)
    assert torch.equal(first.content, again.content)
    seen = torch.cat([loader.batch(k).content for k in range(4)])  # two epochs
    assert len(torch.unique(seen.flatten(1), dim=0)) == 80
    assert torch.equal(torch.bincount(first.labels) + torch.bincount(loader.batch(1).labels), torch.full((10,), 4))


def test_two_processes_share_the_batches_of_one(train):
    whole = Loader(train, batch_size=12, seed=3, device="cpu").batch(2)
    parts = [Loader(train, batch_size=6, seed=3, device="cpu", rank=rank, world_size=2).batch(2) for rank in (0, 1)]
    assert torch.equal(whole.content, torch.cat([part.content for part in parts]))


def test_held_out_clips_are_of_other_digits(train):
    others = [opened(split=split) for split in ("val", "test")]
    own = {tuple(sprite.flatten().tolist()) for sprite in train._sprites}
    for other in others:
        shared = sum(tuple(sprite.flatten().tolist()) in own for sprite in other._sprites)
        assert shared <= 0.01 * len(other._sprites)  # two scans may be alike
        assert other.spec.fingerprint != train.spec.fingerprint
    assert [len(other) for other in others] == [200, 500]


@pytest.mark.parametrize(
    ("words", "classes", "shape"),
    [
        (["data.labels=motion"], 8, (1, 8, 32, 32)),
        (["data.labels=none"], 0, (1, 8, 32, 32)),
        (["data.sprites=2", "data.size=24", "data.sprite=8", "data.frames=4"], 55, (1, 4, 24, 24)),
    ],
)
def test_labels_say_what_moves_or_how(words, classes, shape):
    dataset = opened(*words)
    batch = dataset(torch.arange(16), torch.rand(16, DRAWS, generator=torch.Generator().manual_seed(1)))
    assert len(dataset.spec.classes) == classes
    assert batch.content.shape == (16, *shape)
    assert dataset.spec.layout == "volume"
    if classes == 8:
        step = np.stack([np.diff(dataset.truth(row)["centres"][0], axis=0)[0] for row in range(16)])
        right = [dataset.spec.classes[row % 8].startswith("right") for row in range(16)]
        assert ((step[:, 0] > 0) == right).all()


def test_a_split_that_lacks_a_class_is_refused(tmp_path):
    for name, count in (("a", 30), ("b", 1)):
        (tmp_path / name).mkdir()
        for place in range(count):
            pixels = np.random.default_rng(100 * count + place).integers(0, 256, (12, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{place}.png")
    words = ["data.of=image_folder", f"data.root={tmp_path}"]
    with pytest.raises(DataError, match="has no val image of b"):
        opened(*words, split="val")
    assert len(opened(*words, "data.labels=none", split="val")) == 200


@pytest.mark.parametrize(
    ("word", "message"),
    [("data.of=nothing", "nothing"), ("data.of=tones", "not a dataset of images"), ("data.sprite=40", "needs room"),
     ("data.speed=[3,1]", "must rise")],
)  # fmt: skip
def test_what_cannot_move_is_refused(word, message):
    with pytest.raises(ConfigError, match=message):
        opened(word)
