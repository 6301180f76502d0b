"""Samples of every family, in each of its modes, are drawn again alone and are equal; what was changed is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from exported_families import words_of
from PIL import Image, ImageSequence
from untrained import untrained

from aigc_cli.cli import main
from aigc_cli.models.base import Model
from aigc_cli.registry import find
from aigc_cli.sampling.modes import modes_of

#: One of each family and kind of content; what else is exported has the code of one of these.
FAMILIES = (
    "gan (mlp)", "gan on clips", "gan on text", "wavegan", "specgan", "vae", "vae on clips", "vae on text", "hvae",
    "vqvae", "vqvae on clips", "vqvae on sound", "flow", "flow (dit)", "flow on latents", "transformer",
    "transformer on codes", "transformer on 2 codebooks", "transformer on sound", "bert", "bert on codes", "seq2seq",
    "seq2seq on speech",
)  # fmt: skip
FEW = ["data.items=44"]  # of data that is computed
FAST = ["steps=2", "resample=1"]  # of paths that are followed


def changed(path: Path) -> None:
    """One pixel, one sample or one character of a file is another."""
    if path.suffix == ".wav":
        sound, rate = soundfile.read(path, dtype="int16", always_2d=True)
        sound[7, 0] += 50 if sound[7, 0] < 0 else -50
        soundfile.write(path, sound, rate)
    elif path.suffix in (".png", ".gif"):
        with Image.open(path) as image:
            frames, how = [np.array(frame) for frame in ImageSequence.Iterator(image)], dict(image.info)
        frames[-1][3, 5] = 255 - frames[-1][3, 5]
        first, *others = map(Image.fromarray, frames)
        first.save(path, **({"save_all": True, "append_images": others, "duration": how["duration"]} if others else {}))
    else:
        *rows, last = [json.loads(line) for line in path.read_text().splitlines()]
        last["text"] = f"{last['text'][:-1]}~"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in (*rows, last)))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_draws_is_proven_alone_and_a_change_is_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(name, tmp_path)
    run = untrained([*words, *(FEW if "data=tones" in words else [])], "outputs/run")
    model: type[Model] = find("model", run.config["model"]["name"]).build

    def verdicts(path: Path, code: int = 0) -> list[tuple[str, str]]:
        capsys.readouterr()
        assert main(["verify", str(path), "--json"]) == code
        return [(row["verdict"], row["why"]) for row in json.loads(capsys.readouterr().out)]

    for mode in modes_of(model):
        if mode == "traverse":  # is decoded as walks between latents are
            continue
        words = FAST if "flow" in name else []
        words = [*words, *(["frames=2"] if mode == "interpolate" else [])]
        words += [f"mode={mode}"] if len(modes_of(model)) > 1 else []
        words += ["prompt=the red ___"] if mode == "infill" and "transformer" in str(model.layouts) else []
        assert main(["sample", "run=outputs/run", "n=3", "seed=5", "batch_size=2", f"out={mode}", *words]) == 0
        folder = tmp_path / mode
        originals = [path for path in folder.iterdir() if "-original" in path.name]
        found = verdicts(folder)
        assert sum(verdict == "proven" and "equal" in why for verdict, why in found) == len(found) - len(originals)
        if mode != modes_of(model)[0]:
            continue
        made = [path for path in sorted(folder.iterdir()) if path.name[0] == "0" and path not in originals]
        last = (made or [folder / "samples.jsonl"])[-1]
        shutil.copy(last, alone := tmp_path / f"alone{last.suffix}")  # no record beside it says of how many
        [(verdict, why)] = verdicts(alone)
        assert verdict == "proven" or "nearly the same" in why or name == "seq2seq"
        changed(last)
        assert [verdict for verdict, _ in verdicts(last, 3)] == ["altered"]


@pytest.mark.parametrize(("name", "verdict"), [("wavegan", "altered"), ("specgan", "claimed")])
def test_a_faint_change_all_over_is_found_where_no_phases_could_explain_it(
    name: str, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(name, tmp_path)
    untrained([*words, *(FEW if "data=tones" in words else [])], "outputs/run")
    assert main(["sample", "run=outputs/run", "n=1", "out=drawn"]) == 0
    [path] = Path("drawn").glob("0*.wav")
    sound, rate = soundfile.read(path, dtype="int16", always_2d=True)
    off = int(0.009 * np.sqrt(np.mean(sound.astype(float) ** 2)))
    assert off > 16  # more than rounding
    soundfile.write(path, sound - off * np.sign(sound), rate)
    capsys.readouterr()
    main(["verify", str(path), "--json"])
    [found] = json.loads(capsys.readouterr().out)
    assert (found["verdict"], "nearly the same" in found["why"]) == (verdict, verdict == "claimed")
