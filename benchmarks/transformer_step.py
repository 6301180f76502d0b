"""Our training step of experiment=shakespeare_char_cpu, side by side with a plain PyTorch loop of the same network.

    python benchmarks/transformer_step.py --root ../shared/data/shakespeare

- plain: a loop written the usual way. Modules of PyTorch with scaled_dot_product_attention, random crops stacked from a
  memory map, stock AdamW, clipping, the loss read every ten steps.
- bare: forward, backward and optimizer step of our model on one batch that never changes, and nothing else.
- trainer: all that `aigc train` does in a step: order, gathering, seeding, clipping, averaging, watching for NaN,
  logging and progress.

All have as many weights, in matrices of the same shapes. Each runs in a process of its own, and they take turns; each
turn gives one ratio. --cpu-time counts the processor's time in place of the clock's, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from turns import ENDLESS, Report, Turn, measure, parser, repeat, show, train

from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.data.loader import Loader
from aigc_cli.models.base import build_model
from aigc_cli.training.build import check_config
from aigc_cli.training.memory import keep_freed_memory
from aigc_cli.training.optimizers import build_optimizers


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(width // heads, eps=1e-6, elementwise_affine=False)
        self.scale = nn.Parameter(torch.zeros(1))
        frequencies = 10_000 ** -(torch.arange(0, width // heads, 2) / (width // heads))
        angles = torch.outer(torch.arange(context), frequencies).repeat(1, 2)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def rotated(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        t = x.shape[-2]
        return x * self.cosine[:t] + torch.cat([-second, first], -1) * self.sine[:t]

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        query, key, value = (
            part.view(n, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(width, dim=2)
        )
        query = self.rotated(self.norm(query)) * self.scale.exp()[:, None, None]
        key = self.rotated(self.norm(key))
        share = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=share, is_causal=True)
        return self.out(mixed.transpose(1, 2).contiguous().view(n, t, width))


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, context: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention = PlainAttention(width, heads, context, dropout)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        normed = self.mlp_norm(x)
        return x + self.dropout(self.down(functional.silu(self.gate(normed)) * self.up(normed)))


class PlainTransformer(nn.Module):
    def __init__(
        self, vocab: int, context: int, layers: int, heads: int, width: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, hidden, context, dropout) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, 0.0, 0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = self.dropout(self.embedding(tokens))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


class Parts(NamedTuple):
    """What every contestant begins with."""

    config: dict[str, Any]
    dataset: Any
    model: Any
    device: torch.device

    def loader(self) -> Loader:
        batch_size = self.config["trainer"]["batch_size"]
        return Loader(self.dataset, batch_size=batch_size, seed=0, device=self.device)


def parts(options: argparse.Namespace) -> Parts:
    words = ["experiment=shakespeare_char_cpu", f"data.root={options.root}", f"trainer.device={options.device}"]
    words += [*ENDLESS, f"trainer.sample_every={options.steps}", *options.words]
    config = compose("train", words)
    dataset = open_dataset(config["data"], "train")
    torch.manual_seed(0)
    return Parts(config, dataset, build_model(config["model"], dataset.spec), torch.device(options.device))


def plain(options: argparse.Namespace, report: Report) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repeat(_plain(parts(options), Path(folder) / "train.bin"), options.steps, report)


def _plain(made: Parts, stream: Path) -> Turn:
    config, device = made.config, made.device
    settings, context, batch = config["model"], config["data"]["context"], config["trainer"]["batch_size"]
    keys = {key: settings[key] for key in ("layers", "heads", "width", "dropout")}
    vocab, hidden = made.dataset.spec.vocab_size, made.model.config.hidden
    model = PlainTransformer(vocab, context, hidden=hidden, **keys).to(device)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in made.model.parameters())
    rates = config["optimizer"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rates["lr"], betas=tuple(rates["betas"]), weight_decay=rates["weight_decay"]
    )
    tokens = np.concatenate([made.dataset.read(index)[0][:-1].numpy() for index in range(len(made.dataset))])
    tokens.astype(np.uint16).tofile(stream)
    counter = count(1)

    def crops() -> tuple[Tensor, Tensor]:
        data = np.memmap(stream, dtype=np.uint16, mode="r")
        starts = torch.randint(len(data) - context, (batch,))
        inputs = torch.stack([torch.from_numpy(data[start : start + context].astype(np.int64)) for start in starts])
        targets = torch.stack(
            [torch.from_numpy(data[start + 1 : start + 1 + context].astype(np.int64)) for start in starts]
        )
        return inputs.to(device), targets.to(device)

    def turn(steps: int) -> None:
        for step in islice(counter, steps):
            for group in optimizer.param_groups:
                group["lr"] = rates["lr"] * 0.5 * (1 + math.cos(math.pi * min(1.0, step / 2000)))
            inputs, targets = crops()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                loss = model(inputs, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if step % 10 == 0:
                loss.item()

    return turn


def bare(options: argparse.Namespace, report: Report) -> None:
    keep_freed_memory()
    repeat(_bare(parts(options)), options.steps, report)


def _bare(made: Parts) -> Turn:
    model = made.model.to(made.device)
    optimizer = build_optimizers(check_config(made.config).optimizer, model, ("main",))["main"]
    batch = made.loader().batch(0)

    def turn(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(made.device.type, dtype=torch.bfloat16, enabled=made.device.type == "cuda"):
                loss = model("main", batch)["loss"]
            loss.backward()
            optimizer.step()

    return turn


def trainer(options: argparse.Namespace, report: Report) -> None:
    keep_freed_memory()
    made = parts(options)
    train(made.config, made.model, made.loader(), made.device, report)


def main() -> None:
    words = parser(__doc__, steps=20, turns=9)
    words.add_argument("--root", required=True, help="folder of Tiny Shakespeare")
    options = words.parse_args()
    times = measure({role.__name__: role for role in (plain, bare, trainer)}, options)
    show(times, parts(options).config["trainer"]["batch_size"])


if __name__ == "__main__":
    main()
