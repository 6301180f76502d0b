"""What `aigc data show` says of sound, and what `aigc data prepare` leaves out of a copy."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from trouble_sound import BROKEN, READ, sine, trouble

from aigc_cli.cli import main


@pytest.fixture
def folder(tmp_path):
    """Odd files in one class, and good ones in another, of which one is there twice and one is in both."""
    root = tmp_path / "sound"
    trouble(root / "odd")
    (root / "good").mkdir()
    for number in range(20):
        soundfile.write(root / "good" / f"{number:02d}.flac", sine(300 + 10 * number, 44100, 3.0), 44100)
    shutil.copy(root / "good" / "00.flac", root / "good" / "copy.flac")
    shutil.copy(root / "good" / "01.flac", root / "odd" / "torn.flac")
    return root


def shown(capsys, *words):
    assert main(["data", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_report_counts_all_that_is_odd(folder, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    told = shown(capsys, "show", "data=audio_folder", f"data.root={folder}", f"out={out}")
    assert out.read_bytes().startswith(b"\x89PNG")
    assert told["unreadable"] == len(BROKEN)
    assert told["readable"] == len(READ) + 22
    assert told["classes"] == {"good": 21, "odd": len(READ) + 1}
    assert told["rates"]["44100"] >= 22
    assert told["clipped"] == 1
    assert told["longer"] == 22
    assert told["duplicates"] == 2
    assert told["left_out"] == {".m4a": 1, ".txt": 1} or told["left_out"] == {".txt": 1}
    codes = {finding["code"]: finding for finding in told["findings"]}
    reasons = {"empty_file", "cut", "not_finite", "silent", "too_short", "no_sound", "broken"}
    assert reasons | {"clipped", "low_rate", "duplicates", "label_conflict", "left_out"} <= codes.keys()
    assert sum(codes[code]["count"] for code in reasons) == len(BROKEN)
    assert "data.max_bad=17" in codes["silent"]["hint"]
    assert "aigc data prepare" in told["next"]


def test_short_files_in_long_clips_are_named_with_the_length_that_fits(tmp_path, capsys):
    for number in range(20):
        soundfile.write(tmp_path / f"{number}.wav", sine(300 + 10 * number, 16000, 0.35), 16000)
    told = shown(capsys, "show", "data=audio_folder", f"data.root={tmp_path}", "preview=false")
    (padding,) = (finding for finding in told["findings"] if finding["code"] == "padding")
    assert "data.seconds=0.4" in padding["hint"]
    assert told["silence"] == pytest.approx(1 - 0.35 / 1.024, abs=0.01)


def test_a_copy_holds_each_usable_file_once_and_trains_without_a_word(folder, tmp_path, capsys):
    out = tmp_path / "clean"
    told = shown(capsys, "prepare", "data=audio_folder", f"data.root={folder}", f"out={out}")
    assert sum(told["items"].values()) == len(READ) + 19
    assert told["left_out"]["the same as another"] == 1
    assert told["left_out"]["the same in several classes"] == 2
    assert {path.parent.name for path in out.rglob("*.flac")} == {"good", "odd"}
    again = shown(capsys, "show", "data=audio_folder", f"data.root={out}", "preview=false")
    assert again["unreadable"] == 0
    assert again["items"] == told["items"]
    assert again["classes"] == {"good": 19, "odd": len(READ)}
    found = [path.read_bytes() for path in out.rglob("05.flac")]
    assert found == [(folder / "good" / "05.flac").read_bytes()], "files are as they were"


def test_no_label_or_name_leads_out_of_a_copy_or_takes_the_place_of_another(tmp_path, capsys):
    names = ["a/x.wav", "b/x.wav", "c/x-2.wav", "d/X.wav"]
    rows = ["file_name,label"]
    for number, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        soundfile.write(tmp_path / "in" / name, sine(300 + 50 * number, 8000), 8000)
        rows.append(f"{name},../../../out")
    (tmp_path / "in" / "metadata.csv").write_text("\n".join(rows))
    out = tmp_path / "one" / "two" / "copy"
    words = [f"data.root={tmp_path / 'in'}", "data.val_fraction=0", "data.test_fraction=0"]
    told = shown(capsys, "prepare", "data=audio_folder", *words, f"out={out}")
    assert told["items"] == {"train": 4}
    copied = list(tmp_path.joinpath("one").rglob("*.wav"))
    assert {path.parent.parent for path in copied} == {out / "train"}
    assert len({path.name.lower() for path in copied}) == 4


def test_a_report_shows_another_split_where_all_of_one_is_broken(tmp_path, capsys):
    for split in ("train", "test"):
        (tmp_path / "in" / split).mkdir(parents=True)
    (tmp_path / "in" / "train" / "a.wav").write_bytes(b"words")
    soundfile.write(tmp_path / "in" / "test" / "b.wav", sine(300, 8000), 8000)
    sheet = tmp_path / "sheet.png"
    told = shown(capsys, "show", "data=audio_folder", f"data.root={tmp_path / 'in'}", f"out={sheet}")
    assert (told["readable"], told["unreadable"]) == (1, 1)
    assert sheet.is_file()


def test_what_does_not_suit_sound_is_refused(folder, capsys):
    for words, named in ((["size=32"], "size=32"), (["dedup=near"], "dedup=near"), (["format=parquet"], "format=")):
        assert main(["data", "prepare", "data=audio_folder", f"data.root={folder}", "out=x", *words]) == 2
        assert named in capsys.readouterr().err
    assert main(["data", "prepare", "data=tones", "out=x"]) == 2
    assert "ready as it is" in capsys.readouterr().err


def test_made_sound_is_counted(capsys):
    told = shown(capsys, "show", "data=tones", "data.items=20", "preview=false")
    assert told["items"] == {"train": 20, "val": 200, "test": 400}
    assert not np.any([finding["code"] == "duplicates" for finding in told["findings"]])
