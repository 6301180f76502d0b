"""Statistics that merge, features that are finite, and their cache: whole or not there, even after a kill."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors import base
from aigc_cli.metrics.extractors.base import FeatureStatistics, check_finite, load, merge_packed, store


def features(n: int, d: int = 7, seed: int = 0) -> torch.Tensor:
    # Far from the origin, where sums of squares would lose half of their digits.
    return torch.from_numpy(np.random.default_rng(seed).normal(1e4, 1.0, (n, d)))


def test_statistics_are_numpys() -> None:
    rows = features(50)
    statistics = FeatureStatistics.of(rows)
    np.testing.assert_allclose(statistics.mean, rows.numpy().mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(statistics.covariance, np.cov(rows.numpy(), rowvar=False), atol=1e-10)


@pytest.mark.parametrize("cuts", [(1,), (25,), (1, 2, 3), (10, 20, 49)])
def test_merging_parts_gives_the_whole(cuts: tuple[int, ...]) -> None:
    rows = features(50)
    edges = [0, *cuts, 50]
    parts = [FeatureStatistics.of(rows[a:b]) for a, b in pairwise(edges)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    whole = FeatureStatistics.of(rows)
    assert merged.n == 50
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=0, atol=1e-9)


def test_packed_statistics_merge_as_processes_hand_them_over() -> None:
    rows = features(30)
    empty = FeatureStatistics(0, torch.zeros(7, dtype=torch.float64), torch.zeros(7, 7, dtype=torch.float64))
    parts = [FeatureStatistics.of(rows[:11]).packed(), empty.packed(), FeatureStatistics.of(rows[11:]).packed()]
    merged = FeatureStatistics.unpacked(merge_packed(torch.stack(parts)))
    whole = FeatureStatistics.of(rows)
    assert merged.n == 30
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    rows = features(4)
    assert check_finite(rows, "x") is rows
    rows[2, 1] = value
    with pytest.raises(DataError, match="1 of 4 rows"):
        check_finite(rows, "the features")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path))
    return tmp_path / "features"


def test_what_is_stored_comes_back(cache: Path) -> None:
    rows = torch.randn(50, 6)
    store(cache / "a.safetensors", rows)
    store(cache / "statistics-b.safetensors", FeatureStatistics.of(rows))
    kept = load(cache / "a.safetensors", 50)
    assert kept is not None
    assert torch.equal(kept, rows)
    statistics = load(cache / "statistics-b.safetensors", 50)
    assert statistics is not None
    assert torch.equal(statistics.scatter, FeatureStatistics.of(rows).scatter)
    assert load(cache / "a.safetensors", 49) is None
    assert load(cache / "statistics-b.safetensors", 51) is None
    assert load(cache / "none.safetensors", 50) is None


@pytest.mark.parametrize(("name", "shape"), [("a", (50,)), ("statistics-a", (50, 6)), ("statistics-a", (8,))])
def test_what_is_not_of_the_shape_of_its_kind_is_computed_again(
    cache: Path, name: str, shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    store(cache / f"{name}.safetensors", torch.randn(shape))
    assert load(cache / f"{name}.safetensors", 50) is None
    assert f"{name}.safetensors is broken (it has the shape" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 60, -3])
def test_a_flipped_byte_is_told_and_nothing_is_read(
    cache: Path, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cache / "a.safetensors"
    store(path, torch.randn(50, 6))
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    assert load(path, 50) is None
    assert "a.safetensors is broken" in capsys.readouterr().err


def test_the_conditions_name_the_entry() -> None:
    class Extractor:
        checksum = "0" * 64
        facts = {"preprocessing": "none"}  # noqa: RUF012

    class Other(Extractor):
        facts = {"preprocessing": "clean"}  # noqa: RUF012

    usual = ("features", "key", Extractor(), "features", "float32", "cpu")
    others = [
        ("statistics", *usual[1:]),
        ("features", "key/first 10", *usual[2:]),
        ("features", "key", Other(), *usual[3:]),
        ("features", "key", Extractor(), "logits", "float32", "cpu"),
        ("features", "key", Extractor(), "features", "bfloat16", "cpu"),
        ("features", "key", Extractor(), "features", "float32", "cuda"),
    ]
    entries = {base.entry(*words) for words in (usual, *others)}  # type: ignore[arg-type]
    assert len(entries) == len(others) + 1
    assert base.entry(*usual) in entries  # type: ignore[arg-type]


def test_the_oldest_make_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_BYTES", 3000)
    for age, name in enumerate("abc"):
        store(cache / f"{name}.safetensors", torch.randn(250))
        os.utime(cache / f"{name}.safetensors", (age, age))
    assert {path.name for path in cache.iterdir()} == {"b.safetensors", "c.safetensors"}
    store(cache / "d.safetensors", torch.randn(250))
    assert {path.name for path in cache.iterdir()} == {"c.safetensors", "d.safetensors"}


def test_what_is_too_large_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MOST_BYTES_EACH", 100)
    store(cache / "a.safetensors", torch.randn(50))
    assert not cache.exists()


WRITER = """
import os, sys, torch
from pathlib import Path
from aigc_cli.metrics.extractors.base import store
path = Path(sys.argv[1])
print("ready", flush=True)
for k in range(10**6):
    store(path, torch.full((300_000, 8), float(k)))
"""


@pytest.mark.slow
def test_a_kill_while_it_writes_leaves_the_old_or_the_new(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = cache / "a.safetensors"
    store(path, torch.full((300_000, 8), -1.0))
    left_behind = 0
    for _ in range(40):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        deadline = time.monotonic() + 60
        while not list(cache.glob("*.part")) and time.monotonic() < deadline:
            time.sleep(0.0005)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        kept = load(path, 300_000)
        assert kept is not None
        assert float(kept.min()) == float(kept.max())
        left_behind += bool(list(cache.glob("*.part")))
        if left_behind == 3:
            break
    assert not capsys.readouterr().err
    assert left_behind, "no kill fell into a write: the test shows nothing"
