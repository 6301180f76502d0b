"""Small datasets of token ids, held in memory, and runs on small files: what models of text train on in tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.data.base import Dataset
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import BOS, EOS, FIRST, PAD, SPECIALS, CharTokenizer
from aigc_cli.models.base import build_model
from aigc_cli.new_run import create_run
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import CheckpointFolder

TOKENIZER = CharTokenizer("abcdefgh")


def windows(n: int, length: int, seed: int = 0) -> Tensor:
    """Token ids (n, length) that count upwards from anywhere, and begin anew after the last."""
    count = TOKENIZER.vocab_size - FIRST
    first = torch.randint(count, (n, 1), generator=torch.Generator().manual_seed(seed))
    return (first + torch.arange(length)) % count + FIRST


def documents(n: int, longest: int, seed: int = 0) -> Tensor:
    """The same between `bos` and `eos`, of any length up to `longest`, filled up with `pad`."""
    rows = windows(n, longest, seed)
    ends = torch.randint(2, longest, (n, 1), generator=torch.Generator().manual_seed(seed + 1))
    ends[0] = longest - 1
    rows[:, 0] = BOS
    places = torch.arange(longest)
    return torch.where(places < ends, rows, torch.where(places == ends, EOS, PAD))


class ToyText(Dataset):
    """Rows of token ids (n, t), and of pairs the sources (n, s) too."""

    def __init__(self, content: Tensor, source: Tensor | None = None) -> None:
        self.batch = Batch(content, source=source)
        self.codec = TextCodec(TOKENIZER)
        width = max(part.shape[1] for part in (content, source) if part is not None)
        alone = DataSpec("text", (width,), vocab_size=TOKENIZER.vocab_size, specials=SPECIALS)
        self.spec = replace(alone, source=None if source is None else alone)

    def __len__(self) -> int:
        return len(self.batch)

    def resident(self) -> Batch | None:
        return None

    def read(self, index: int) -> tuple[Tensor, int | None]:
        return self.batch.content[index], None

    def gatherer(self, device: torch.device | str) -> _Rows:
        return _Rows(self.batch)


class _Rows:
    device = torch.device("cpu")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        return self.batch.take(index)


WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "the", "dog", "ran", "to", "him", "in", "the", "sun"]
#: What makes a model of text small, and the data of each modality, where `{root}` stands for the folder of the files.
SMALL = ("model.layers=1", "model.heads=2", "model.width=16", "trainer.device=cpu", "trainer.batch_size=4")
TEXT = ("data=text", "data.root={root}/text.txt", "data.context=24")
PAIRS = ("data=pairs", "data.source={root}/a.txt", "data.target={root}/b.txt", "data.max_length=24")


def text_words(folder: Path, model: str, kind: str = "char", *words: str) -> list[str]:
    """The words that train a small model on small files, which they write into `folder`."""
    lines = [" ".join(WORDS[place % 13 : place % 13 + 1 + place % 4]) for place in range(200)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    (folder / "a.txt").write_text("\n".join(lines) + "\n")
    (folder / "b.txt").write_text("\n".join(line.upper() for line in lines) + "\n")
    data = [word.format(root=folder) for word in (PAIRS if model == "seq2seq" else TEXT)]
    tokenizer = [f"data.tokenizer.kind={kind}", *(["data.tokenizer.vocab_size=280"] if kind == "bpe" else [])]
    return [f"model={model}", *data, *tokenizer, *SMALL, *words]


def text_run(folder: Path, model: str, kind: str = "char", *words: str) -> Run:
    """A run in the current folder with one checkpoint, of step 7: fresh weights, enlarged so that they tell tokens
    apart."""
    config = compose("train", [*text_words(folder, model, kind, *words), "recipe=null"])
    dataset = open_dataset(config["data"], "train")
    run = create_run(config)
    run.save_config(config, dataset.spec, dataset.codec.files())
    torch.manual_seed(0)
    built = build_model(config["model"], dataset.spec)
    for parameter in built.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    CheckpointFolder(run.checkpoints).save(7, {"model": built.state_dict()}, {"step": 7}, dataset.codec.files())
    run.set_status("complete", 7)
    return run
