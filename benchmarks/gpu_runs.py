"""Sections of ``gpu.py`` that run the public commands: whether all works on the device, and how far recipes get."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from decoding import plain as plain_writing
from decoding import timed
from gpu_kit import FAMILIES, TAIL, Kit, measured, rows_of

from aigc_cli.config.compose import compose
from aigc_cli.modalities.base import DataSpec
from aigc_cli.modalities.tokenizers import SPECIALS
from aigc_cli.models.base import Prompts, build_model
from aigc_cli.models.language_model import WritingControls
from aigc_cli.models.transformer import DecoderLanguageModel
from aigc_cli.randomness import Noise
from aigc_cli.training.checkpoint import CheckpointFolder

QUIET = ["trainer.sample_every=null", "trainer.examine_every=null"]
TOLD = 1.47  # nats a character of Tiny Shakespeare, the published figure for this size
METRICS = {"images": "prdc", "text": "likelihood", "pairs": "likelihood", "captions": "likelihood"}


def _each(kit: Kit, names: list[str], act: Callable[[Kit, str], None]) -> None:
    """Acts for each name, side by side, and writes down the errors."""

    def guarded(name: str) -> None:
        try:
            act(kit, name)
        except Exception as error:
            kit.keep(name, error=f"{type(error).__name__}: {error}"[-TAIL:])

    with ThreadPoolExecutor(max_workers=len(names)) as pool:
        list(pool.map(guarded, names))


# whether it works


def smoke(kit: Kit) -> None:
    """Each family in bf16: trained, killed and resumed bit for bit, sampled, measured. All at the same time."""
    _each(kit, ["vae"] if kit.tiny else list(FAMILIES), _smoke)


def _smoke(kit: Kit, family: str) -> None:
    began = time.monotonic()
    steps, every = (12, 4) if kit.tiny else (200, 20)
    whole, killed = kit.work / f"{family}-whole", kit.work / f"{family}-killed"
    kind = "digits" if FAMILIES[family][0] == "images" else None  # which opens at once
    words = kit.words(family, *QUIET, "trainer.validate_every=null", "trainer.deterministic=true", kind=kind)
    words += ["trainer.keep=100", f"trainer.steps={steps}", f"trainer.checkpoint_every={every}", "trainer.log_every=10"]
    kit.aigc("train", *words, f"run_dir={whole}")
    losses = [value for key, value in rows_of(whole)[-1].items() if key.endswith("/loss")]
    process = kit.started(*words, f"run_dir={killed}", log=killed.with_suffix(".log"))
    while process.poll() is None and not CheckpointFolder(killed / "checkpoints").steps():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = CheckpointFolder(killed / "checkpoints").steps()
    kit.aigc("train", "--resume", str(killed))
    same = _sums(whole) == _sums(killed)
    kit.keep(f"{family} resumed", bit_exact=same, struck=bool(kept) and max(kept) < steps, losses=losses)
    if family != "vqvae":  # which has no samples of its own
        kit.aigc("sample", f"run={whole}", "n=8", f"device={kit.device}")
    metric = "reconstruction" if family == "vqvae" else METRICS[FAMILIES[family][0]]
    if kit.tiny and metric == "prdc":
        metric = "likelihood"
    figures = measured(kit.aigc("eval", f"run={whole}", "--metric", metric, "n=64", "--json"))
    kit.keep(f"{family} sampled and measured", **figures, took=time.monotonic() - began)


def _sums(run: Path) -> dict[str, str]:
    """The SHA-256 of each file of tensors of the newest checkpoint."""
    newest = max(CheckpointFolder(run / "checkpoints").steps())
    files = (run / "checkpoints" / f"step-{newest}").glob("*.safetensors")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# how far recipes get


def _fitted(kit: Kit, name: str, words: list[str], seconds: float, most: int | None = None) -> dict[str, Any]:
    """Trains the run `name` for as many steps as fit in so many seconds, at the rate of a first few; at most `most`."""
    few = 4 if kit.tiny else 100
    probe, quiet = kit.work / f"{name}-probe", [*words, *QUIET]
    kit.train(probe, [*quiet, f"trainer.steps={few}", f"trainer.log_every={few // 2}"])
    first, last = (row["seconds"] for row in rows_of(probe) if "seconds" in row)
    steps = 8 if kit.tiny else int(seconds * few / 2 / (last - first))
    steps = max(few, steps if most is None else min(most, steps))
    run = kit.work / name
    complete = kit.train(run, [*quiet, f"trainer.steps={steps}"], seconds + 20)
    return {
        "steps": rows_of(run)[-1]["step"],
        "planned": steps,
        "complete": complete,
        "training_seconds": _seconds(run),
    }


def _seconds(run: Path) -> float:
    """What training took, its looks at held-out data included."""
    return float([row["seconds"] for row in rows_of(run) if "seconds" in row][-1])


def shakespeare(kit: Kit) -> None:
    """``experiment=shakespeare_char`` as it is: nats a character of the held-out tenth, and when it is below 1.47."""
    _each(kit, ["eager"] if kit.tiny else ["eager", "compiled"], _shakespeare)


def _shakespeare(kit: Kit, name: str) -> None:
    began, run = time.monotonic(), kit.work / f"shakespeare-{name}"
    small = ["trainer.steps=4", "trainer.validate_every=2"] if kit.tiny else []
    words = kit.words("transformer", *small, f"trainer.compile={str(name == 'compiled').lower()}")
    complete = kit.train(run, words, kit.seconds - 25)
    took = time.monotonic() - began
    seconds, looks = 0.0, []
    for row in rows_of(run):
        seconds = row.get("seconds", seconds)
        if "val/nll_per_token" in row:
            looks.append((row["val/nll_per_token"], row["step"], seconds))
    best, step, at = min(looks)
    there = next(((step, at) for nats, step, at in looks if nats <= TOLD), None)
    kit.keep(
        f"shakespeare_char {name}", nats=best, best_step=step, best_at=at, below=TOLD, reached=there,
        complete=complete, training_seconds=_seconds(run), command_seconds=took,
    )  # fmt: skip
    figures = measured(kit.aigc("eval", f"run={run}", "--metric", "likelihood", "step=best", "--json"))
    kit.keep(f"shakespeare_char {name} aigc eval step=best", **figures)


def multi30k(kit: Kit) -> None:
    """``experiment=multi30k``, all its steps if they fit: sacreBLEU of test_2016_flickr, greedy and with a beam."""
    most = 12_000
    words = kit.words("seq2seq", "trainer.validate_every=1000")
    trained = _fitted(kit, "multi30k", words, kit.seconds - 80, most)
    kit.keep("multi30k", of=most, **trained)
    for beam in (1,) if kit.tiny else (1, 5):
        words = ["n=2", "temperature=1"] if kit.tiny else []  # else it has nothing to say yet
        printed = kit.aigc("eval", f"run={kit.work / 'multi30k'}", "--metric", "bleu", f"beam={beam}", *words, "--json")
        kit.keep(f"multi30k beam={beam}", steps=trained["steps"], **measured(printed))


#: Networks that are no harder to feed than a CPU's, with what a GPU leaves room for.
_CIFAR = {
    "biggan": ["model=biggan", "data=cifar10", "recipe=biggan_pictures", "trainer.batch_size=64"],
    "hvae": ["experiment=hvae_cifar10", "trainer.compile=false", "trainer.validate_every=null"],
}


def cifar(kit: Kit) -> None:
    """Two models of CIFAR-10 side by side, two minutes each, with the distance on the data's own classifier."""
    kind = "digits" if kit.tiny else "images"
    kit.aigc("eval", "stats", *kit.source(kind), "metric=fd", "out=classifier.npz")  # trains it once for both
    _each(kit, list(_CIFAR), _cifar)


def _cifar(kit: Kit, family: str) -> None:
    if kit.tiny:
        words = kit.words(family, kind="digits")
    else:
        words = [*_CIFAR[family], kit.source("images")[1], f"trainer.device={kit.device}"]
    kit.keep(f"{family} on CIFAR-10", **_fitted(kit, f"cifar-{family}", words, min(120.0, kit.seconds - 110)))
    metrics = "fd,likelihood" if family == "hvae" and not kit.tiny else "fd"
    n = 50 if kit.tiny else 10_000
    kit.keep(
        f"{family} on CIFAR-10, {n} samples",
        **measured(kit.aigc("eval", f"run={kit.work / f'cifar-{family}'}", "--metric", metrics, f"n={n}", "--json")),
    )


# how fast they write and draw


def sampling(kit: Kit) -> None:
    """Rows of text with a cache beside the whole prefix anew, and images a second of networks with fresh weights."""
    _writing(kit)
    for family in ("dcgan", "biggan", "vae", "hvae"):
        try:
            _drawing(kit, family)
        except Exception as error:
            kit.keep(f"{family} samples", error=f"{type(error).__name__}: {error}"[-TAIL:])


def _writing(kit: Kit) -> None:
    rows, tokens = (2, 4) if kit.tiny else (64, 256)
    config = compose("train", kit.words("transformer"))
    spec = DataSpec("text", (tokens + 2,), vocab_size=69, specials=SPECIALS)
    torch.manual_seed(0)
    model: Any = build_model(config["model"], spec).to(kit.device).eval()
    assert isinstance(model, DecoderLanguageModel)
    model.eos = -1  # nothing ends early
    prompts = [[4 + row % 60] for row in range(rows)]
    start = torch.tensor(prompts, device=kit.device)

    def ours(temperature: float = 1.0) -> torch.Tensor:
        noise = Noise(0, range(rows), kit.device)
        return model.sample(noise, WritingControls(max_tokens=tokens, temperature=temperature), Prompts(prompts))

    with torch.inference_mode():
        same = (ours(0.0) == plain_writing(model, start, tokens, 0.0)).float().mean()
        clock = time.perf_counter
        theirs = min(timed(lambda: plain_writing(model, start, tokens, 1.0), kit.device, clock) for _ in range(3))
        cached = min(timed(ours, kit.device, clock) for _ in range(3))
    kit.keep(
        f"{rows} rows of {tokens} tokens", tokens_per_second=rows * tokens / cached,
        prefix_anew=rows * tokens / theirs, ratio=theirs / cached, equal_greedy_tokens=float(same),
    )  # fmt: skip


def _drawing(kit: Kit, family: str) -> None:
    n = 4 if kit.tiny else 1000
    config = compose("train", kit.words(family))
    spec = DataSpec("image", (3, 32, 32), tuple(map(str, range(10))))
    torch.manual_seed(0)
    model = build_model(config["model"], spec).to(kit.device).eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        controls = type(model).controls()
        model.sample(Noise(1, range(n), kit.device), controls)
        best = min(
            timed(lambda: model.sample(Noise(0, range(n), kit.device), controls), kit.device, time.perf_counter)
            for _ in range(3)
        )
    kit.keep(f"{family} samples", images_per_second=n / best, batch=n)
