"""Sections of ``gpu.py`` that time training steps within one process: all families, and a decoder of 124 million.

Model FLOP utilisation is tokens/s * (6 N + 12 L d T) / 989e12 (Chowdhery et al., PaLM, 2022, appendix B), with N all
weights but learned positions, L layers of width d and windows of T tokens. Half of what attention is counted with, a
causal one need not do; the peak is that of dense bf16 on an H100 or H200.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from itertools import count
from typing import Any

import torch
from gpu_kit import FAMILIES, TAIL, Kit
from gpu_meter import Meter
from plain_images import Pictures, endless, plain_gan, plain_vae
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformer_step import Parts as TransformerParts
from transformer_step import _plain as plain_transformer
from turns import ENDLESS, Report, Turn, repeat, train

from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.data.base import Dataset
from aigc_cli.data.loader import Loader
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.modalities.tokenizers import PAD, SPECIALS
from aigc_cli.models.base import Model, build_model
from aigc_cli.training.build import check_config, set_up_torch
from aigc_cli.training.optimizers import Precision

PEAK = 989e12  # FLOP/s of dense bf16
WORKERS = 4  # of the plain loop's DataLoader
#: Steps in a turn.
STEPS = {"biggan": 10, "hvae": 15}


# ours, and the plain loop, of any family


def throughput(kit: Kit) -> None:
    """Each family, trained by us and by a plain loop in the same number format."""
    roles = {"ours": ours, "plain": plain}
    for family in FAMILIES:
        rates = {role: _rate(kit, family, role, contestant) for role, contestant in roles.items()}
        if all(rates.values()):
            kit.keep(f"{family} ratio", speed_up=rates["ours"] / rates["plain"])


def compiled(kit: Kit) -> None:
    """The same with ``trainer.compile=true``."""
    for family in ("transformer", "dcgan", "vae", "bert"):
        _rate(kit, family, "compiled", partial(ours, further=["trainer.compile=true"]))


def _rate(kit: Kit, family: str, role: str, contestant: Callable[..., float]) -> float:
    """Items a second; 0 where it failed, which is written down."""
    steps = 1 if kit.tiny else STEPS.get(family, 30)
    meter = Meter(kit.device, steps)
    began = time.monotonic()
    try:
        figures = meter.figures(contestant(kit, family, meter, steps))
    except Exception:
        kit.keep(f"{family} {role}", error=traceback.format_exc()[-TAIL:])
        return 0.0
    finally:
        gc.collect()
        if kit.cuda:
            torch.cuda.empty_cache()
    unit = "images" if FAMILIES[family][0] == "images" else "tokens"
    kit.keep(f"{family} {role}", unit=unit, **figures, took=time.monotonic() - began)
    return figures["items_per_second"]


def _parts(kit: Kit, family: str, steps: int, further: Sequence[str] = ()) -> tuple[dict[str, Any], Dataset, Model]:
    words = kit.words(family, *ENDLESS, f"trainer.sample_every={steps}", *further)
    config = compose("train", words)
    set_up_torch(check_config(config).trainer)
    dataset = _opened(json.dumps(config["data"]))
    torch.manual_seed(0)
    return config, dataset, build_model(config["model"], dataset.spec)


@lru_cache(maxsize=2)
def _opened(data: str) -> Dataset:
    return open_dataset(json.loads(data), "train")


def ours(kit: Kit, family: str, report: Report, steps: int, further: Sequence[str] = ()) -> float:
    """Items a step of all that ``aigc train`` does."""
    config, dataset, model = _parts(kit, family, steps, further)
    loader = Loader(dataset, batch_size=config["trainer"]["batch_size"], seed=0, device=kit.device)
    items = _items(loader.batch(k) for k in range(20))
    train(config, model, loader, kit.device, report)
    return items


def plain(kit: Kit, family: str, report: Report, steps: int) -> float:
    """Items a step of the usual loop: a DataLoader, autocast, stock optimizers, the loss read at every step."""
    config, dataset, model = _parts(kit, family, steps)
    if family == "transformer":  # modules of PyTorch, and its own autocast
        repeat(plain_transformer(TransformerParts(config, dataset, model, kit.device), kit.work / "plain.bin"),
               steps, report)  # fmt: skip
        return float(config["trainer"]["batch_size"] * config["data"]["context"])
    model = model.to(kit.device)
    held = dataset.resident()
    if held is not None:
        assert held.labels is not None
        pixels = held.content.permute(0, 2, 3, 1).contiguous().numpy()
        size = config["trainer"]["batch_size"]
        images = endless(Pictures(pixels, held.labels.numpy()), size, kit.device, 0 if kit.tiny else WORKERS)
        loops = {"vae": plain_vae, "dcgan": plain_gan, "biggan": plain_gan}
        if family in loops:
            repeat(_autocast(loops[family](model, images, config["optimizer"]), kit), steps, report)
        else:
            batches = (Batch(content, labels) for content, labels in images)
            repeat(_autocast(_loop(model, batches, config["optimizer"]), kit), steps, report)
        return float(size)
    loader = Loader(dataset, batch_size=config["trainer"]["batch_size"], seed=0, device="cpu")
    size = round(statistics.mean(len(loader.batch(k)) for k in range(20)))
    batches = _texts(dataset, size, kit)
    items = _items(next(batches) for _ in range(20))
    repeat(_autocast(_loop(model, batches, config["optimizer"]), kit), steps, report)
    return items


def _items(batches: Iterator[Batch]) -> float:
    """The mean number of items in a batch: images, or tokens of the target that are predicted."""
    counts = [int((batch.content[:, 1:] != PAD).sum()) if batch.content.ndim == 2 else len(batch) for batch in batches]
    return statistics.mean(counts)


def _autocast(turn: Turn, kit: Kit) -> Turn:
    """Each step in bf16 on a GPU, as ours is."""

    def steps(number: int) -> None:
        for _ in range(number):
            with torch.autocast("cuda", torch.bfloat16) if kit.cuda else nullcontext():
                turn(1)

    return steps


def _loop(model: Model, batches: Iterator[Batch], rates: dict[str, Any]) -> Turn:
    """Any model of one phase with its own losses."""
    kind = torch.optim.AdamW if rates["name"] == "adamw" else torch.optim.Adam
    phases = dict.fromkeys(phase.name for phase in model.phases(0))
    optimizers = {
        name: kind(model.network(name).parameters(), lr=rates["lr"], betas=tuple(rates["betas"])) for name in phases
    }
    counter = count()

    def turn(steps: int) -> None:
        for _ in range(steps):
            for phase in model.phases(next(counter)):
                optimizers[phase.name].zero_grad()
                loss = model(phase.name, next(batches))["loss"]
                loss.backward()
                optimizers[phase.name].step()
                loss.item()

    return turn


class _Items(torch.utils.data.Dataset[Any]):
    """The usual dataset of texts: a list of tensors an item, of each side."""

    def __init__(self, dataset: Dataset) -> None:
        self.n, self._gather = len(dataset), dataset.gatherer("cpu")

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> list[Tensor]:
        assert self._gather is not None
        item = self._gather(torch.tensor([index]))
        return [side[0] for side in (item.content, item.source) if side is not None]


def _padded(items: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    return [pad_sequence(list(side), batch_first=True, padding_value=PAD) for side in zip(*items, strict=True)]


def _texts(dataset: Dataset, size: int, kit: Kit) -> Iterator[Batch]:
    loader = DataLoader(
        _Items(dataset), size, shuffle=True, num_workers=0 if kit.tiny else WORKERS, drop_last=True,
        collate_fn=_padded, pin_memory=kit.cuda,
    )  # fmt: skip
    while True:
        for content, *source in loader:
            yield Batch(content.to(kit.device), None, source[0].to(kit.device) if source else None)


# a decoder of 124 million weights

_GPT2 = [
    "model.style.norm=layer", "model.style.positions=learned", "model.style.mlp=gelu", "model.style.qk_norm=false",
    "model.style.bias=true",
]  # fmt: skip


class _AsIs(Codec):
    def encode(self, content: Tensor) -> Tensor:
        return content

    def decode(self, encoded: Tensor) -> Tensor:
        return encoded


class RandomTokens(Dataset):
    """Windows of tokens that mean nothing, which cost a step what others cost."""

    codec = _AsIs()

    def __init__(self, n: int, context: int, vocab: int) -> None:
        self._tokens = torch.randint(len(SPECIALS), vocab, (n, context + 1), generator=torch.Generator().manual_seed(0))
        self.spec = DataSpec("text", (context + 1,), (), vocab, SPECIALS, "random")

    def __len__(self) -> int:
        return len(self._tokens)

    def resident(self) -> Batch:
        return Batch(self._tokens)

    def read(self, index: int) -> tuple[Tensor, None]:
        return self._tokens[index], None


def decoder(kit: Kit) -> None:
    """GPT-2's size, with the house's blocks and with its own: tokens a second and model FLOP utilisation."""
    layers, width, context, vocab = (1, 16, 16, 64) if kit.tiny else (12, 768, 1024, 50_304)
    steps, batch = (1, 2) if kit.tiny else (10, 64)
    data = RandomTokens(8 * batch, context, vocab)
    size = [f"model.layers={layers}", f"model.heads={width // 64 or 2}", f"model.width={width}"]
    common = ["model=transformer", "optimizer=adamw", *size, f"trainer.batch_size={batch}", *ENDLESS]
    common += ["trainer.clip_grad_norm=1.0", f"trainer.sample_every={steps}", f"trainer.device={kit.device}"]
    for name, further in {
        "GPT-2's blocks, compiled": [*_GPT2, f"trainer.compile={'false' if kit.tiny else 'true'}"],
        "our blocks, compiled": [f"trainer.compile={'false' if kit.tiny else 'true'}"],
        "our blocks, eager": [],
    }.items():
        try:
            _decoder(kit, name, [*common, *further], data, steps)
        except Exception:
            kit.keep(name, error=traceback.format_exc()[-TAIL:])
        gc.collect()
        torch.compiler.reset()
        if kit.cuda:
            torch.cuda.empty_cache()


def _decoder(kit: Kit, name: str, words: list[str], data: RandomTokens, steps: int) -> None:
    config = compose("train", words)
    set_up_torch(check_config(config).trainer)
    torch.manual_seed(0)
    model: Any = build_model(config["model"], data.spec)
    batch, context = config["trainer"]["batch_size"], data.spec.shape[0] - 1
    loader = Loader(data, batch_size=batch, seed=0, device=kit.device)
    meter, began = Meter(kit.device, steps), time.monotonic()
    train(config, model, loader, kit.device, meter)
    positions = model.decoder.stack.positions
    weights = sum(p.numel() for p in model.parameters()) - (0 if positions is None else positions.numel())
    flops = 6 * weights + 12 * config["model"]["layers"] * config["model"]["width"] * context
    figures = meter.figures(batch * context)
    precision = Precision("auto", kit.device).name
    kit.keep(
        name, unit="tokens", **figures, mfu=figures["items_per_second"] * flops / PEAK, weights=weights, batch=batch,
        context=context, precision=precision, took=time.monotonic() - began,
    )  # fmt: skip
