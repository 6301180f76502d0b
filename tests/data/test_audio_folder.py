"""A person's own sound: what is read of a folder or zip, in which split, and how clips are cut out of it."""

import errno
import shutil

import numpy as np
import pytest
import soundfile
import torch
import trouble_sound
from trouble_sound import BROKEN, READ, sine

from aigc_cli.config.compose import compose
from aigc_cli.data.base import SPLITS
from aigc_cli.data.loader import Loader, batches_in_order
from aigc_cli.data.open import open_dataset
from aigc_cli.errors import ConfigError, DataError, ResourceError
from aigc_cli.modalities.audio import lengths
from aigc_cli.modalities.audio_decode import missing_packages


def opened(root, split="train", *words):
    words = ("data=audio_folder", f"data.root={root}", "data.sample_rate=8000", *words)
    return open_dataset(compose("train", words)["data"], split)


def whole(dataset):
    return torch.cat([batch.content for batch in batches_in_order(dataset, 16, "cpu")])


ALL = ("data.val_fraction=0", "data.test_fraction=0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty clips of two classes, each at a pitch of its own, and one of them twice."""
    root = tmp_path_factory.mktemp("sound")
    for number in range(60):
        path = root / ("high" if number % 2 else "low") / f"{number:02d}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, sine(200 + 30 * number, 8000, 0.2 + 0.01 * number), 8000)
    shutil.copy(root / "low" / "00.wav", root / "low" / "copy of 00.wav")
    return root


def test_labels_are_in_metadata_beside_the_sound_as_of_pictures(tmp_path):
    rows = ["filename,fold,target,category,rain"]
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", sine(300 + 90 * number, 8000, 0.3), 8000)
        rows.append(f"{number}.wav,1,{number % 2},{'dog' if number % 2 else 'crow'},{'wet' if number < 2 else 'dry'}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    assert opened(tmp_path, "train", *ALL).spec.classes == ("0", "1")
    data = opened(tmp_path, "train", *ALL, "data.label_column=category,rain")
    assert data.spec.classes == ("crow-dry", "crow-wet", "dog-dry", "dog-wet")
    assert dict(data.spec.attributes)["rain"] == ("dry", "wet", "dry", "wet")
    labels = [batch.labels.tolist() for batch in batches_in_order(data, 4, "cpu")]
    assert labels == [[1, 3, 0, 2]]


def test_every_odd_file_is_read_right_or_named(tmp_path):
    trouble_sound.trouble(tmp_path)
    data = opened(tmp_path, "train", *ALL, "data.sample_rate=16000", f"data.max_bad={len(BROKEN)}")
    named = dict(line.split(": ", 1) for line in data.problems())
    needs = ", 1 x .m4a (needs pip install 'aigc-cli[video]')" if missing_packages() else ""
    assert named.pop("passed over") == f"1 x .txt{needs}"
    assert named.keys() == BROKEN.keys()
    assert [name for name, reason in BROKEN.items() if reason not in named[name]] == []
    content = whole(data)[:, 0].double().numpy()
    heard = np.abs(np.fft.rfft(content[:, :8000] * np.hanning(8000)))
    found = dict(zip(sorted(READ), 2 * heard.argmax(axis=1), strict=True))
    assert {name: pitch for name, pitch in found.items() if pitch != READ[name]} == {}
    assert data.describe()[1].endswith("; clipped: 1")
    with pytest.raises(DataError, match=rf"{len(BROKEN)} of \d+ sound files cannot be read: .*; and {len(BROKEN) - 5}"):
        opened(tmp_path, "train", *ALL, "data.max_bad=3")


def test_splits_are_disjoint_and_a_new_file_moves_none(folder, tmp_path):
    first = {split: [clip.numpy().tobytes() for clip in whole(opened(folder, split))] for split in SPLITS}
    assert all(first.values())
    assert sum(map(len, first.values())) == 61
    sets = [set(clips) for clips in first.values()]
    assert not any(one & other for place, one in enumerate(sets) for other in sets[:place]), (
        "a copy stays with its twin"
    )
    grown = tmp_path / "grown"
    shutil.copytree(folder, grown)
    soundfile.write(grown / "low" / "new.wav", sine(3000, 8000), 8000)
    for split, clips in first.items():
        assert set(clips) <= {clip.numpy().tobytes() for clip in whole(opened(grown, split))}


def test_folders_are_classes_and_splits(folder, tmp_path):
    data = opened(folder, "train", *ALL)
    assert data.spec.classes == ("high", "low")
    labels = torch.cat([batch.labels for batch in batches_in_order(data, 16, "cpu")])
    assert labels.tolist() == [0] * 30 + [1] * 31
    assert opened(folder, "train", "data.labels=false").spec.classes == ()
    for split in ("train", "test"):
        shutil.copytree(folder, tmp_path / split)
    data = opened(tmp_path, "test")
    assert len(data) == 61
    assert data.spec.classes == ("high", "low")
    with pytest.raises(ConfigError, match=r"the val split of .* is empty"):
        opened(tmp_path, "val", "data.val_fraction=0")


def test_a_zip_holds_the_same_as_its_folder(folder, tmp_path):
    packed = shutil.make_archive(str(tmp_path / "sound"), "zip", folder.parent, folder.name)
    one, other = opened(folder), opened(packed)
    assert one.spec.classes == other.spec.classes
    assert {clip.numpy().tobytes() for clip in whole(opened(folder, "train", *ALL))} == {
        clip.numpy().tobytes() for clip in whole(opened(packed, "train", *ALL))
    }


@pytest.fixture
def long(tmp_path):
    """A file of five clips and a half, one of less than a clip, and one of just over one."""
    random = np.random.default_rng(0)
    for name, seconds in (("a", 5.5 * 1.024), ("b", 0.4), ("c", 1.3)):
        soundfile.write(tmp_path / f"{name}.wav", random.uniform(-0.5, 0.5, int(8000 * seconds)), 8000)
    return tmp_path


def test_long_files_are_consecutive_clips_and_short_ones_end_in_silence(long):
    data = opened(long, "train", *ALL)
    assert len(data) == 5 + 1 + 1
    content = whole(data)
    assert content.shape == (7, 1, 8192)
    assert lengths(content).tolist() == [8192] * 5 + [3200, 8192]
    file = data.gatherer("cpu").content[: 5 * 8192, 0]
    assert content[:5].flatten().equal(file)
    assert data.read(5)[0].equal(content[5])
    assert "shorter than 1.024 s, so that silence follows: 1; longer: 2, of which come 6 clips" in data.describe()[1]


def test_clips_start_at_random_in_training_and_all_of_a_file_is_heard(long):
    data = opened(long, "train", *ALL)
    gatherer, samples = data.gatherer("cpu"), data.gatherer("cpu").content[:, 0]
    starts = []
    for draw in (0.0, 0.25, 0.5, 0.75, 0.9999):
        for clip in gatherer(torch.arange(5), torch.full((5, 8), draw)).content[:, 0]:
            (start,) = (samples.unfold(0, 8, 1) == clip[:8]).all(1).nonzero()
            assert clip.equal(samples[start : start + 8192])
            starts.append(int(start))
    assert min(starts) == 0
    assert 5.5 * 8192 - 8192 - 5 <= max(starts) <= 5.5 * 8192 - 8192
    assert len(set(starts)) == 25
    loader = Loader(data, batch_size=4, seed=1, device="cpu")
    assert not loader.batch(0).content.equal(loader.batch(2).content)


def test_what_is_mapped_from_disk_is_what_is_held(long):
    sets = [opened(long, "train", *ALL, f"data.memory_gb={size}") for size in (4, 1e-9)]
    assert sets[0].spec.fingerprint == sets[1].spec.fingerprint
    one, other = (Loader(data, batch_size=3, seed=1, device="cpu") for data in sets)
    for k in (0, 1, 5, 3):
        assert one.batch(k).content.equal(other.batch(k).content)


def test_what_was_decoded_is_remembered(long, monkeypatch):
    first = whole(opened(long, "train", *ALL))
    monkeypatch.setattr("aigc_cli.data.sound_files.decode_sound", None)
    assert whole(opened(long, "train", *ALL)).equal(first)


def test_a_full_disk_is_not_taken_for_broken_files(long, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("aigc_cli.modalities.audio_decode._scaled", full)
        with pytest.raises(ResourceError, match="No space left") as error:
            opened(long, "train", *ALL)
    assert "TMPDIR" in error.value.hint
    assert len(opened(long, "train", *ALL)) == 7, "nothing is remembered of it"


def test_a_folder_without_sound_says_what_there_is(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=r"no sound files in .* 1 x .txt"):
        opened(tmp_path)


def test_a_codec_of_other_clips_is_refused(long, tmp_path):
    path = tmp_path / "codec.json"
    path.write_text(opened(long, "train", *ALL).codec.files()["codec.json"])
    assert opened(long, "train", *ALL, f"data.codec.path={path}").spec.shape == (1, 64, 64)
    with pytest.raises(ConfigError, match="16,384"):
        opened(long, "train", *ALL, f"data.codec.path={path}", "data.seconds=2")
