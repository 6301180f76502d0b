"""Sound from end to end, on one tiny run: what ``aigc train``, ``sample`` and ``eval`` make of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from evaluations import told
from PIL import Image

from aigc_cli.cli import main
from aigc_cli.metrics.extractors import classifier, own_ssl

WORDS = [
    "model=vae", "data=tones", "data.seconds=0.25", "data.items=60", "model.conditional=true", "model.width=4",
    "model.hidden=16", "recipe=null", "trainer.batch_size=16", "trainer.steps=40", "optimizer.lr=0.01",
    "trainer.device=cpu", "trainer.sample_every=40", "trainer.examine_every=null",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *WORDS, "run_dir=run"]) == 0
    return folder


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.setattr(classifier, "_FEWEST", 1600)
    monkeypatch.setattr(classifier, "_PASSES", 1)
    monkeypatch.setattr(own_ssl, "_FEWEST", 128)
    monkeypatch.setattr(own_ssl, "_MOST", 128)
    return trained / "run"


def sampled(*words: str) -> dict[str, Any]:
    assert main(["sample", "run=run", "out=out", "overwrite=true", *words]) == 0
    record: dict[str, Any] = json.loads(Path("out", "samples.json").read_text())
    return record


def scores(results: list[dict[str, Any]]) -> dict[str, float]:
    """Without the extractor in brackets."""
    return {name.partition("[")[0]: value for result in results for name, value in result["figures"].items()}


def wave(name: str) -> np.ndarray:
    found, rate = soundfile.read(Path("out", name), dtype="int16", always_2d=True)
    assert rate == 8000
    return np.asarray(found)


def test_previews_are_sheets_and_what_is_heard(run: Path) -> None:
    names = {path.name for path in (run / "samples").iterdir()}
    kinds = ("", "-reconstructions")
    assert names == {f"step-40{kind}{suffix}" for kind in kinds for suffix in (".png", ".wav")}
    assert soundfile.info(run / "samples" / "step-40.wav").frames > 8000
    assert soundfile.SoundFile(run / "samples" / "step-40.wav").comment == '{"label": "AI-generated"}'


def test_each_sample_is_a_wav_that_says_where_it_is_from(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = sampled("n=4", "class=bell,kick")
    assert record["files"] == ["000000-bell.wav", "000001-kick.wav", "000002-bell.wav", "000003-kick.wav"]
    assert record["overview"] == ["spectrograms.png"]
    assert "s in all, at 8000 Hz" in capsys.readouterr().out
    info = soundfile.info(Path("out", "000001-kick.wav"))
    assert (info.subtype, info.format, info.channels) == ("PCM_16", "WAV", 1)
    with soundfile.SoundFile(Path("out", "000001-kick.wav")) as file:
        about = json.loads(file.comment)
    assert (about["label"], about["index"], about["class"], about["seed"]) == ("AI-generated", 1, "kick", 0)
    sheet = Image.open(Path("out", "spectrograms.png"))
    assert json.loads(sheet.text["aigc"])["indices"] == [0, 1, 2, 3]  # type: ignore[attr-defined]


def test_flac_and_one_array_hold_the_same_samples(run: Path) -> None:
    sampled("n=3")
    clips = [wave(f"{place:06d}-{name}.wav") for place, name in enumerate(("pluck", "bell", "reed"))]
    sampled("n=3", "format=flac")
    for place, (name, clip) in enumerate(zip(("pluck", "bell", "reed"), clips, strict=True)):
        assert np.array_equal(wave(f"{place:06d}-{name}.flac"), clip)
    sampled("n=3", "format=npz")
    with np.load(Path("out", "samples.npz")) as array:
        assert array["rate"] == 8000
        assert array["clips"].shape == (3, 1, 2048)
        for found, clip in zip(array["clips"], clips, strict=True):
            assert np.array_equal(found[:, : len(clip)].T, clip)


@pytest.mark.parametrize("mode", ["sample", "reconstruct", "interpolate", "traverse"])
def test_every_sample_is_the_same_in_whatever_batch_it_is_drawn(run: Path, mode: str) -> None:
    """But for rounding in the network, 1e-7, of which the search for a phase makes less than a thousandth."""
    found = []
    for size in (1, 3, 64):
        record = sampled(f"mode={mode}", "n=2" if mode != "sample" else "n=5", f"batch_size={size}")
        found.append([wave(name).astype(float) for name in record["files"]])
    assert np.std(np.concatenate(found[0])) > 10
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            end = min(len(one), len(other))
            assert abs(len(one) - len(other)) < 160
            assert np.std(one[:end] - other[:end]) < 0.01 * max(100, np.std(one))


def test_a_clip_of_a_persons_own_is_reconstructed_and_walked_from(run: Path) -> None:
    at = np.arange(11_025) / 44_100
    soundfile.write("a.flac", 0.1 * np.sin(2 * np.pi * np.stack([330 * at, 331 * at], axis=1)), 44_100)
    soundfile.write("b.wav", 0.3 * np.sin(2 * np.pi * 880 * at), 44_100)
    record = sampled("mode=reconstruct", "prompt=a.flac", "class=organ")
    assert record["files"] == ["000000-original.wav", "000000-reconstruction.wav"]
    original = wave("000000-original.wav")
    assert 0.09 < np.abs(original).max() / 32767 < 0.11  # as loud as it is: this data is not brought to one peak
    assert abs(len(original) - 2000) < 20
    record = sampled("mode=interpolate", "prompt=a.flac", "to=b.wav", "class=organ", "frames=3")
    assert len(record["files"]) == 3
    first = sampled("mode=reconstruct", "prompt=b.wav", "class=organ")["files"][1]
    last = wave(first)
    record = sampled("mode=interpolate", "prompt=a.flac", "to=b.wav", "class=organ", "frames=3")
    assert np.abs(wave(record["files"][-1]).astype(int)[: len(last)] - last).max() <= 2


def test_prompts_that_cannot_be_used_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.wav").write_text("hello")
    for words, wanted in (
        (["mode=reconstruct", "class=bell", "prompt=none.wav"], "there is no file none.wav"),
        (["mode=reconstruct", "class=bell", "prompt=text.wav"], "text.wav cannot be read as sound"),
        (["mode=reconstruct", "prompt=text.wav"], "class"),
        (["prompt=text.wav"], "mode=reconstruct"),
    ):
        assert main(["sample", "run=run", *words]) == 2
        assert wanted in capsys.readouterr().err


def test_with_no_words_it_is_measured_by_its_own_classifier(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {result["metric"]: result for result in told(capsys, "run=run", "n=40")["results"]}
    assert list(found) == ["fd", "prdc"]
    assert found["fd"]["extractor"]["name"] == "tones-cnn"
    assert found["fd"]["extractor"]["preprocessing"] == "log-mel spectrogram in [-1, 1], of each clip the upper 60 dB"
    assert found["fd"]["extractor"]["architecture"] == "cnn-v2.1"  # not what heard more than a person does


def test_all_metrics_of_features_take_sound(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "run=run", "n=60", "--metric", "kd,cs,class_accuracy,vendi,memorization,reconstruction")
    figures = scores(found["results"])
    assert {"kd", "cs", "class_accuracy", "vendi", "closer_pixels", "mel_l1", "lsd", "mcd"} <= set(figures)
    assert "si_sdr" not in figures  # whose phase is lost


def test_samples_on_disk_score_as_in_memory(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = scores(told(capsys, "run=run", "n=40", "--metric", "fd")["results"])
    for format in ("wav", "npz"):
        sampled("n=40", f"format={format}")
        read = scores(told(capsys, "run=run", "fake=out", "--metric", "fd")["results"])
        assert read == pytest.approx(drawn, rel=1e-6)


def test_files_alone_are_compared_by_what_learns_without_labels(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        np.savez(f"{name}.npz", clips=random.integers(-9000, 9000, (30, 4096), dtype=np.int16), rate=8000)
        Path(name).mkdir(exist_ok=True)
        for place in range(8):
            soundfile.write(f"{name}/{place}.wav", random.uniform(-0.5, 0.5, 4000 + place), 16_000)
    (found,) = told(capsys, "fake=one", "real=two", "--metric", "fd")["results"]
    assert found["extractor"]["name"] == "own-ssl"


def test_runs_and_statistics_are_compared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "stats", "run=run", "--metric", "fd", "out=s.npz"]) == 0
    assert scores(told(capsys, "run=run", "real=s.npz", "n=30", "--metric", "fd")["results"])["fd"] > 0
    assert main(["eval", "compare", "run=run,run", "--metric", "fd"]) == 2  # which names one run


def test_the_codec_alone_is_measured_without_a_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data=tones", "data.seconds=0.25", "data.items=60", "--metric", "reconstruction,class_accuracy"]
    found = scores(told(capsys, "run=null", *words, "n=50")["results"])
    assert 0 < found["mel_l1"] < 3
    assert 0.05 < found["class_accuracy"] <= 1
    words = [*words[:3], "data.codec.kind=waveform", "--metric", "reconstruction"]
    kept = scores(told(capsys, "run=null", *words, "n=20")["results"])
    assert kept["mel_l1"] == 0
    assert kept["si_sdr"] == pytest.approx(100)


def test_a_metric_of_pictures_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run=run", "--metric", "fid"]) == 2
    assert "extractor=inception looks at pictures, and these are clips" in capsys.readouterr().err
