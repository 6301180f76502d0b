"""Clips of video: their codec, files, sheets and the network that learns from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.arrays import find_writer
from aigc_cli.modalities.base import DataSpec, modality
from aigc_cli.modalities.samples import Arrangement, Provenance, write_record
from aigc_cli.modalities.video_decode import Film
from aigc_cli.modalities.video_network import retimed
from aigc_cli.modalities.video_writers import save_gif

SPEC = DataSpec("video", (1, 6, 16, 16), ("a", "b"), rate=10)
CODEC = modality("video").codec(SPEC)


def clips(n=3, shape=SPEC.shape, seed=0):
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def provenance(form):
    return Provenance(
        modality="video", format=form, run="r", model="vqvae", data="d", step=1, model_checksum="", seed=0, controls={}
    )


def written(folder, form, raw):
    _, kind = find_writer("video", form)
    arrangement = Arrangement(n=len(raw), facts={"class": ["a", "b", "a"][: len(raw)]}, turns=("a", "b"))
    with kind(folder, arrangement, provenance=provenance(form), codec=CODEC) as writer:  # as aigc sample makes it
        for part in raw.split(2):
            writer.write(part)
        files, overview = writer.finish()
    write_record(folder, provenance(form).record(arrangement, files, overview))
    assert all((folder / name).is_file() for name in (*files, *overview))
    return files, overview, writer


def test_clips_are_volumes_whose_codec_loses_nothing():
    assert SPEC.layout == "volume"
    raw = clips()
    encoded = CODEC.encode(raw)
    assert encoded.abs().max() <= 1
    assert torch.equal(CODEC.decode(encoded), raw)
    assert modality("video").glance(raw).shape == (3, 1, 4, 16, 16)


@pytest.mark.parametrize("form", ["gif", "webp", "npz"])
def test_grey_clips_come_back_as_they_were_from_files(form, tmp_path):
    raw = clips()
    files, overview, writer = written(tmp_path, form, raw)
    assert overview == ["frames.png", "clips.gif"]
    assert "0.6 s each, 6 frames of 16x16 at 10 a second" in writer.shown()
    if form == "gif":
        with pytest.raises(DataError, match="holds clips as gif, which is not what the model made"):
            modality("video").read(tmp_path, SPEC)
        found = [np.stack(list(Film(tmp_path / name).frames(10, 16, 1)), axis=1) for name in files]
        assert np.array_equal(np.stack(found), raw.numpy())
        return
    items = modality("video").read(tmp_path, SPEC)
    assert (items.spec.shape, items.spec.rate, len(items)) == (SPEC.shape, 10, 3)
    assert torch.equal(torch.cat([batch.content for batch in items.batches(2)]), raw)


@pytest.mark.parametrize(("form", "rate"), [("gif", 30), ("gif", 50), ("webp", 30), ("webp", 100)])
def test_clips_of_any_rate_play_at_it(form, rate, tmp_path):
    raw = clips(1, (1, 45, 8, 8))
    _, kind = find_writer("video", form)
    path = tmp_path / f"a.{form}"
    codec = modality("video").codec(replace(SPEC, shape=(1, 45, 8, 8), rate=rate))
    kind(tmp_path, Arrangement(n=1), provenance(form), codec).save(path, raw[0], {"label": "AI-generated"})
    film = Film(path)
    found = np.stack(list(film.frames(rate, 8, 1)), axis=1)
    assert film.seconds == pytest.approx(45 / rate, abs=6e-3)
    assert np.array_equal(found, raw[0].numpy())


@pytest.mark.parametrize("rate", [60, 90, 240])
def test_a_gif_of_more_frames_than_players_show_lasts_as_long(rate, tmp_path):
    frames = [Image.new("L", (8, 8), place) for place in range(120)]
    save_gif(tmp_path / "a.gif", frames, rate, {})
    with Image.open(tmp_path / "a.gif") as film:
        shown = []
        for place in range(film.n_frames):
            film.seek(place)
            shown.append((film.info["duration"], film.convert("L").getpixel((0, 0))))
    assert min(length for length, _ in shown) >= 20
    assert sum(length for length, _ in shown) == pytest.approx(1000 * 120 / rate, abs=10)
    starts = np.cumsum([0, *(length for length, _ in shown)])[:-1]
    assert np.abs(starts / 1000 - [value / rate for _, value in shown]).max() < 1 / rate + 1e-6


def test_a_frame_of_a_gif_that_is_hardly_seen_is_seen_for_as_long_as_players_show_it(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), 60 * k, np.uint8)) for k in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=10)
    film = Film(tmp_path / "a.gif")
    assert [int(frame[0, 0, 0]) for frame in film.frames(10, 8, 1)] == [0, 60, 120, 180]


@pytest.mark.parametrize("form", ["gif", "webp"])
def test_a_clip_that_does_not_move_is_as_long_as_others(form, tmp_path):
    raw = torch.full((1, *SPEC.shape), 90, dtype=torch.uint8)
    written(tmp_path, form, raw)
    film = Film(next(tmp_path.glob(f"000000*.{form}")))
    assert (np.stack(list(film.frames(10, 16, 1)), axis=1) == raw[0].numpy()).all()
    assert film.seconds == 0.6
    if form == "webp":
        with Image.open(film.source) as image:
            assert image.getexif()[0x10E]


@pytest.mark.parametrize("name", ["clip:1.mp4", "-x\n\U0001f642.mp4", b"b\xff.mp4".decode("utf-8", "surrogateescape")])
def test_a_file_of_any_name_is_read(name, tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)  # FFmpeg takes what stands before a colon for a protocol
    _, kind = find_writer("video", "mp4")
    kind(tmp_path, Arrangement(n=1), provenance("mp4"), CODEC).save(tmp_path / "a.mp4", clips(1)[0], {"label": "x"})
    (tmp_path / "a.mp4").rename(name)
    assert len(list(Film(Path(name)).frames(10, 16, 1))) == 6


@pytest.mark.parametrize("rate", [np.array([10, 10]), np.array(0), np.array(np.nan), np.array(29.97), np.array("x")])
def test_an_array_of_clips_with_an_odd_rate_is_refused(rate, tmp_path):
    np.savez(tmp_path / "a.npz", clips=np.zeros((2, 6, 16, 16, 1), np.uint8), rate=rate)
    with pytest.raises(DataError, match="how many frames a second"):
        modality("video").read(tmp_path / "a.npz", SPEC)


def test_every_file_says_what_made_it(tmp_path):
    raw = clips(2, (3, 6, 16, 16))
    for form in ("gif", "webp"):
        (tmp_path / form).mkdir()
        files, *_ = written(tmp_path / form, form, raw)
        with Image.open(tmp_path / form / files[1]) as image:
            about = json.loads(image.info["comment"] if form == "gif" else image.getexif()[0x010E])
        assert (about["label"], about["index"], about["class"]) == ("AI-generated", 1, "b")
        assert about["description"].endswith("sample 1")


def test_mp4_plays_everywhere_and_says_what_made_it(tmp_path):
    av = pytest.importorskip("av")
    smooth = torch.linspace(0, 255, 15)[None, None, None, None].expand(2, 3, 6, 15, 15).to(torch.uint8)
    files, *_ = written(tmp_path, "mp4", smooth)
    with av.open(str(tmp_path / files[0])) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)
        assert json.loads(file.metadata["comment"])["label"] == "AI-generated"
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape == (16, 16, 3)  # an odd side is repeated by a pixel
    assert abs(frames[2][:15, :15].astype(int) - smooth[0, :, 2].permute(1, 2, 0).numpy()).max() < 24


def test_an_archive_among_films_of_ones_own_is_not_what_is_measured(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "mine").mkdir()
    written(tmp_path / "set", "npz", clips())
    assert len(modality("video").read(tmp_path / "set", SPEC)) == 3
    files, *_ = written(tmp_path / "mine", "webp", clips(2))
    (tmp_path / "mine" / files[0]).rename(tmp_path / "set" / "mine.webp")
    assert len(modality("video").read(tmp_path / "set", SPEC)) == 1


def test_a_preview_is_a_sheet_with_a_row_a_clip_and_a_film_beside_it(tmp_path):
    _, kind = find_writer("video")
    kind.preview(tmp_path / "step-1.png", iter([clips(4)]), Arrangement(n=4), CODEC, "step 1")
    with Image.open(tmp_path / "step-1.png") as sheet, Image.open(tmp_path / "step-1.gif") as film:
        assert sheet.width > 6 * 64
        assert sheet.height > 4 * 64
        assert film.n_frames == 6
        assert film.info["duration"] == 100


def test_a_prompt_that_is_shorter_repeats_its_last_frame(tmp_path, capsys):
    frames = [Image.fromarray(np.full((20, 30, 3), 60 * k, np.uint8)) for k in range(4)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
    content = modality("video").parse(str(tmp_path / "a.gif"), CODEC).content
    assert content.shape == (1, *SPEC.shape)
    assert content[0, 0, :, 0, 0].tolist() == [0, 60, 120, 180, 180, 180]
    assert "4 of 6 frames at 10 a second: its last one is repeated" in capsys.readouterr().err
    (tmp_path / "words.gif").write_text("GIF is not what this is")
    with pytest.raises(ConfigError, match="it is not a mp4, mov"):
        modality("video").parse(str(tmp_path / "words.gif"), CODEC)


def test_the_network_learns_classes_of_clips_as_they_are_and_what_was_done_to_time():
    torch.manual_seed(0)
    network = modality("video").network(SPEC)
    batch = CODEC.encode(clips(16))
    changed, times = retimed(batch)
    for clip, other, time in zip(batch, changed, times.tolist(), strict=True):
        expected = {0: clip, 2: clip.flip(1)}.get(time)
        assert expected is None or torch.equal(other, expected)
        assert time != 4 or torch.equal(other, other[:, :1].expand_as(other))
    assert 0 < (times == 0).sum() < 16
    loss = network.objective(batch, torch.arange(16) % 2)
    loss.backward()
    assert torch.isfinite(loss)
    assert network.augment(batch).shape == batch.shape
    found = network.eval()(batch)
    assert found["features"].shape == (16, 96)
    assert found["logits"].shape == (16, 2)
