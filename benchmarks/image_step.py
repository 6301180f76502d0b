"""Our step of each model of images on CIFAR-10 (32x32, batch 64), side by side with a plain loop and the bare step.

    python benchmarks/image_step.py --root ../shared/data/cifar10
    python benchmarks/image_step.py --root ../shared/data/cifar10 --models vae,dcgan --turns 9
    python benchmarks/image_step.py --models vae model.likelihood=bernoulli
    python benchmarks/image_step.py --models sngan --steps 2 model.width=256 model.discriminator_width=128

- plain: a PyTorch loop written the usual way, see ``plain_images.py``, with `--workers` processes for the data.
- bare: forward, backward and optimizer steps of our model on one batch that never changes, and nothing else.
- trainer: all that `aigc train` does in a step: order, gathering, augmentation, seeding, averaging, watching for NaN,
  logging and progress.

The three train the same networks from the same weights with the same losses, each in a process of its own, and take
turns; each turn gives one ratio. The VAE is convolutional, with a mixture of logistics. On a CPU the presets have the
widths of their `recipe=..._pictures`, on a GPU those of their papers. --cpu-time counts the processor's time in
place of the clock's, for a machine that others use too; it does not see what the plain loop's workers take, so give it
--workers 0.
Without --root, random pixels stand in for the images.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import torch
from plain_images import Pictures, endless, plain_gan, plain_vae
from turns import ENDLESS, Report, Turn, measure, parser, repeat, show, train

from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.data.base import Dataset
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader
from aigc_cli.models.base import Model, build_model
from aigc_cli.training.build import check_config
from aigc_cli.training.memory import keep_freed_memory
from aigc_cli.training.optimizers import build_optimizers

BATCH = 64
PRESETS = ("dcgan", "sngan", "wgan_gp", "biggan", "r3gan_small")
#: The words of each model: the same on every device, or what makes it small enough for a CPU.
WORDS: dict[str, list[str]] = {
    "vae": ["model=vae", "data=cifar10", "model.network=conv", "model.latent_side=0", "trainer.clip_grad_norm=null"],
    "gan": ["model=gan", "data=cifar10", "model.penalty=none"],
}
SMALL = {preset: [f"model={preset}", "data=cifar10", f"recipe={preset}_pictures"] for preset in PRESETS}
PAPER = {preset: [f"model={preset}", "data=cifar10"] for preset in PRESETS}


class Parts(NamedTuple):
    """What every contestant begins with."""

    config: dict[str, Any]
    dataset: Dataset
    model: Model
    device: torch.device

    def loader(self) -> Loader:
        return Loader(self.dataset, batch_size=BATCH, seed=0, device=self.device)


def parts(name: str, options: argparse.Namespace) -> Parts:
    small = torch.device(options.device).type == "cpu"
    words = [*(WORDS | (SMALL if small else PAPER))[name], *ENDLESS, f"trainer.sample_every={options.steps}"]
    words += [f"trainer.batch_size={BATCH}", f"trainer.device={options.device}", *options.words]
    config = compose("train", [*words, f"data.root={options.root}"] if options.root else words)
    if options.root:
        dataset = open_dataset(config["data"], "train")
    else:
        pixels, labels = torch.randint(0, 256, (10_000, 3, 32, 32), dtype=torch.uint8), torch.arange(10_000) % 10
        dataset = ImageDataset(pixels, labels, [str(label) for label in range(10)], views=["flip"])
    torch.manual_seed(0)
    return Parts(config, dataset, build_model(config["model"], dataset.spec), torch.device(options.device))


def plain(name: str, options: argparse.Namespace, report: Report) -> None:
    config, dataset, model, device = parts(name, options)
    held = dataset.resident()
    assert held is not None
    assert held.labels is not None
    data = Pictures(held.content.permute(0, 2, 3, 1).contiguous().numpy(), held.labels.numpy())
    batches = endless(data, BATCH, device, options.workers)
    loop = plain_vae if name == "vae" else plain_gan
    repeat(loop(model.to(device), batches, config["optimizer"]), options.steps, report)


def bare(name: str, options: argparse.Namespace, report: Report) -> None:
    keep_freed_memory()
    made = parts(name, options)
    repeat(_bare(made), options.steps, report)


def _bare(made: Parts) -> Turn:
    model = made.model.to(made.device).to(memory_format=torch.channels_last)
    names = tuple(dict.fromkeys(phase.name for phase in model.phases(0)))
    optimizers = build_optimizers(check_config(made.config).optimizer, model, names)
    batch = made.loader().batch(0)
    counter = count()

    def turn(steps: int) -> None:
        for step in islice(counter, steps):
            for phase in model.phases(step):
                model.requires_grad_(False)
                model.network(phase.name).requires_grad_(True)
                optimizers[phase.name].zero_grad()
                model(phase.name, batch)["loss"].backward()
                optimizers[phase.name].step()

    return turn


def trainer(name: str, options: argparse.Namespace, report: Report) -> None:
    keep_freed_memory()
    made = parts(name, options)
    train(made.config, made.model, made.loader(), made.device, report)


def main() -> None:
    words = parser(__doc__, steps=15, turns=5)
    words.add_argument("--root", help="folder of CIFAR-10")
    words.add_argument("--models", default="vae,gan," + ",".join(PRESETS), help="which, with commas between them")
    words.add_argument("--workers", type=int, default=2, help="processes of the plain loop's DataLoader")
    options = words.parse_args()
    for name in options.models.split(","):
        contestants = {role.__name__: partial(role, name) for role in (plain, bare, trainer)}
        print(f"\n{name}")
        show(measure(contestants, options), BATCH)


if __name__ == "__main__":
    main()
