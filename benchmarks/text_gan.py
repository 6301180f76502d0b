"""A GAN of text beside the transformer that it begins as: how good its captions are, and how different.

    python benchmarks/text_gan.py --data multi30k --out text-gan

trains `model=transformer` on the English captions of Multi30k, `model=gan` from it, and a `model=bert` whose features
texts are compared by; draws texts of the first at several temperatures and of the second at several steps; and writes
`figure.png` and `table.md` into the folder. What is there already is used again. All held-out text is of at most as
many tokens as the models read, and the references are of the split that `--references` names; the other one stands
for real text.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from sacrebleu.metrics.bleu import BLEU

import aigc_cli
from aigc_cli.metrics.distances import frechet_distance
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.metrics.text import ngrams
from aigc_cli.modalities.prompts import Lines
from aigc_cli.sampling.readings import embed

ORDER, REFERENCES, LENGTH = 5, 500, 32
TEMPERATURES = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
STEPS = {"mle": 3500, "gan": 400, "bert": 800, "reverse": 300}  # in MINUTES
MINUTES = 25.0
POINTS = 5  # steps at which the GAN is measured
REVERSE = 5  # times as many texts to train on as to measure
CUT = BLEU(lowercase=True).tokenizer
COLUMNS = ("bleu", "self_bleu", "perplexity", "reverse", "fd", "distinct2", "copied")
HEAD = """| texts | BLEU-5 | self-BLEU-5 | perplexity | reverse perplexity | fd | distinct-2 | copied |
|---|---|---|---|---|---|---|---|"""


def bleu(lines: Sequence[str], references: Sequence[str] | None = None) -> float:
    """The mean BLEU-5 of lines, each against all references, or where there are none, against all other lines.

    Each is that of sacrebleu's ``BLEU(lowercase=True, max_ngram_order=5, effective_order=True).sentence_score``, which
    smooths by ``exp``. Of each n-gram the two largest counts are enough: its own is one of them, or does not matter.
    """
    words = [CUT(line.lower()).split() for line in lines]
    others = words if references is None else [CUT(line.lower()).split() for line in references]
    most: dict[tuple[str, ...], tuple[int, int]] = {}
    for counts in map(_grams, others):
        for gram, count in counts.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (count, first) if count > first else (first, max(second, count))
    lengths = Counter(map(len, others))
    scores = []
    for line in words:
        there = lengths - Counter([len(line)]) if references is None else lengths
        nearest = min(there, key=lambda length: (abs(length - len(line)), length))
        matched, total = [0] * ORDER, [max(0, len(line) - n) for n in range(ORDER)]
        for gram, count in _grams(line).items():
            first, second = most.get(gram, (0, 0))
            limit = second if references is None and count == first else first
            matched[len(gram) - 1] += min(count, limit)
        how: dict[str, Any] = {"smooth_method": "exp", "effective_order": True, "max_ngram_order": ORDER}
        scores.append(BLEU.compute_bleu(matched, total, len(line), nearest, **how).score)
    return fmean(scores)


def _grams(words: Sequence[str]) -> Counter[tuple[str, ...]]:
    return Counter(gram for n in range(1, ORDER + 1) for gram in ngrams(words, n))


def distance(real: torch.Tensor, fake: torch.Tensor) -> float:
    """The Fréchet distance of features (n, d)."""
    return float(frechet_distance(FeatureStatistics.of(real), FeatureStatistics.of(fake)))


def perplexity(run: aigc_cli.LoadedRun, lines: Sequence[str], temperature: float = 1.0) -> float:
    """Of a token, with scores divided by a temperature, which the weights of the norm before them can do as well."""
    weight = run.model.decoder.stack.norm.weight  # type: ignore[union-attr]
    weight.data /= temperature
    found = run.score(list(lines))
    weight.data *= temperature
    return math.exp(float(found["nll"].sum() / found["tokens"].sum()))


class Work:
    """A folder in which each thing is made once, and what that took is written down."""

    def __init__(self, out: Path, data: Path, n: int, share: float, references: str) -> None:
        self.out, self.data, self.n, self.share = out, data.resolve(), n, share
        out.mkdir(parents=True, exist_ok=True)
        self.captions = {name: self._captions(name) for name in ("train", "val", "test_2016_flickr")}
        first = self.trained("mle", [*self.words("transformer"), "trainer.batch_size=64", "trainer.validate_every=500"])
        self.tokenizer = aigc_cli.open_run(first).restored.codec.tokenizer
        held_out = {name: self._fitting(self.captions[name]) for name in ("val", "test_2016_flickr")}
        wanted = "val" if references == "val" else "test_2016_flickr"
        self.wanted = held_out.pop(wanted)
        (self.real,) = held_out.values()
        self.real = self.real[:n]

    def _captions(self, name: str) -> list[str]:
        return gzip.open(self.data / f"{name}.en.gz", "rt", encoding="utf-8").read().splitlines()

    def _fitting(self, lines: Sequence[str]) -> list[str]:
        return [line for line in lines if len(self.tokenizer.encode(line)) <= LENGTH - 2]

    def words(self, model: str) -> list[str]:
        """What every training on the captions takes."""
        data = ["data=multi30k", f"data.root={self.data}", "data.only=en", f"data.max_length={LENGTH}"]
        return [f"model={model}", *data, "data.batch_tokens=null", "data.tokenizer.vocab_size=2000"]

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, from the folder where it is there."""
        path = self.out / f"{name}.json"
        if not path.exists():
            before = _minutes()
            path.write_text(json.dumps({"found": make(), "minutes": _minutes() - before}))
        return json.loads(path.read_text())["found"]

    def steps(self, name: str) -> int:
        """How many a training takes."""
        return POINTS * max(1, round(self.share * STEPS[name] / POINTS))

    def trained(self, name: str, words: Sequence[str]) -> Path:
        """The run of a training."""
        steps = self.steps(name.partition("-")[0])
        run = self.out / "runs" / name

        def train() -> None:
            kept = [f"trainer.steps={steps}", "trainer.sample_every=null", f"run_dir={run}"]
            subprocess.run([sys.executable, "-m", "aigc_cli", "train", *words, *kept], check=True)

        self.once(name, train)
        return run

    def scores(self, name: str, lines: Sequence[str], bert: aigc_cli.LoadedRun) -> dict[str, float]:
        """All that is measured of texts alone."""
        train = self.out / "train.txt"
        train.write_text("\n".join(self.captions["train"]))
        free = aigc_cli.evaluate(list(lines), train, "distinct,copied")
        own = {key: free[key] for key in ("distinct2", "copied")}
        own["bleu"] = bleu(lines, self.wanted[:REFERENCES])
        own["self_bleu"] = bleu(lines[:REFERENCES])
        own["fd"] = distance(*(embed(bert.restored, Lines(dict(enumerate(some)))) for some in (self.wanted, lines)))
        return own

    def reverse(self, name: str, lines: Sequence[str]) -> float:
        """The perplexity of held-out text for a small transformer that learnt from these texts alone."""
        folder = self.out / "texts" / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, some in (("train", lines), ("val", self.real), ("test", self.wanted)):
            (folder / f"{split}.txt").write_text("\n".join(some))
        data = ["data=text", f"data.root={folder}", "data.lines=true", "data.items=documents"]
        data += [f"data.context={LENGTH}", f"data.tokenizer.path={self.out / 'runs/mle'}"]
        small = ["model.layers=2", "model.width=64", "model.dropout=0.1", "trainer.batch_size=32"]
        run = self.trained(f"reverse-{name}", ["model=transformer", *data, *small])
        return perplexity(aigc_cli.open_run(run), self.wanted)

    def drawn(self, run: aigc_cli.LoadedRun, n: int, temperature: float) -> list[str]:
        """Samples, each on one line."""
        texts = run.sample(n, temperature=temperature, batch_size=250)
        return [" ".join(text.split()) for text in texts]


def _minutes() -> float:
    """Processor time so far, of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used) / 60


def measured(work: Work) -> dict[str, dict[str, float]]:
    """All rows of the table, by the name of the texts."""
    every = work.steps("gan") // POINTS
    mle = work.out / "runs/mle"
    kept = [f"trainer.checkpoint_every={every}", f"trainer.keep={POINTS + 1}"]
    gan = work.trained("gan", [*work.words("gan"), f"model.init_from={mle}", *kept])
    words = ["model.objective=mlm", "trainer.batch_size=64", f"data.tokenizer.path={mle}"]
    bert = aigc_cli.open_run(work.trained("bert", [*work.words("bert")[:-1], *words]))
    rows: dict[str, dict[str, float]] = {}

    def row(name: str, draw: Callable[[int], list[str]], own: float | None, reverse: bool) -> None:
        lines = work.once(f"texts-{name}", lambda: draw(REVERSE * work.n if reverse else work.n))
        rows[name] = work.once(f"scores-{name}", lambda: work.scores(name, lines[: work.n], bert))
        if own is not None:
            rows[name]["perplexity"] = own
        if reverse:
            rows[name]["reverse"] = work.once(f"lm-{name}", lambda: work.reverse(name, lines))

    def written(run: aigc_cli.LoadedRun, name: str, temperature: float, reverse: bool) -> None:
        own = work.once(f"nats-{name}", lambda: perplexity(run, work.wanted, temperature))
        row(name, lambda n: work.drawn(run, n, temperature), own, reverse)

    row("real", lambda n: work.real, None, False)
    real = work._fitting(work.captions["train"])[: REVERSE * work.n]
    rows["real"]["reverse"] = work.once("lm-real", lambda: work.reverse("real", real))
    for temperature in TEMPERATURES:
        written(aigc_cli.open_run(mle), f"mle-{temperature}", temperature, temperature in (0.8, 1.0))
    for step in range(every, work.steps("gan") + 1, every):
        written(aigc_cli.open_run(gan, step=step), f"gan-{step}", 1.0, step == work.steps("gan"))
    return rows


def table(rows: dict[str, dict[str, float]]) -> str:
    """The same in Markdown."""
    digits = dict(zip(COLUMNS, (1, 1, 1, 1, 2, 3, 3), strict=True))
    lines = [HEAD]
    for name, row in rows.items():
        cells = [f"{row[key]:.{digits[key]}f}" if key in row else "" for key in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Self-BLEU against BLEU: what is higher and further left is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")
    for kind, label, mark in (("mle", "transformer, by temperature", "o-"), ("gan", "GAN, by step", "s--")):
        named = {name.partition("-")[2]: row for name, row in rows.items() if name.startswith(kind)}
        places = [(row["self_bleu"], row["bleu"]) for row in named.values()]
        axes.plot(*zip(*places, strict=True), mark, label=label, markersize=4, linewidth=1)
        for text, place in zip(named, places, strict=True):
            offset = (-3, 5) if kind == "mle" else (5, -9)
            right = "right" if kind == "mle" else "left"
            axes.annotate(text, place, offset, textcoords="offset points", fontsize=7, ha=right)
    axes.plot(rows["real"]["self_bleu"], rows["real"]["bleu"], "k*", markersize=10, label="held-out captions")
    axes.set_xlabel("self-BLEU-5 (further left: more different)")
    axes.set_ylabel("BLEU-5 (higher: more like real ones)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of Multi30k")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of processor time, roughly: fewer steps of all")
    parser.add_argument("--n", type=int, default=1000, help="texts of each kind")
    parser.add_argument("--references", choices=("val", "test"), default="test")
    asked = parser.parse_args()
    work = Work(asked.out.resolve(), asked.data, asked.n, asked.minutes / MINUTES, asked.references)
    rows = measured(work)
    draw(rows, asked.out / "figure.png")
    said = table(rows)
    (asked.out / "table.md").write_text(said + "\n")
    spent = {path.stem: json.loads(path.read_text())["minutes"] for path in sorted(asked.out.glob("*.json"))}
    training = {name: round(spent[name], 1) for name in ("mle", "gan", "bert")}
    whole = sum(minutes for name, minutes in spent.items() if not name.startswith("reverse-"))  # within another
    print(said, f"\nminutes: {training}, everything {whole:.1f}")


if __name__ == "__main__":
    main()
