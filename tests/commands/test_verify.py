import json
from html import escape
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from serve_runs import fresh_runs

from aigc_cli.cli import main
from aigc_cli.modalities.likeness import compared
from aigc_cli.runs import Run


def verified(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, tuple[str, str]]:
    capsys.readouterr()
    assert main(["verify", *words, "--json"]) == code
    return {Path(row["file"]).name: (row["verdict"], row["why"]) for row in json.loads(capsys.readouterr().out)}


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "npz"])
def test_samples_are_drawn_again_and_are_equal(tiny_run: Run, format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=3", f"format={format}", "step=3", "out=o"]) == 0
    found = verified(capsys, "o")
    assert {verdict for verdict, _ in found.values()} == {"proven"}
    assert len(found) == (2 if format == "npz" else 4)


def repainted(path: Path, change: int) -> None:
    """One pixel changed, and all that the file says kept."""
    with Image.open(path) as image:
        pixels, info = np.array(image), PngInfo()
        for key, value in image.text.items():  # type: ignore[attr-defined]
            info.add_itxt(key, value)
    pixels[2, 5] += change if pixels[2, 5] < 128 else -change
    Image.fromarray(pixels).save(path, pnginfo=info)


def test_a_changed_pixel_is_found(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=2", "seed=4", "out=o"]) == 0
    repainted(Path("o/000001.png"), 2)
    found = verified(capsys, "o", code=3)
    assert found["000000.png"][0] == "proven"
    verdict, why = found["000001.png"]
    assert verdict == "altered"
    assert "1 of 64 pixels differ, by up to 2; the first at (5, 2, 0)" in why


def test_what_is_off_by_rounding_is_not_called_equal(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=2", "seed=4", "out=o"]) == 0
    repainted(Path("o/000001.png"), 1)
    Path("o/000000.png").unlink()
    found = verified(capsys, "o")
    verdict, why = found["000001.png"]
    assert verdict == "proven"
    assert "1 of 64 pixels are off by up to 1, no more than rounding" in why
    assert found["000000.png"] == ("unknown", "samples.json beside it names it, and it is not there")


def test_a_label_that_names_other_data_is_not_proven(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=1", "format=npz", "out=o"]) == 0
    record = json.loads(Path("o/samples.json").read_text())
    Path("o/samples.json").write_text(json.dumps({**record, "data": "licensed"}))
    verdict, why = verified(capsys, "o", code=3)["samples.npz"]
    assert verdict == "altered"
    assert "its label is not true" in why
    Path("o/samples.json").write_text(json.dumps({**record, "n": "x"}))
    verified(capsys, "o")


def test_sound_that_is_played_faster_and_numbers_of_another_type_are_not_the_same(tmp_path: Path) -> None:
    for name, rate in (("a.wav", 8000), ("b.wav", 16000)):
        soundfile.write(tmp_path / name, np.zeros(80), rate)
    assert compared(tmp_path / "b.wav", tmp_path / "a.wav")[:2] == (
        False, "it is played at 16000 Hz, and what the run draws at 8000 Hz"
    )  # fmt: skip
    for name, images in (("a.npz", np.zeros(3, np.uint8)), ("b.npz", np.full(3, 0.9))):
        np.savez(tmp_path / name, images=images)
    assert not compared(tmp_path / "b.npz", tmp_path / "a.npz").same


def test_sound_whose_phases_were_found_in_another_batch_is_nearly_the_same(tmp_path: Path) -> None:
    sound = np.rint(8000 * np.sin(np.arange(4000) / 5))
    random = np.random.default_rng(0)
    for name, off, near in (
        ("little", random.normal(0, 40, 4000), True),  # by more than rounding, in many places
        ("much", random.normal(0, 400, 4000), False),
        ("once", 100 * (np.arange(4000) == 80), False),
    ):
        for file, content in (("made", sound), (name, sound + np.rint(off))):
            soundfile.write(tmp_path / f"{file}.wav", content.astype(np.int16), 8000)
        same, _, found = compared(tmp_path / f"{name}.wav", tmp_path / "made.wav")
        assert (same, found) == (False, near), name


def test_where_the_metadata_is_gone_the_record_beside_it_counts(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "n=2", "out=o"]) == 0
    with Image.open("o/000001.png") as image:
        stripped = Image.fromarray(np.array(image))
    stripped.save("o/000001.png")
    assert verified(capsys, "o/000001.png")["000001.png"][0] == "proven"
    stripped.save("alone.png")
    verdict, why = verified(capsys, "alone.png")["alone.png"]
    assert verdict == "unknown"
    assert "does not say that a person made it" in why


def test_a_visible_label_is_proven_with_the_sample(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=1", "label=true"]) == 0
    folder = next(tiny_run.path.glob("generated/*-label"))
    with Image.open(folder / "000000.png") as image:
        assert image.width > 60  # the words beside 8 pixels
    assert verified(capsys, str(folder))["000000.png"][0] == "proven"


def test_a_run_is_known_by_its_weights_and_not_by_its_name(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "n=1", "out=o"]) == 0
    tiny_run.path.rename(moved := tiny_run.path.with_name("renamed"))
    assert verified(capsys, "o/000000.png")["000000.png"][0] == "proven"
    moved.rename(tmp_path / "away")
    verdict, why = verified(capsys, "o/000000.png")["000000.png"]
    assert verdict == "claimed"
    assert "is not in outputs/" in why
    assert verified(capsys, "o/000000.png", "run=away")["000000.png"][0] == "proven"


def test_text_says_what_is_known(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=1", "out=o"]) == 0
    assert main(["verify", "o/000000.png"]) == 0
    out = capsys.readouterr().out
    assert "claims:   AI-generated by gan trained on digits" in out
    assert "labels:   DigitalSourceType, GB 45438, provenance" in out
    assert "proven:   drawn again from gan-digits/" in out


def test_what_lies_is_not_believed(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=1", "out=o"]) == 0
    lies = ['"step": "x"', '"controls": 3', '"format": "exe"', '"seed": -1', '"index": "a"']
    original = Path("o/000000.png").read_bytes()
    for lie in lies:
        key = lie.partition(":")[0].strip('"')
        packet = f'<x:xmpmeta aigc:Provenance="{{&quot;label&quot;: 1, {lie.replace(chr(34), "&quot;")}}}"></x:xmpmeta>'
        Path("o/lie.png").write_bytes(original.replace(b"<x:xmpmeta", packet.encode() + b"<x:xmpmeta", 1))
        assert verified(capsys, "o/lie.png")["lie.png"][0] in ("claimed", "unknown"), key


@pytest.mark.parametrize("words", [["nothing.png"], [], ["a", "colour=red"]])
def test_other_words_are_refused(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["verify", *words]) == 2


def marks(capsys: pytest.CaptureFixture[str], *words: str) -> list[tuple[str, bool]]:
    capsys.readouterr()
    assert main(["verify", *words, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    return [(row["verdict"], row["watermark"]["found"]) for row in rows if row["watermark"]]


def test_a_marked_text_is_drawn_again_with_its_key_alone_and_known_without_its_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fresh_runs(["text/writer", "text/filler"])
    for run, n in (("text/writer", 80), ("text/filler", 24)):  # of 21 letters there are few pairs, and most come again
        words = ["sample", f"run={run}", f"n={n}", "max_tokens=40", "watermark=a secret of mine", "overwrite=true"]
        assert main([*words, "out=a", "batch_size=80"]) == 0
        assert main([*words, "out=b", "batch_size=30"]) == 0
        assert Path("a/samples.jsonl").read_bytes() == Path("b/samples.jsonl").read_bytes()
        assert "a secret of mine" not in "".join(path.read_text() for path in Path("a").iterdir())
        assert marks(capsys, "a/samples.jsonl", "watermark=a secret of mine") == [("proven", True)]
        # What stands between texts, such as headings, has no mark.
        assert marks(capsys, "a/samples.txt", "watermark=a secret of mine")[0][0] == "proven"
        assert marks(capsys, "a", "watermark=a secret of yours") == [("claimed", False)] * 2
        if run == "text/writer":
            texts = [json.loads(line)["text"] for line in Path("a/samples.jsonl").read_text().splitlines()]
            Path("bare.txt").write_text("\n".join(texts))
            assert marks(capsys, "bare.txt", f"run={run}", "watermark=a secret of mine") == [("marked", True)]
    Path("odd.jsonl").write_text('{"text": 5}\n{"text": "the cat"}\n')
    assert marks(capsys, "odd.jsonl", f"run={run}", "watermark=a secret of mine") == [("unknown", False)]
    for word in ("temperature=0", "temperature=1e-9", "top_k=1", "min_p=1"):
        assert main(["sample", "run=text/writer", word, "watermark=a secret of mine"]) == 2


def test_marked_translations_are_drawn_again_where_each_stands_beside_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fresh_runs(["pairs/translator"])
    Path("p.txt").write_text("the cat\nsat on\n")
    words = ["run=pairs/translator", "prompt_file=p.txt", "n=8", "temperature=1", "watermark=a secret of mine"]
    assert main(["sample", *words, "out=o"]) == 0
    assert "a translation by itself is seldom found" in capsys.readouterr().err
    assert marks(capsys, "o/samples.jsonl", "watermark=a secret of mine") == [("proven", True)]


@pytest.mark.parametrize("way", ["held-out", "typed", "file"])
def test_translations_without_their_record_are_drawn_again_by_what_each_says_it_is_of(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    fresh_runs(["pairs/translator"])
    Path("p.txt").write_text("the cat\n\nsat on\n")
    prompts = {"held-out": ["n=3"], "typed": ["prompt=the cat", "n=3"], "file": ["prompt_file=p.txt", "n=2"]}[way]
    assert main(["sample", "run=pairs/translator", *prompts, "temperature=1", "seed=1", "out=o"]) == 0
    Path("o/samples.json").unlink(), Path("p.txt").unlink()
    verdict, why = verified(capsys, "o/samples.jsonl")["samples.jsonl"]
    assert verdict == "proven", why
    *rows, last = [json.loads(line) for line in Path("o/samples.jsonl").read_text().splitlines()]
    assert (len(rows), last["source"]) == (5, "sat on") if way == "file" else len(rows) == 2
    Path("o/samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {**last, "text": "~"}]))
    assert verified(capsys, "o/samples.jsonl", code=3)["samples.jsonl"][0] == "altered"


def test_a_broken_file_keeps_none_of_the_others_from_being_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("o").mkdir()
    Path("o/a.png").write_bytes(b"not a picture")
    Image.new("RGB", (64, 64), "gray").save("o/b.png")
    found = verified(capsys, "o", "watermark=a secret of mine")
    assert "a.png cannot be read" in found["a.png"][1]
    assert found["b.png"][0] == "unknown"


def test_a_label_cannot_write_a_verdict_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    claim = escape(json.dumps({"run": "a", "model": "x\n  proven:   it is ours\x1b[8m", "data": "\ud800"}))
    Path("a.txt").write_text(f'<x:xmpmeta aigc:Provenance="{claim}"></x:xmpmeta>')
    assert main(["verify", "a.txt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert not any(line.startswith("  proven") or "\x1b" in line for line in lines)
    assert verified(capsys, "a.txt")["a.txt"][0] == "claimed"


def test_a_mark_is_refused_where_it_does_not_hold(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "watermark=a secret of mine"]) == 2
    assert "in 8x8 pixels no mark outlasts JPEG" in capsys.readouterr().err
