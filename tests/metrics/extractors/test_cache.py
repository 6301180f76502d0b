"""The cache of features: whole or not there, even after a kill; broken entries are told and computed again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from aigc_cli.metrics.extractors import cache as feature_cache
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.metrics.extractors.cache import load_features, load_statistics, store


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path))
    return tmp_path / "features"


def test_what_is_stored_comes_back(cache: Path) -> None:
    rows = torch.randn(50, 6)
    store(cache / "a.safetensors", rows)
    store(cache / "b.safetensors", FeatureStatistics.of(rows))
    kept = load_features(cache / "a.safetensors", 50)
    assert kept is not None
    assert torch.equal(kept, rows)
    statistics = load_statistics(cache / "b.safetensors", 50)
    assert statistics is not None
    assert torch.equal(statistics.scatter, FeatureStatistics.of(rows).scatter)
    assert load_features(cache / "a.safetensors", 49) is None
    assert load_statistics(cache / "b.safetensors", 51) is None
    assert load_features(cache / "none.safetensors", 50) is None


@pytest.mark.parametrize("place", [0, 60, -3])
def test_a_flipped_byte_is_told_and_nothing_is_read(
    cache: Path, place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = cache / "a.safetensors"
    store(path, torch.randn(50, 6))
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    assert load_features(path, 50) is None
    assert "a.safetensors is broken" in capsys.readouterr().err


def test_the_conditions_name_the_entry() -> None:
    class Extractor:
        checksum = "0" * 64
        facts = {"preprocessing": "none"}  # noqa: RUF012

    class Other(Extractor):
        facts = {"preprocessing": "clean"}  # noqa: RUF012

    base = ("features", "key", Extractor(), "features", "float32", "cpu")
    others = [
        ("statistics", *base[1:]),
        ("features", "key/first 10", *base[2:]),
        ("features", "key", Other(), *base[3:]),
        ("features", "key", Extractor(), "logits", "float32", "cpu"),
        ("features", "key", Extractor(), "features", "bfloat16", "cpu"),
        ("features", "key", Extractor(), "features", "float32", "cuda"),
    ]
    entries = {feature_cache.entry(*words) for words in (base, *others)}  # type: ignore[arg-type]
    assert len(entries) == len(others) + 1
    assert feature_cache.entry(*base) in entries  # type: ignore[arg-type]


def test_the_oldest_make_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MOST_BYTES", 3000)
    for age, name in enumerate("abc"):
        store(cache / f"{name}.safetensors", torch.randn(250))
        os.utime(cache / f"{name}.safetensors", (age, age))
    assert {path.name for path in cache.iterdir()} == {"b.safetensors", "c.safetensors"}
    stale = cache / ".d.safetensors.1.part"
    stale.touch()
    os.utime(stale, (0, 0))
    store(cache / "d.safetensors", torch.randn(250))
    assert {path.name for path in cache.iterdir()} == {"c.safetensors", "d.safetensors"}


def test_what_is_too_large_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "MOST_BYTES_EACH", 100)
    store(cache / "a.safetensors", torch.randn(50))
    assert not cache.exists()


WRITER = """
import os, sys, torch
from pathlib import Path
from aigc_cli.metrics.extractors.cache import store
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
        part = cache / f".{path.name}.{writer.pid}.part"
        deadline = time.monotonic() + 60
        while not part.exists() and time.monotonic() < deadline:
            time.sleep(0.0005)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        kept = load_features(path, 300_000)
        assert kept is not None
        assert float(kept.min()) == float(kept.max())
        left_behind += part.exists()
        if left_behind == 3:
            break
    assert not capsys.readouterr().err
    assert left_behind, "no kill fell into a write: the test shows nothing"
