"""Our GAN step on CIFAR-10 (32x32, batch 64), side by side with a plain loop and with the bare step.

    python benchmarks/gan_step.py --root ../shared/data/cifar10
    python benchmarks/gan_step.py --root ../shared/data/cifar10 --preset dcgan
    python benchmarks/gan_step.py --preset sngan --steps 2 model.width=64 model.max_width=64

- plain: a PyTorch loop written the usual way. A DataLoader with two workers over PIL transforms, a discriminator pass
  over the reals and one over the fakes, fakes detached, losses read with `.item()` every step, stock Adam. Each
  preset's loss, penalty and number of discriminator steps are the same.
- bare: forward, backward and optimizer steps of our model on one batch that never changes, and nothing else.
- trainer: all that `aigc train` does in a step: order, gathering, augmentation, seeding, averaging, watching for NaN,
  logging and progress.

The three train the same networks from the same weights with the same losses, each in a process of its own, and take
turns; each turn gives one ratio.
Without --root, random pixels stand in for the images.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.functional import relu, softplus
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from aigc_cli.commands.train import check_config
from aigc_cli.config import compose
from aigc_cli.data import open_dataset
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.loader import Loader
from aigc_cli.models.base import Model
from aigc_cli.runs import Run
from aigc_cli.training.checkpoint import build_model
from aigc_cli.training.memory import keep_freed_memory
from aigc_cli.training.optimizers import build_optimizers
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer

BATCH = 64
Turn = Callable[[int], None]


class Pictures(Dataset[tuple[Any, int]]):
    """The usual dataset: an array to a PIL image to a tensor, an item at a time."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = pixels, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), int(self.labels[index])


#: What the discriminator and the generator minimise, from scores of reals and of fakes.
PLAIN_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "non_saturating": (
        lambda real, fake: bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake)),
        lambda real, fake: bce(fake, torch.ones_like(fake)),
    ),
    "hinge": (lambda real, fake: relu(1 - real).mean() + relu(1 + fake).mean(), lambda real, fake: -fake.mean()),
    "wgan": (lambda real, fake: fake.mean() - real.mean(), lambda real, fake: -fake.mean()),
    "relativistic": (
        lambda real, fake: softplus(fake - real).mean(),
        lambda real, fake: softplus(real - fake).mean(),
    ),
}


def slope(discriminator: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """The squared norm of each item's gradient."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x, labels).sum(), x, create_graph=True)
    return gradient.flatten(1).pow(2).sum(1)


def plain_penalty(model: Any, real: Tensor, fake: Tensor, labels: Tensor | None, step: int) -> Tensor | float:
    config, discriminator = model.config, model.discriminator
    if config.regularizer == "gradient":
        mix = torch.rand(len(real), 1, 1, 1, device=real.device)
        norm = slope(discriminator, mix * real + (1 - mix) * fake, labels).sqrt()
        return config.gradient_penalty * ((norm - 1) ** 2).mean()
    if config.regularizer == "none" or step % config.r1_every:
        return 0.0
    penalty = slope(discriminator, real, labels).mean()
    if config.regularizer == "r1r2":
        penalty = penalty + slope(discriminator, fake, labels).mean()
    return 0.5 * config.r1_gamma * config.r1_every * penalty


def plain(model: Any, pixels: np.ndarray, labels: np.ndarray, device: torch.device, adam: dict[str, Any]) -> Turn:
    config = model.config
    generator, discriminator = model.generator.to(device), model.discriminator.to(device)
    loader = DataLoader(
        Pictures(pixels, labels), BATCH, shuffle=True, num_workers=2, drop_last=True, pin_memory=device.type == "cuda"
    )
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=adam["lr"], betas=adam["betas"])
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=adam["lr"], betas=adam["betas"])
    d_loss_of, g_loss_of = PLAIN_LOSSES[config.loss]

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    batches = endless()
    losses = []

    def turn(steps: int) -> None:
        for step in range(steps):
            for _ in range(config.discriminator_steps):
                real, classes = (part.to(device) for part in next(batches))
                told = classes if config.conditional else None
                fake = generator(torch.randn(BATCH, config.latent, device=device), told)
                d_optimizer.zero_grad()
                d_loss = d_loss_of(discriminator(real, told), discriminator(fake.detach(), told))
                (d_loss + plain_penalty(model, real, fake.detach(), told, step)).backward()
                d_optimizer.step()
                losses.append(d_loss.item())
            g_optimizer.zero_grad()
            if config.discriminator_steps > 1:
                fake = generator(torch.randn(BATCH, config.latent, device=device), told)
            real_score = discriminator(real, told).detach() if config.loss == "relativistic" else torch.zeros(())
            g_loss = g_loss_of(real_score, discriminator(fake, told))
            g_loss.backward()
            g_optimizer.step()
            losses.append(g_loss.item())

    return turn


def trainer(config: dict[str, Any], model: Model, loader: Loader, folder: Path, device: torch.device) -> Trainer:
    checked = check_config(config)
    run = Run(folder)
    run.path.mkdir()
    return Trainer(
        model=model, loader=loader, optimizer=checked.optimizer, config=checked.trainer, seed=0, run=run, device=device
    )


class Enough(Exception):
    """Ends a training that has no end of its own."""


def whole(trained: Trainer, report: Callable[[], int]) -> None:
    """Trains without end; the place where sample grids are drawn reports a turn and waits for the next."""

    def pause(step: int) -> None:
        if report() == 0:
            raise Enough

    with suppress(Enough):
        trained.fit(Hooks(preview=pause))


def bare(config: dict[str, Any], model: Model, loader: Loader, device: torch.device) -> Turn:
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizers = build_optimizers(check_config(config).optimizer, model, ("generator", "discriminator"))
    batch = loader.batch(0)

    def turn(steps: int) -> None:
        for step in range(steps):
            for phase in model.phases(step):
                model.requires_grad_(False)
                model.network(phase.name).requires_grad_(True)
                optimizers[phase.name].zero_grad()
                model(phase.name, batch)["loss"].backward()
                optimizers[phase.name].step()

    return turn


def worker(role: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Builds one contestant in a process of its own, which takes a turn whenever it is told to."""
    device = torch.device(options.device)
    words = [f"model={options.preset}", "data=cifar10"]
    words += ["model.penalty=none"] if options.preset == "gan" else []
    words += [f"trainer.batch_size={BATCH}", "trainer.checkpoint_every=1000000000", f"trainer.device={options.device}"]
    words += ["trainer.steps=1000000000", f"trainer.sample_every={options.steps}"]
    words += options.words
    config = compose("train", [*words, f"data.root={options.root}"] if options.root else words)
    if options.root:
        dataset: Any = open_dataset(config["data"], "train")
    else:
        pixels, labels = torch.randint(0, 256, (10_000, 3, 32, 32), dtype=torch.uint8), torch.arange(10_000) % 10
        dataset = ImageDataset(pixels, labels, [str(label) for label in range(10)], flip=True)
    torch.manual_seed(0)
    model = build_model(config["model"], dataset.spec)
    with tempfile.TemporaryDirectory() as folder:

        def report() -> int:
            """Tells how long the turn took and waits for the next; 0 is the end."""
            nonlocal start
            if device.type == "cuda":
                torch.cuda.synchronize()
            pipe.send(time.perf_counter() - start)
            more = int(pipe.recv())
            start = time.perf_counter()
            return more

        start = time.perf_counter()
        if role != "plain":
            keep_freed_memory()
        loader = Loader(dataset, batch_size=BATCH, seed=0, device=device)
        if role == "trainer":
            whole(trainer(config, model, loader, Path(folder) / "run", device), report)
            return
        held = dataset.resident()
        pixels, labels = held.content.permute(0, 2, 3, 1).contiguous().numpy(), held.labels.numpy()
        if role == "plain":
            turn = plain(model, pixels, labels, device, config["optimizer"])
        else:
            turn = bare(config, model, loader, device)
        turn(options.steps)
        while report():
            turn(options.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of CIFAR-10")
    parser.add_argument(
        "--preset", default="gan", help="which model: gan, dcgan, sngan, wgan_gp, biggan or r3gan_small"
    )
    parser.add_argument("--steps", type=int, default=15, help="steps in a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("words", nargs="*", help="further key=value words, such as model.width=32")
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
        rate = BATCH / statistics.median(measured)
        print(f"{role:8} {1000 * statistics.median(measured):8.1f} ms a step (median), {rate:8.0f} images/s")
    for left, right, meaning in (("plain", "trainer", "speed-up"), ("trainer", "bare", "cost of the loop")):
        ratios = [a / b for a, b in zip(times[left], times[right], strict=True)]
        print(f"{left}/{right}: {statistics.median(ratios):.3f} ({meaning}; {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
