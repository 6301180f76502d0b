"""Metrics of clips: what each sees of motion."""

from dataclasses import replace

import pytest
import torch

from aigc_cli.config.compose import compose
from aigc_cli.data.open import Splits, open_dataset
from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors import own_ssl
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.frames import _OfFrames
from aigc_cli.metrics.extractors.i3d import I3D, InceptionI3D
from aigc_cli.metrics.video import FramesConfig, Physics, bounds_of, centres, frames_read, path_errors


@pytest.fixture(scope="module")
def real():
    dataset = open_dataset(compose("data", ["data=moving_digits"])["data"], "train")
    return dataset(torch.arange(300)).content


def errors(paths, real):
    return path_errors(paths, bounds_of(centres(real))).mean()


def test_paths_of_real_clips_are_straight_and_damaged_ones_are_not(real):
    few = real[:40]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert errors(centres(few), real) < 0.05
    assert errors(centres(few.flip(2)), real) < 0.05  # time may go either way along a straight line
    assert errors(centres(few[:, :, order]), real) > 2
    assert errors(centres(few[:, :, :1].expand_as(few)), real) > 1  # nothing moves as slowly as that
    assert errors(centres(few[:, :, [0, 0, 1, 1, 2, 2, 3, 3]]), real) > 0.3
    noise = torch.randn(40, 8, 2, generator=torch.Generator().manual_seed(0))
    assert 0.8 < errors(centres(few) + noise, real) < 1.2  # in pixels
    assert errors(centres(torch.zeros_like(few)), real) > 20


def test_a_frame_is_read_where_it_shows_surely_what_most_of_its_clip_do():
    logits = torch.full((1, 4, 3), -9.0)
    logits[0, [0, 1], 2] = 9.0
    logits[0, 2, 1] = 9.0  # another class
    logits[0, 3] = 0.0  # unsure
    assert frames_read(logits).tolist() == [0.5]


def test_physics_adds_up_over_batches_and_follows_one_thing_alone(real):
    metric = Physics(FramesConfig(name="physics"))
    for part in real.split(100):
        metric.update("real", part)
    for part in real[:40].split(20):
        metric.update(
            "fake", torch.eye(3)[torch.zeros(20, 8, dtype=torch.int64)].flatten(1) * 9, part, torch.zeros_like(part)
        )
    found = metric.compute()
    assert found["path_error"] < 0.05
    assert found["digit_read"] == 1
    with pytest.raises(DataError, match="only clips of video move"):
        metric.update("real", torch.zeros(2, 1, 8, 8))
    metric.spec = type("Spec", (), {"classes": ("0+1",)})()
    with pytest.raises(DataError, match="follows one thing"):
        metric.compute()


def test_fvd_needs_weights_and_says_what_needs_none(tmp_path):
    dataset = open_dataset(compose("data", ["data=moving_digits", "data.frames=16"])["data"], "train")
    sources = Sources(splits=Splits("moving_digits", lambda split: dataset))
    with pytest.raises(DataError, match="weights of I3D are not here") as error:
        I3D(PlainConfig(name="i3d"), sources)
    assert "aigc eval --metric fd,frame_fd" in error.value.hint
    torch.save(InceptionI3D().state_dict(), tmp_path / "random.pt")
    found = I3D(PlainConfig(name="i3d"), replace(sources, weights=tmp_path / "random.pt"))(
        dataset(torch.arange(1)).content
    )
    assert found["features"].shape == (1, 400)
    assert torch.isfinite(found["features"]).all()


def test_what_is_learnt_without_labels_looks_at_clips(monkeypatch, tmp_path):
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path))
    monkeypatch.setattr(own_ssl, "_FEWEST", 64)
    monkeypatch.setattr(own_ssl, "_MOST", 64)
    words = ["data=moving_digits", "data.labels=none", "data.clips=32", "data.size=16", "data.sprite=8"]
    dataset = open_dataset(compose("data", [*words, "data.speed=[0.5,2]"])["data"], "train")
    sources = Sources(splits=Splits("moving_digits", lambda split: dataset))
    features = own_ssl.OwnSSL(PlainConfig(name="own-ssl"), sources)(dataset(torch.arange(4)).content)["features"]
    assert features.shape == (4, 96)
    assert torch.isfinite(features).all()


def test_features_of_frames_do_not_depend_on_their_order(real):
    network = _OfFrames(1, 32, 10).eval()
    clips = real[:6].float() / 127.5 - 1
    with torch.inference_mode():
        found, turned = network(clips), network(clips.flip(2))
    assert found["frames"].shape == (6, 80)
    assert torch.allclose(found["logits"], turned["logits"], atol=1e-5)
    chosen = (real[:6].double().sum(dim=(1, 2, 3, 4)).long() % 8).tolist()
    for place, frame in enumerate(chosen):
        with torch.inference_mode():
            alone = network.images(clips[place : place + 1, :, frame])["features"]
        assert torch.allclose(found["features"][place], alone[0], atol=1e-5)
