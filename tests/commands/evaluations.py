"""What tests of ``aigc eval`` do again and again: read its JSON, take its one score, and make files of images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aigc_cli.cli import main


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", *words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def figure(capsys: pytest.CaptureFixture[str], *words: str) -> float:
    ((value),) = told(capsys, *words)["results"][0]["figures"].values()
    return float(value)


def pictures(path: Path, n: int, seed: int, shape: tuple[int, ...] = (8, 8)) -> str:
    np.savez(path, images=np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8))
    return str(path)
