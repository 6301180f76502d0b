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
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from aigc_cli.commands.train import check_config
from aigc_cli.config import compose
from aigc_cli.data import open_dataset
from aigc_cli.data.loader import Loader
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import build_model
from aigc_cli.training.memory import keep_freed_memory
from aigc_cli.training.optimizers import build_optimizers
from aigc_cli.training.trainer import Hooks, Trainer

Turn = Callable[[int], None]


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm = nn.RMSNorm(width // heads, eps=1e-6, elementwise_affine=False)
        self.scale = nn.Parameter(torch.zeros(heads))
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


def plain(config: dict[str, Any], ours: Any, dataset: Any, folder: Path, device: torch.device) -> Turn:
    settings, context, batch = config["model"], config["data"]["context"], config["trainer"]["batch_size"]
    keys = {key: settings[key] for key in ("layers", "heads", "width", "dropout")}
    model = PlainTransformer(dataset.spec.vocab_size, context, hidden=ours.config.hidden, **keys).to(device)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in ours.parameters())
    rates = config["optimizer"]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rates["lr"], betas=tuple(rates["betas"]), weight_decay=rates["weight_decay"]
    )
    stream = np.concatenate([dataset.read(index)[0][:-1].numpy() for index in range(len(dataset))])
    stream.astype(np.uint16).tofile(folder / "train.bin")
    bf16 = device.type == "cuda"
    step = 0

    def crops() -> tuple[Tensor, Tensor]:
        data = np.memmap(folder / "train.bin", dtype=np.uint16, mode="r")
        starts = torch.randint(len(data) - context, (batch,))
        tokens = torch.stack([torch.from_numpy(data[start : start + context].astype(np.int64)) for start in starts])
        targets = torch.stack(
            [torch.from_numpy(data[start + 1 : start + 1 + context].astype(np.int64)) for start in starts]
        )
        return tokens.to(device), targets.to(device)

    def turn(steps: int) -> None:
        nonlocal step
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rates["lr"] * 0.5 * (1 + math.cos(math.pi * min(1.0, step / 2000)))
            tokens, targets = crops()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                loss = model(tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            if step % 10 == 0:
                loss.item()

    return turn


def bare(config: dict[str, Any], model: Any, loader: Loader, device: torch.device) -> Turn:
    model = model.to(device)
    optimizer = build_optimizers(check_config(config).optimizer, model, ("main",))["main"]
    batch = loader.batch(0)

    def turn(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                loss = model("main", batch)["loss"]
            loss.backward()
            optimizer.step()

    return turn


class Enough(Exception):
    """Ends a training that has no end of its own."""


def whole(trainer: Trainer, report: Callable[[], int]) -> None:
    """Trains without end; the place where samples are drawn reports a turn and waits for the next."""

    def pause(step: int) -> None:
        if report() == 0:
            raise Enough

    with suppress(Enough):
        trainer.fit(Hooks(preview=pause))


def worker(role: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Builds one contestant in a process of its own, which takes a turn whenever it is told to."""
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    words = [
        "experiment=shakespeare_char_cpu",
        "trainer.checkpoint_every=1000000000",
        f"trainer.device={options.device}",
    ]
    words += ["trainer.steps=1000000000", f"trainer.sample_every={options.steps}", f"data.root={options.root}"]
    config = compose("train", [*words, *options.words])
    dataset = open_dataset(config["data"], "train")
    torch.manual_seed(0)
    model = build_model(config["model"], dataset.spec)
    clock = time.process_time if options.cpu_time else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:

        def report() -> int:
            """Tells how long the turn took and waits for the next; 0 is the end."""
            nonlocal start
            if device.type == "cuda":
                torch.cuda.synchronize()
            pipe.send(clock() - start)
            more = int(pipe.recv())
            start = clock()
            return more

        start = clock()
        if role == "plain":
            turn = plain(config, model, dataset, Path(folder), device)
        else:
            keep_freed_memory()
            checked = check_config(config)
            loader = Loader(dataset, batch_size=checked.trainer.batch_size, seed=0, device=device)
            if role == "trainer":
                run = Run(Path(folder) / "run")
                run.path.mkdir()
                trainer = Trainer(
                    model=model, loader=loader, optimizer=checked.optimizer, config=checked.trainer, seed=0, run=run,
                    device=device,
                )  # fmt: skip
                whole(trainer, report)
                return
            turn = bare(config, model, loader, device)
        turn(options.steps)
        while report():
            turn(options.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="folder of Tiny Shakespeare")
    parser.add_argument("--steps", type=int, default=20, help="steps in a turn")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("words", nargs="*", help="further key=value words, such as experiment=shakespeare_char")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for role in ("plain", "bare", "trainer"):
        pipes[role], far = context.Pipe()
        context.Process(target=worker, args=(role, options, far)).start()

    for pipe in pipes.values():
        pipe.recv()  # each has warmed up with a turn of its own
    times: dict[str, list[float]] = {role: [] for role in pipes}
    for _ in range(options.turns):
        for role, pipe in pipes.items():
            pipe.send(1)
            times[role].append(float(pipe.recv()) / options.steps)
    for pipe in pipes.values():
        pipe.send(0)
    for role, measured in times.items():
        print(
            f"{role:8} {1000 * statistics.median(measured):8.1f} ms a step (median), {1000 * min(measured):.1f} at best"
        )
    for left, right, meaning in (("plain", "trainer", "speed-up"), ("trainer", "bare", "cost of the loop")):
        ratios = [a / b for a, b in zip(times[left], times[right], strict=True)]
        best = min(times[left]) / min(times[right])
        print(f"{left}/{right}: {statistics.median(ratios):.3f} ({meaning}; {best:.3f} of the best turns)")


if __name__ == "__main__":
    main()
