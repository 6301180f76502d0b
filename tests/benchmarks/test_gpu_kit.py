"""The sections of ``benchmarks/gpu.py`` at their smallest, on a CPU: what a GPU is asked runs, and loses nothing."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.training.build import check_config

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import gpu
import gpu_meter
from gpu_kit import FAMILIES, Kit, rows_of_file
from gpu_meter import covered, device_spans


class HereKit(Kit):
    """Runs commands in this process, which saves their start."""

    def aigc(self, *words: str) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.chdir(self.work):
            assert main(list(words)) == 0, words
        return said.getvalue()

    def train(self, run: Path, words: list[str], seconds: float | None = None) -> bool:
        return self.aigc("train", *words, f"run_dir={run}") != ""


def results(section: str, folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a section, by what they are of; none is of an error."""
    kit = HereKit(
        section=section, data=folder, out=folder, work=folder, device=torch.device("cpu"), tiny=True, seconds=60
    )
    gpu.SECTIONS[section][0](kit)
    rows = rows_of_file(folder / "rows.jsonl")
    assert not [row for row in rows if "error" in row]
    return {row["what"]: row for row in rows}


def test_every_family_is_timed_beside_a_plain_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_meter, "TURNS", 1)
    rows = results("throughput", tmp_path)
    for family in FAMILIES:
        assert rows[f"{family} ratio"]["speed_up"] > 0
        assert rows[f"{family} ours"]["unit"] == rows[f"{family} plain"]["unit"]


@pytest.mark.parametrize("section", ["decoder", "sampling"])
def test_decoders_and_samples_are_timed(section: str, tmp_path: Path) -> None:
    assert len(results(section, tmp_path)) >= 3


def test_a_family_is_killed_resumed_sampled_and_measured(tmp_path: Path) -> None:
    rows = results("smoke", tmp_path)
    assert rows["vae resumed"]["bit_exact"]
    assert "elbo" in " ".join(rows["vae sampled and measured"])


def test_recipes_are_trained_and_measured(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert "nll_per_character" in results("shakespeare", tmp_path / "a")["shakespeare_char eager aigc eval step=best"]
    (tmp_path / "b").mkdir()
    assert results("multi30k", tmp_path / "b")["multi30k beam=1"]["steps"] == 8


@pytest.mark.parametrize("family", FAMILIES)
def test_the_words_of_full_sizes_are_a_configuration(family: str, tmp_path: Path) -> None:
    kit = Kit("", tmp_path, tmp_path, tmp_path, torch.device("cpu"), tiny=False, seconds=1)
    kind = FAMILIES[family][0]
    for source in {kind, "digits"} if kind == "images" else {kind}:
        check_config(compose("train", kit.words(family, kind=source)))


def test_the_busy_time_is_that_of_the_union_of_all_spans() -> None:
    assert covered([(5, 7), (0, 2), (1, 3), (1, 2)]) == 5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        with torch.profiler.record_function("Optimizer.step#a range"):
            time.sleep(0.05)
        torch.ones(100).sum()
    spans = device_spans(profiler, torch.autograd.DeviceType.CPU)
    assert 0 < covered(spans) < 0.05e6


def test_a_section_that_fails_ends_alone_and_says_how(tmp_path: Path) -> None:
    options = argparse.Namespace(data=tmp_path, out=tmp_path, work=tmp_path, device="nowhere", tiny=True)
    assert "nowhere" in gpu.run_section("decoder", options, time.monotonic() + 60)["outcome"]
    assert gpu.run_section("decoder", options, time.monotonic())["outcome"] == "no time left"
