"""``aigc eval`` without a word, after a run on whatever a person may bring: it works offline, and every ``next:`` and
every hint can be followed to the end."""

# ruff: noqa: RUF001

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aigc_cli.cli import main
from aigc_cli.errors import DataError

COMMON = [
    "trainer.batch_size=8", "trainer.device=cpu", "trainer.threads=1", "trainer.samples=4", "trainer.steps=2",
    "trainer.examine_every=null", "trainer.sample_every=null",
]  # fmt: skip
GAN = ["model.network=mlp", "model.hidden=8", "model.latent=4"]
TINY = ["model.width=8", "model.layers=1", "model.heads=2"]
TEXT = ["data=text", "data.tokenizer.kind=char", "data.context=16", *TINY]
SCRIPTS = {
    "latin": "the cat sat on the mat, and a dog barked. ", "cyrillic": "кот сидел на ковре, а пёс лаял. ",
    "han": "猫坐在垫子上，狗在叫。", "kana": "ねこはマットにすわり、いぬがほえた。",
    "thai": "แมวนั่งบนเสื่อและสุนัขเห่า ", "devanagari": "बिल्ली चटाई पर बैठी और कुत्ता भौंका। ",
}  # fmt: skip
#: What is trained on what; ``{}`` is the folder with the data.
RUNS: dict[str, list[str]] = {
    "flat": ["model=gan", "data=image_folder", "data.root=flat", "data.size=8", *GAN, "trainer.validate_every=2"],
    "classes": ["model=vae", "data=image_folder", "data.root=classes", "data.size=8", "model.network=mlp"],
    "parquet": ["model=gan", "data=parquet", "data.root=p.parquet", "data.size=8", *GAN],
    "vqvae": ["model=vqvae", "data=image_folder", "data.root=flat", "data.size=8", "model.width=8"],
    "hvae": ["model=hvae", "data=image_folder", "data.root=flat", "data.size=8", "model.width=8"],
    **{name: ["model=transformer", *TEXT, f"data.root={name}.txt"] for name in SCRIPTS},
    "bert": ["model=bert", *TEXT, "data.root=latin.txt"],
    "vae_text": ["model=vae_text", *TEXT, "data.root=latin.txt", "model.decoder_layers=1", "model.latent=4"],
    "pairs": [
        "model=seq2seq", "data=pairs", "data.root=pairs.tsv", "data.source=en", "data.target=de",
        "data.tokenizer.kind=char", *TINY,
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the data."""
    folder, rng = tmp_path_factory.mktemp("unasked"), np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(48):
        image = Image.fromarray(rng.integers(0, 120, (8, 8, 3), dtype=np.uint8) + np.uint8(120 * (number % 2)))
        for path in (folder / "flat", folder / "classes" / "ab"[number % 2]):
            path.mkdir(parents=True, exist_ok=True)
            image.save(path / f"{number}.png")
        rows.append({"bytes": (folder / "flat" / f"{number}.png").read_bytes()})
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), folder / "p.parquet")
    for name, text in SCRIPTS.items():
        lines = [text * 3 + str(number) for number in range(60)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pairs = [f"the cat {number} sat\tdie Katze {number} sitzt" for number in range(60)]
    (folder / "pairs.tsv").write_text("\n".join(["en\tde", *pairs]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def offline(place: Path, small_classifier: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In that folder, with few items to learn from, and without a network or weights."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise DataError("no connection")

    monkeypatch.chdir(place)
    monkeypatch.setenv("TORCH_HOME", str(place / "torch"))
    monkeypatch.setattr("aigc_cli.metrics.extractors.pretrained.download", refuse)


def commands(told: str) -> Iterator[list[str]]:
    """What is to be typed next, and what hints put between backticks."""
    for line in re.findall(r"^(?:next|to continue): +(.*)$", told, re.MULTILINE):
        yield from (shlex.split(part)[1:] for part in re.split(r"    or    ", line))
    yield from (shlex.split(part)[1:] for part in re.findall(r"`(aigc [^`]*)`", told))


def followed(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """All commands that the one of `words` leads to, each of which works; they end, because none comes twice."""
    done: list[list[str]] = []
    left = [list(words)]
    while left:
        line = left.pop(0)
        if line in done:
            continue
        done.append(line)
        assert len(done) < 12, done
        capsys.readouterr()
        code = main(line)
        found = capsys.readouterr()
        assert code == 0 or (line == list(words) and "`aigc" in found.err), f"{line}\n{found.err}"
        left += commands(found.out + found.err)
    return done


@pytest.mark.parametrize("name", RUNS)
def test_what_a_run_says_to_type_next_works_and_ends(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = followed(capsys, "train", *RUNS[name], *COMMON, f"run_dir=outputs/{name}/run")
    assert [line for line in done if line[:1] == ["eval"]], done
    records = list(Path("outputs", name, "run", "eval").glob("*.json"))
    assert records
    labelled = "cnn" if name == "classes" else "own-ssl"
    fds = [path for path in records if path.name.startswith("fd-")]
    assert all(labelled in path.read_text() and '"floor": {' in path.read_text() for path in fds)
    assert bool(fds) == (Path("outputs", name, "run", "tokenizer.json").is_file() is False)


@pytest.mark.parametrize("metric", ["fid", "kid", "is", "lpips", "cs", "class_accuracy"])
def test_hints_where_weights_or_labels_are_missing_lead_to_a_score(
    metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "vqvae" if metric == "lpips" else "flat"
    assert main(["train", *RUNS[name], *COMMON, f"run_dir=outputs/{metric}/run"]) == 0
    assert len(followed(capsys, "eval", "--metric", metric, f"run=outputs/{metric}/run")) > 1


def test_statistics_of_pictures_without_labels_serve_their_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *RUNS["flat"], *COMMON, "run_dir=outputs/summed/run"]) == 0
    rows = Path("outputs/summed/run/metrics.jsonl").read_text()
    assert "fd[own-ssl]" in rows
    done = followed(capsys, "eval", "stats", "run=outputs/summed/run", "metric=fd", "out=s.npz")
    assert done[1] == ["eval", "real=s.npz", "run=outputs/summed/run", "--metric", "fd"]
    alone = ["eval", "stats", "real=flat", "metric=fd", "out=t.npz"]
    assert main(alone) == 2
    assert "name data= or run= to learn from" in capsys.readouterr().err
    assert len(followed(capsys, *alone, "run=outputs/summed/run")) > 1


def test_a_folder_that_was_moved_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("flat", "before")
    words = [word.replace("data.root=flat", "data.root=before") for word in RUNS["flat"]]
    assert main(["train", *words, *COMMON, "run_dir=outputs/moved/run"]) == 0
    Path("before").rename("after")
    capsys.readouterr()
    assert main(["eval", "run=outputs/moved/run"]) == 3
    assert "say with data.root= where it is" in capsys.readouterr().err
    assert main(["eval", "run=outputs/moved/run", "data.root=after"]) == 0
