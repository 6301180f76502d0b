"""FID, KID and IS side by side with torch-fidelity's own command, on the same weights and the same pictures.

    python benchmarks/eval_fid.py [--n 1000] [--turns 3] [--weights FILE]

Both read the same two folders of PNG files in processes of their own, in turns. Ours begins with an empty cache
and has the reference's features from the second turn on. Without --weights both load the same random ones, on which
features have the size of trained ones. Prints the figures of both, how far apart they are, and the ratio of their times
(above 1: ours is faster), by the clock and by the processor; on a busy machine only the latter means something.
With fewer pictures than the 2,048 features, torch-fidelity's FID is low by up to about 1e-5, since it takes eigenvalues
of a singular product: give --n 2100 or more for FIDs that agree to a relative 1e-6. Its KID sums kernels in float32,
which is off by some 1e-8 whatever the KID: the last line has its own function on the same features in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

FIGURES = {"fid": "frechet_inception_distance", "kid": "kernel_inception_distance_mean", "is": "inception_score_mean"}


def random_weights(path: Path) -> None:
    """He-normal convolutions and batch norms near 1: with torch's own start, features all but vanish."""
    import torch_fidelity.feature_extractor_inceptionv3 as module

    generator = torch.Generator().manual_seed(0)
    kind = module.FeatureExtractorInceptionV3
    with patch.object(module, "load_state_dict_from_url"), patch.object(kind, "load_state_dict"):
        network = kind("x", ["2048"], None)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
        elif isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.uniform_(0.8, 1.2, generator=generator)
            layer.bias.normal_(0, 0.1, generator=generator)
        elif isinstance(layer, torch.nn.Linear):
            layer.weight.normal_(0, 0.1, generator=generator)
    torch.save(network.state_dict(), path)


def pictures(folder: Path, n: int, seed: int, spread: float) -> None:
    """Coloured blobs of 32x32, whose sizes grow with `spread`."""
    from PIL import Image

    folder.mkdir()
    rng = np.random.default_rng(seed)
    grid = np.arange(32, dtype=np.float32)
    for i in range(n):
        x, y, radius = rng.uniform(0, 32, 3) * (1, 1, spread)
        blob = np.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / (2 * radius**2 + 4))
        image = blob[..., None] * rng.uniform(80, 255, 3) + rng.normal(0, 12, (32, 32, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05d}.png")


def theirs(home: Path, weights: Path, subset: int, device: str) -> dict[str, float]:
    words = [sys.executable, "-m", "torch_fidelity.fidelity", "--fid", "--kid", "--isc", "--json", "--silent"]
    words += ["--kid-subset-size", str(subset), "--batch-size", "32", "--samples-find-deep"]
    if (home / "theirs").exists():
        words += ["--no-cache"]
    else:  # the first time, to have its features
        words += ["--cache-root", str(home / "theirs"), "--input1-cache-name", "fake", "--input2-cache-name", "real"]
    words += ["--cpu", "--save-cpu-ram"] if device == "cpu" else ["--gpu", "0"]
    words += ["--feature-extractor-weights-path", str(weights)]
    words += ["--input1", str(home / "fake"), "--input2", str(home / "real")]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = json.loads(shown[shown.index("{") :])
    return {name: float(found[key]) for name, key in FIGURES.items()}


def kid_in_float64(home: Path, subset: int) -> float:
    """What torch-fidelity's own function makes of the features that its command found, with more digits."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

    fake, real = (
        torch.load(home / "theirs" / f"{name}-inception-v3-compat-features-2048.pt", weights_only=True).double()
        for name in ("fake", "real")
    )
    return float(kid_features_to_metric(fake, real, kid_subset_size=subset, verbose=False)[KEY_METRIC_KID_MEAN])


def ours(home: Path, weights: Path, subset: int, device: str) -> dict[str, float]:
    words = [sys.executable, "-m", "aigc_cli", "eval", "--metric", "fid,kid,is", f"fake={home / 'fake'}"]
    words += [f"real={home / 'real'}", f"weights={weights}", f"metric.kid.subset_size={subset}", f"device={device}"]
    environment = {**os.environ, "AIGC_CACHE": str(home / "cache")}
    shown = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True, env=environment).stdout
    records = json.loads(shown)["results"]
    figures = {label.split("[")[0]: value for record in records for label, value in record["figures"].items()}
    return {name: figures[name] for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="pictures on either side")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        weights = asked.weights or home / "random.pth"
        if asked.weights is None:
            random_weights(weights)
        pictures(home / "real", asked.n, seed=0, spread=0.3)
        pictures(home / "fake", asked.n, seed=1, spread=0.9)
        compare(home, weights, asked.n, asked.turns, asked.device)


def compare(home: Path, weights: Path, n: int, turns: int, device: str) -> None:
    subset = min(1000, n // 2)
    figures: dict[str, dict[str, float]] = {}
    ratios = []
    for turn in range(turns):
        spent = {}
        for name, run in (("torch-fidelity", theirs), ("aigc", ours)):
            start, used = time.perf_counter(), processor_seconds()
            figures[name] = run(home, weights, subset, device)
            spent[name] = (time.perf_counter() - start, processor_seconds() - used)
        ratios.append([other / own for other, own in zip(spent["torch-fidelity"], spent["aigc"], strict=True)])
        told = ", ".join(f"{name} {clock:.1f} s ({processor:.1f} s)" for name, (clock, processor) in spent.items())
        state = "computed" if turn == 0 else "cached"
        print(f"turn {turn}, reference {state}: {told}, ratio {ratios[-1][0]:.2f} ({ratios[-1][1]:.2f})", flush=True)
    for name in FIGURES:
        own, other = figures["aigc"][name], figures["torch-fidelity"][name]
        print(f"{name}: aigc {own:.9g}, torch-fidelity {other:.9g}, relative difference {abs(own / other - 1):.1e}")
    own, other = figures["aigc"]["kid"], kid_in_float64(home, subset)
    print(f"kid of torch-fidelity in float64 {other:.9g}, relative difference {abs(own / other - 1):.1e}")
    if turns > 1:
        clock, processor = (statistics.median(column) for column in zip(*ratios[1:], strict=True))
        print(f"ratio with the reference cached, median of {turns - 1}: {clock:.2f} ({processor:.2f})")


def processor_seconds() -> float:
    """What all finished processes of ours have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
