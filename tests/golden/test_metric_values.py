"""Values of metrics that need no training: of fixed lines of text, fixed images and fixed statistics."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line import aigc

#: How close to the stored values: features of a network round differently from processor to processor.
EXACT, ROUNDED = 1e-6, 1e-3


def values(*words: str) -> dict[str, Any]:
    code, told = aigc("eval", *words, "device=cpu", "--json", "out=values")
    assert code == 0
    return {record["metric"]: record["figures"] for record in told["results"]}


def compared(stored: Callable[[str, Any], None], name: str, found: dict[str, Any], tolerance: float) -> None:
    path = Path(__file__).parent / "stored" / f"{name}.json"
    if os.environ.get("AIGC_WRITE_GOLDENS"):
        stored(name, found)
    wanted = json.loads(path.read_text(encoding="utf-8"))
    assert found.keys() == wanted.keys()
    for metric, figures in wanted.items():
        assert found[metric] == pytest.approx(figures, rel=tolerance, abs=tolerance), metric


def test_lines_of_text(stored: Callable[[str, Any], None]) -> None:
    sides = ["fake=fake.txt", "real=real.txt"]
    metrics = "bleu,chrf,rouge,distinct,self_bleu,repetition,copied"
    compared(stored, "values/text", values(*sides, "--metric", metrics), EXACT)
    other = ["metric.bleu.tokenize=char", "metric.bleu.lowercase=true", "metric.chrf.word_order=2"]
    other += ["metric.rouge.stemmer=true", "metric.self_bleu.items=10", "metric.repetition.n=2", "metric.copied.run=9"]
    compared(stored, "values/text-other", values(*sides, "--metric", metrics, *other), EXACT)


def test_statistics(stored: Callable[[str, Any], None]) -> None:
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        features = rng.normal(size=(400, 128)) @ rng.normal(size=(128, 128))
        np.savez(f"{name}.npz", mu=features.mean(0), sigma=np.cov(features, rowvar=False))
    words = ["fake=one.npz", "real=two.npz", "data=digits", "data.size=8", "--metric", "fd"]
    compared(stored, "values/statistics", values(*words), EXACT)


def test_images(stored: Callable[[str, Any], None]) -> None:
    """Features of a small network of random weights, and pixels."""
    import torch
    import torchvision

    network = torchvision.models.shufflenet_v2_x0_5(weights=None)
    rng, state = np.random.default_rng(0), network.state_dict()
    for name, tensor in state.items():
        if tensor.ndim > 1:  # normal as He et al. (2015) have it, so that features keep their size
            drawn = rng.normal(scale=(2 / tensor[0].numel()) ** 0.5, size=tuple(tensor.shape))
            state[name] = torch.from_numpy(drawn.astype(np.float32))
    torch.save(state, "shufflenet.pth")
    for side in "abc":
        with np.load(f"{side}.npz") as archive:
            np.savez(f"few-{side}.npz", images=archive["images"][:24])
    words = ["fake=few-a.npz", "real=few-b.npz", "held_out=few-c.npz", "extractor=torchvision"]
    words += ["model=shufflenet_v2_x0_5", "weights=shufflenet.pth", "--metric", "prdc,memorization,kd,vendi"]
    found = {
        metric: {figure.partition("[")[0]: value for figure, value in figures.items()}
        for metric, figures in values(*words).items()
    }
    compared(stored, "values/images", found, ROUNDED)
