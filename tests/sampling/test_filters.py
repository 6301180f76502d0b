import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from serve_runs import fresh_runs, serving
from torch import Tensor

from aigc_cli.cli import main
from aigc_cli.data.open import Splits, items_at
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.gate import hold_copies
from aigc_cli.modalities.base import DataSpec
from aigc_cli.registry import register
from aigc_cli.runs import Run
from aigc_cli.sampling.filters import Filter, Filters, WordList, folded

TEXT = DataSpec("text", (8,), vocab_size=9)


@pytest.fixture
def words(tmp_path: Path) -> WordList:
    (tmp_path / "words.txt").write_text("sin\nStraße\nhot dog\n禁止\nनम\n", encoding="utf-8")
    return WordList(str(tmp_path / "words.txt"), TEXT)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a sin.", True), ("a single cat", False), ("SIN", True), ("s\u200bin", True), ("\uff53\uff49\uff4e", True),
        ("sin2", False),
        ("die STRASSE", True), ("a hot\ndog", True), ("hot dogs", False),
        ("这是禁止的", True), ("禁 止", False),
        ("नम", True), ("नमी", False), ("", False),
    ],
)  # fmt: skip
def test_a_word_is_found_as_people_read_it(words: WordList, text: str, found: bool) -> None:
    assert words.drops(torch.zeros(1), [text]) == [found]


def test_folding_twice_is_folding_once() -> None:
    assert folded(folded("ẞ\u00adTRAẞE  Ⅷ")) == folded("ẞ\u00adTRAẞE  Ⅷ") == "sstrasse viii"


@register("filter", "bright")
class Bright(Filter):
    """A classifier of pictures."""

    def __init__(self, argument: str, spec: DataSpec) -> None:
        self.most = float(argument)
        self.facts = {"most": self.most}

    def drops(self, content: Tensor, texts: list[str] | None) -> list[bool]:
        return [float(item.float().mean()) > self.most for item in content]


def test_what_a_classifier_drops_is_drawn_anew_and_proven(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "n=8", "out=all", "--json"]) == 0
    content = torch.stack([torch.from_numpy(pixels) for pixels in _pictures("all", 8)])
    most = float(content.float().mean((1, 2)).median())
    for out, size in (("a", 8), ("b", 3)):
        words = ["sample", "n=8", f"filter=bright:{most}", f"out={out}", f"batch_size={size}"]
        assert main(words) == 0
        assert "dropped" in capsys.readouterr().out
    assert all(Path(f"a/00000{i}.png").read_bytes() == Path(f"b/00000{i}.png").read_bytes() for i in range(8))
    record = json.loads(Path("a/samples.json").read_text())
    anew = [seed != 0 for seed in record["samples"]["seed"]]
    assert 0 < sum(anew) < 8
    assert record["dropped"]["bright"] >= sum(anew)
    assert record["filters"] == {"bright": {"most": most}}
    assert main(["verify", "a", "--json"]) == 0
    verdicts = Counter(row["verdict"] for row in json.loads(capsys.readouterr().out))
    assert verdicts == {"proven": 8, "claimed": 1}  # the grid shows what the filter chose
    assert main(["sample", "n=8", f"filter=bright:{most}", "filtered=omit", "out=c"]) == 0
    assert len(list(Path("c").glob("0*.png"))) == 8 - sum(anew)
    assert main(["verify", "c", "--json"]) == 0
    assert main(["sample", "n=8", "filter=bright:-1", "out=d"]) == 2
    assert main(["sample", "n=8", "filter=words:a.txt", "out=d"]) == 2


def _pictures(folder: str, n: int) -> list[object]:
    import numpy as np
    from PIL import Image

    return [np.array(Image.open(f"{folder}/{index:06d}.png")) for index in range(n)]


def test_a_set_with_copies_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (run,) = fresh_runs(["digits/vae"])
    assert main(["sample", "run=digits/vae", "n=4", "memorization.max=0.5", "out=a"]) == 0
    splits = Splits.of_run(run.run)
    copies = items_at(splits["train"], range(3)).content
    with pytest.raises(DataError, match=r"100\.0% of the 3 samples are copies"):
        hold_copies(copies, splits, 0.5)
    monkeypatch.setattr("aigc_cli.metrics.gate.hold_copies", lambda *_: hold_copies(copies, splits, 0.5))
    assert main(["sample", "run=digits/vae", "n=3", "memorization.max=0.5", "out=b"]) == 3
    assert not Path("b").exists()


def test_texts_with_a_word_do_not_leave_a_server_nor_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    httpx = pytest.importorskip("httpx")
    monkeypatch.chdir(tmp_path)
    runs = fresh_runs(["text/writer"])
    Path("words.txt").write_text("\n".join("abcde"))
    words = ["sample", "run=text/writer", "n=20", "max_tokens=8", "filter=words:words.txt"]
    for then, n in (("redraw", 20), ("omit", None)):
        assert main([*words, f"filtered={then}", f"out={then}"]) == 0
        lines = [json.loads(line) for line in Path(f"{then}/samples.jsonl").read_text().splitlines()]
        assert n in (None, len(lines))
        sieve = WordList("words.txt", TEXT)
        assert not any(sieve.drops(torch.zeros(len(lines)), [line["text"] for line in lines]))
    with serving(runs) as (url, house):
        served = house.runs["text/writer"]
        served.filters = Filters.of("words:words.txt", "redraw", served.loaded.spec)
        asked = {"n": 12, "seed": 1, "max_tokens": 8}
        told = httpx.post(f"{url}/v1/completions", json=asked).json()
        texts = [choice["text"] for choice in told["choices"]]
        assert len(texts) == 12
        assert not any(sieve.drops(torch.zeros(12), texts))
        assert told["aigc"]["filters"]["words"]["words"] == 5


def test_of_two_lists_both_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one")
    Path("b.txt").write_text("two")
    filters = Filters.of("words:a.txt,words:b.txt", "omit", TEXT)
    dropped = [each.drops(torch.zeros(3), ["one", "two", "three"]) for each in filters.named.values()]
    assert dropped == [[True, False, False], [False, True, False]]
    assert len(filters.facts) == 2


def test_a_list_that_is_missing_is_refused(tmp_path: Path) -> None:
    for argument in ("", str(tmp_path / "none.txt")):
        with pytest.raises(ConfigError, match="there is no such file"):
            WordList(argument, TEXT)


def test_copies_are_sought_before_samples_get_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fresh_runs(["tones/vae"])
    seen: list[Tensor] = []
    monkeypatch.setattr("aigc_cli.metrics.gate.hold_copies", lambda found, *_: seen.append(found) or 0.0)
    words = ["sample", "run=tones/vae", "n=3", "memorization.max=0"]
    assert main([*words, "out=a"]) == 0
    assert main([*words, "out=b", "watermark=a secret of mine", "batch_size=2"]) == 0
    assert len(seen[0]) == 3
    assert torch.equal(*seen)
    sounds = [min(Path(folder).glob("*.wav")).read_bytes()[-4000:] for folder in "ab"]
    assert sounds[0] != sounds[1]
