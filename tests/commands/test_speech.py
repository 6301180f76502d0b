"""Text to speech from end to end, on one tiny run: a corpus, a model, a wav, and what is understood of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from aigc_cli.cli import main
from aigc_cli.metrics.extractors import classifier, recognizer
from aigc_cli.runs import Run

DATA = ["data=fsdd", "data.root=digits", "data.seconds=0.3", "data.val_fraction=0.1", "data.codes=16"]
WORDS = [
    "model=seq2seq", *DATA, "data.words=1..2", "model.layers=1", "model.width=16", "model.heads=2",
    "trainer.batch_size=8", "trainer.steps=6", "trainer.checkpoint_every=3", "trainer.samples=2", "trainer.device=cpu",
]  # fmt: skip


def recordings(folder: Path) -> None:
    """Eight recordings of each digit by two speakers: two tones whose pitch says which digit it is, and who speaks."""
    folder.mkdir()
    for digit in range(10):
        for place, speaker in enumerate(("george", "theo")):
            for number in range(8):
                at = np.arange(1200 + 80 * number) / 8000 * 2 * np.pi
                wave = np.sin(at * (300 + 150 * digit)) + np.sin(at * (3000 + 500 * place))
                soundfile.write(folder / f"{digit}_{speaker}_{number}.wav", 0.2 * wave, 8000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    recordings(folder / "digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *WORDS, "run_dir=run"]) == 0
    return folder


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    monkeypatch.setattr(recognizer, "_STEPS", 20)
    monkeypatch.setattr(classifier, "_FEWEST", 1280)
    monkeypatch.setattr(classifier, "_PASSES", 1)
    return trained / "run"


def test_a_run_keeps_what_it_says_with(run: Path) -> None:
    assert {"tokens.json", "tokenizer.json", "tokenizer"} <= {path.name for path in run.iterdir()}
    spec = Run(run).spec
    assert spec.source is not None
    assert dict(spec.attributes)["speaker"][:2] == ("george", "jackson")
    assert {path.suffix for path in (run / "samples").iterdir()} == {".png", ".wav"}


def test_codes_of_two_levels_are_filled_in_and_the_end_says_what_to_type(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in WORDS[1:] if not word.startswith(("data.words", "trainer.steps", "trainer.samples"))]
    residual = ["data.tokens=kmeans", "data.residual=2", "trainer.steps=1", "trainer.sample_every=null"]
    assert main(["train", "model=bert", *words, *residual, "run_dir=masked"]) == 0
    assert "aigc sample mode=infill    or    aigc sample class=zero" in capsys.readouterr().out


def sampled(*words: str) -> dict[str, Any]:
    assert main(["sample", "run=run", "out=out", "overwrite=true", *words]) == 0
    record: dict[str, Any] = json.loads(Path("out", "samples.json").read_text())
    return record


def test_a_text_is_said_by_whom_one_asks(run: Path) -> None:
    record = sampled("prompt=Seven  three", "speaker=theo", "n=3")
    assert record["samples"] == {"speaker": ["theo"] * 3, "says": ["Seven  three"] * 3}
    assert record["files"][0] == "000000-theo-Seven_three.wav"
    found, rate = soundfile.read(Path("out", record["files"][0]))
    assert rate == 8000
    assert len(found) <= 4096
    Path("lines.txt").write_text("one\ntwo two\n")
    samples = sampled("prompt_file=lines.txt", "speaker=theo,george")["samples"]
    assert samples == {"speaker": ["theo", "george"], "says": ["one", "two two"]}, "in the order that one asks"
    assert main(["sample", "run=run", "prompt=  ", "out=blank"]) == 2
    assert len(sampled("n=4")["files"]) == 4, "what held-out clips say, in their voices"


def test_a_sample_does_not_depend_on_the_batch(run: Path) -> None:
    waves = []
    for size in ("1", "3"):
        record = sampled("prompt=two one", "speaker=theo", "n=5", f"batch_size={size}", "temperature=1")
        waves.append([soundfile.read(Path("out", name), dtype="int16")[0].tobytes() for name in record["files"]])
    assert waves[0] == waves[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompt=7"], "no '7'"),
        (["prompt=seven", "speaker=teo"], "did you mean theo?"),
        (["prompt=seven", "speaker=lucas"], "choose from: george, theo"),
        (["prompt=one two three"], "and this model reads"),
    ],
)
def test_what_cannot_be_said_is_refused(run: Path, words: list[str], said: str, capsys: Any) -> None:
    assert main(["sample", "run=run", "out=out", "overwrite=true", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_is_understood_is_measured_beside_what_should_be(run: Path, capsys: Any) -> None:
    assert main(["eval", "run=run", "n=20", "--json"]) == 0
    found = {result["metric"]: result for result in json.loads(capsys.readouterr().out)["results"]}
    assert set(found["word_accuracy"]["figures"]) == {"word_accuracy", "all_words_right"}
    assert list(found["word_accuracy"]["beside"]) == [
        "held-out", "held-out through the tokenizer", "held-out, noise at 0 dB", "held-out, reversed",
    ]  # fmt: skip
    assert main(["eval", "run=run", "--metric", "class_accuracy,likelihood", "n=20", "--json"]) == 0
    assert main(["eval", "run=run", "--metric", "distinct"]) == 2


def test_a_run_resumes_bit_for_bit(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    whole = (copy / "checkpoints" / "step-6" / "model.safetensors").read_bytes()
    shutil.rmtree(copy / "checkpoints" / "step-6")
    (copy / "status.json").unlink()
    assert main(["train", "--resume", str(copy)]) == 0
    assert (copy / "checkpoints" / "step-6" / "model.safetensors").read_bytes() == whole
