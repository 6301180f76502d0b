"""A person's own videos: each file is read, or named with the reason."""

import shutil

import numpy as np
import pytest
import torch

from aigc_cli.config.compose import compose
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import open_dataset
from aigc_cli.data.report import look_at, report_on
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.modalities.video_decode import Film

pytest.importorskip("av")
from trouble_video import BROKEN, CUT, READ, videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("films")
    videos(root)
    return root


def values(root, *words):
    own = ["data=video_folder", f"data.root={root}", "data.frames=8", "data.size=16"]
    none = ["data.val_fraction=0", "data.test_fraction=0"]
    return compose("data", [*own, *none, *words])["data"]


def test_fourteen_files_of_seven_formats_are_read_or_named(folder):
    dataset = open_dataset(values(folder), "train")
    assert len(READ) + len(BROKEN) == 14
    said = dataset.problems()
    for name, reason in BROKEN.items():
        assert any(line.startswith(f"{name}: {reason}") for line in said), name
    assert any(line.startswith(CUT) and line.endswith("what is there is used") for line in said)
    assert len(said) == len(BROKEN) + 1
    assert len(dataset) == len(READ)
    assert dataset.spec.shape == (3, 8, 16, 16)
    assert dataset.spec.rate == 10
    assert "10 videos" in dataset.describe()[1]


@pytest.mark.parametrize("name", READ)
def test_frames_are_those_that_are_to_be_seen_at_each_time(folder, name):
    film = Film(folder / name)
    frames = list(film.frames(10, 16, 3))
    seen = np.array([float(frame[0, 10, 8]) for frame in frames])
    wanted = 30 + 10.0 * np.arange(len(frames))
    if name == "variable.mkv":  # the last frame before each time stays
        times = np.array([0, 0.04, 0.08, 0.3, 0.5, 0.54, 0.58, 0.8, 1.0, 1.1, 1.16])
        wanted = np.array([30 + 100 * times[times <= k / 10 + 1e-6].max() for k in range(len(frames))])
    assert np.abs(seen - wanted).max() < 6  # 24 frames a second are up to 0.04 s late, and codecs lose a little
    corner = frames[0][0, 1]
    assert (corner[14] > 200) == (name == "turned.mp4")
    assert (corner[1] > 200) == (name != "turned.mp4")
    assert len(frames) in ((12, 13) if name != "cut.avi" else range(8, 20))
    assert bool(film.cut) == (name == "cut.avi")


def written(path, codec, pixels, frames, *, wide=1, sound=0):
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        stream.codec_context.sample_aspect_ratio = wide
        voice = file.add_stream("aac", rate=16000, layout="mono") if sound else None
        form = "rgba" if frames[0].shape[2] == 4 else "rgb24"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=form)))
        file.mux(stream.encode())
        for part in range(sound * 16000 // 1024):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, 1024 * part
            file.mux(voice.encode(silence))
    return path


def test_pixels_are_made_square_and_what_is_transparent_is_laid_on_white(tmp_path):
    striped = np.zeros((48, 48, 3), np.uint8)
    striped[:, :12] = striped[:, 36:] = 255  # beyond the middle square, once pixels are twice as wide as high
    first = next(Film(written(tmp_path / "wide.mp4", "libx264", "yuv420p", [striped] * 3, wide=2)).frames(10, 16, 1))
    assert first[0, 8, 1:15].max() < 50
    clear = np.zeros((32, 32, 4), np.uint8)
    clear[:16] = 200, 0, 0, 255
    first = next(Film(written(tmp_path / "clear.mkv", "ffv1", "bgra", [clear] * 3)).frames(10, 32, 3))
    assert first[:, [4, 28], 4].T.tolist() == [[200, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(("name", "codec", "sound"), [
    ("a.webm", "libvpx", 0), ("a.mkv", "libx264", 6), ("a.avi", "mpeg4", 0),
])  # fmt: skip
def test_a_file_that_lacks_a_few_of_its_last_frames_is_named_as_cut(tmp_path, name, codec, sound):
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 32, 3), np.uint8)
    path = written(tmp_path / name, codec, "yuv420p", [*noise], sound=sound)
    whole, part = Film(path), Film(path.read_bytes()[: round(0.91 * path.stat().st_size)])
    assert (len(list(whole.frames(10, 16, 1))), whole.cut) == (40, "")
    assert 35 <= len(list(part.frames(10, 16, 1))) < 39
    assert part.cut.startswith("it is cut: 3.")


def test_a_file_without_its_whole_index_or_any_frame_is_broken(tmp_path):
    noise = [*np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)]
    film = written(tmp_path / "a.mp4", "libx264", "yuv420p", noise).read_bytes()
    parts = [film[:end] for end in range(film.index(b"moov"), film.index(b"stsd"), 9)]
    film = written(tmp_path / "a.webm", "libvpx", "yuv420p", noise).read_bytes()
    start = film.index(b"\x1f\x43\xb6\x75")  # a cluster
    for part in (*parts, film[: start + 4], film[: start + 60]):
        with pytest.raises(Unreadable, match=r"it is broken, or cut|it is cut: 0 of|it holds no "):
            list(Film(part).frames(10, 16, 1))


def test_sound_that_is_longer_than_the_pictures_does_not_make_a_file_cut(tmp_path):
    film = Film(written(tmp_path / "a.mp4", "libx264", "yuv420p", [np.zeros((16, 16, 3), np.uint8)] * 20, sound=4))
    assert len(list(film.frames(10, 16, 1))) == 20
    assert film.sound
    assert not film.cut


def test_too_many_that_cannot_be_read_are_an_error_that_names_them(folder):
    with pytest.raises(DataError, match=r"4 of 14 videos cannot be read: .*words.mp4: it is not a mp4"):
        open_dataset(values(folder, "data.max_bad=3"), "train")
    with pytest.raises(DataError, match=r"none of 14 videos can be read"):
        open_dataset(values(folder, "data.frames=64", "data.max_bad=99"), "train")
    with pytest.raises(ConfigError, match=r"data\.root="):
        open_dataset({**values(folder), "root": None}, "train")


def test_training_starts_anywhere_and_evaluation_with_the_first_clip(tmp_path, folder):
    for split, names in (("train", ["a.mp4", "e.avi"]), ("test", ["d.mkv"])):
        for name in names:
            (tmp_path / split / name[0]).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, tmp_path / split / name[0] / name)
    shutil.move(tmp_path / "test" / "d", tmp_path / "test" / "a")
    words = ["data.frames=3", "data.stride=2", "data.fps=20", "data.memory_gb=0.000001", "data.channels=1"]
    train, test = (open_dataset(values(tmp_path, *words), split) for split in ("train", "test"))
    assert (train.spec.classes, len(train), len(test)) == (("a", "e"), 8, 1)  # 24 frames are four clips of 5
    gatherer = train.gatherer("cpu")
    assert not gatherer.held  # mapped, not in memory
    plain = gatherer(torch.arange(8)).content[:, 0, :, 10, 8].float()
    assert (plain.diff(dim=1) - 10).abs().max() < 7  # every second of 20 frames a second is a tenth later
    drawn = torch.cat([gatherer(torch.arange(8), torch.full((8, 8), share)).content for share in (0.0, 0.99)])
    assert len(drawn[:, 0, 0, 10, 8].unique()) > 8
    assert int(test.read(0)[0][0, 0, 10, 8]) == 30
    batch = Loader(train, batch_size=4, seed=0, device="cpu").batch(0)
    assert torch.equal(batch.content, Loader(train, batch_size=4, seed=0, device="cpu").batch(0).content)


def test_a_report_says_what_there_is_and_draws_a_sheet(folder, tmp_path):
    report = report_on(look_at(values(folder)))
    told = "\n".join(f"{title}: {text}" for title, text in report.lines)
    assert "videos: 14: 14 train" in told
    assert "clips: 10 of 0.8 s" in told
    assert {"broken", "too_short", "cut"} <= {finding.code for finding in report.findings}
    report.preview(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000
