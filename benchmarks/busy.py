"""Training with the threads that ``aigc`` gives it, beside torch's own and threads that only sleep: idle and busy.

    python benchmarks/busy.py --root shared/data/shakespeare --threads 2 [--load 7] [NAME=VALUE ...]

A character transformer on Tiny Shakespeare takes turns at its steps in processes that differ in their environment:
``torch`` (nothing set), ``passive`` (``OMP_WAIT_POLICY=PASSIVE``), ``aigc`` (what its entry point sets), and one more
for each NAME=VALUE. Beside them `--load` processes do nothing but work; none is a measurement on an idle machine.
Every contestant's clock and processor time is a ratio to that of ``torch`` and of ``passive`` in the same round.
The bar: on an idle machine at most 1.03 of torch's clock, on a busy one at most 1.2 of the passive one's.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from turns import ENDLESS, Report, Took, parser, take_turns, train

from aigc_cli import threads
from aigc_cli.config.compose import compose
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import open_dataset
from aigc_cli.models.base import build_model
from aigc_cli.training.memory import keep_freed_memory

OWN = ("OMP_", "GOMP_", "KMP_", "MKL_")


def contestant(options: argparse.Namespace, report: Report) -> None:
    """All that ``aigc train`` does in a step."""
    keep_freed_memory()
    threads.watch()  # where the environment is that of the entry point
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", options.threads)))
    words = ["experiment=shakespeare_char_cpu", f"data.root={options.root}", "trainer.device=cpu"]
    words += [*ENDLESS, "trainer.validate_every=null", f"trainer.sample_every={options.steps}"]
    config = compose("train", words)
    dataset = open_dataset(config["data"], "train")
    model = build_model(config["model"], dataset.spec)
    loader = Loader(dataset, batch_size=config["trainer"]["batch_size"], seed=0, device=torch.device("cpu"))
    train(config, model, loader, torch.device("cpu"), report)


def _work() -> None:
    while True:
        pass


@contextmanager
def load(count: int) -> Iterator[None]:
    """So many processes that always have something to do."""
    busy = [multiprocessing.get_context("fork").Process(target=_work, daemon=True) for _ in range(count)]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def show(taken: dict[str, list[Took]], references: Sequence[str]) -> None:
    """A line for each contestant, and its ratios to each reference, round by round."""
    for role, turns in taken.items():
        clock, processor = (1000 * statistics.median(each) for each in zip(*turns, strict=True))
        print(f"{role:<24} {clock:8.1f} ms a step, {processor:8.1f} of the processor (medians)")
        for other in references:
            if other in taken and other != role:
                for what in Took._fields:
                    pairs = zip(turns, taken[other], strict=True)
                    ratios = [getattr(own, what) / getattr(its, what) for own, its in pairs]
                    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
                    print(f"    {what:<9} / {other:<8} {statistics.median(ratios):6.3f}  ({spread})")


def main() -> None:
    words = parser(__doc__, steps=20, turns=7)
    words.add_argument("--root", required=True, help="folder of Tiny Shakespeare")
    words.add_argument("--load", type=int, default=0, help="processes that work beside it")
    words.add_argument("--without-torch", action="store_true", help="whose turns take minutes on a busy machine")
    options = words.parse_args()
    for name in [name for name in os.environ if name.startswith(OWN)]:
        del os.environ[name]
    environments = {} if options.without_torch else {"torch": {}}
    environments["passive"] = {"OMP_WAIT_POLICY": "PASSIVE"}
    environments["aigc"] = {"GOMP_SPINCOUNT": threads.SPINS}
    environments |= {word: dict([word.split("=", 1)]) for word in options.words}
    contestants = dict.fromkeys(environments, contestant)
    show(take_turns(contestants, options, environments, lambda: load(options.load)), ("torch", "passive"))


if __name__ == "__main__":
    main()
