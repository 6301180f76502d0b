"""Odd machines: clocks that jump, other time zones, odd paths, no home, no terminal, no locale, no memory."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from children import aigc, hashes, needs_proc, resume, steps, without_memory
from families import words_of

from aigc_cli.runs import find_run


def clock_jumps_back() -> None:
    """The clock is a year behind after its first ten looks."""
    real, looks = time.time, iter(range(1_000_000))

    def jumping() -> float:
        return real() - (365 * 86_400 if next(looks) > 10 else 0)

    time.time = jumping
    strftime = time.strftime
    time.strftime = lambda form, *rest: strftime(form, *(rest or (time.gmtime(jumping()),)))


def elsewhere() -> None:
    """Another time zone, no locale to speak of, no home, no terminal."""
    os.environ.update(TZ="Pacific/Chatham", LANG="C", LC_ALL="C", HOME="/proc/nowhere", TERM="dumb")
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "COLUMNS"):
        os.environ.pop(name, None)
    time.tzset()


@pytest.mark.parametrize("before", [clock_jumps_back, elsewhere])
def test_a_run_and_its_resumption_are_the_same_anywhere(
    tmp_path: Path, before: Callable[[], object], whole: Callable[[str], Path]
) -> None:
    words = words_of("vae", tmp_path)
    code, said = aigc("train", "run_dir=run", *words, "trainer.steps=30", folder=tmp_path, before=before)
    assert code == 0, said
    code, said = aigc("train", "--resume", "run", "trainer.steps=60", folder=tmp_path, before=before)
    assert code == 0, said
    assert hashes(tmp_path / "run") == hashes(whole("vae"))


def test_the_newest_run_is_the_newest_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*words_of("vae", tmp_path), "trainer.steps=1"]
    for before in (None, clock_jumps_back):
        code, said = aigc("train", *words, folder=tmp_path, before=before)
        assert code == 0, said
    monkeypatch.chdir(tmp_path)
    runs = sorted(tmp_path.glob("outputs/*/2*"), key=lambda path: path.stat().st_mtime)
    assert len(runs) == 2
    assert find_run("latest").path == runs[-1].resolve()


@pytest.mark.parametrize("name", ["two words", "größe 漢字 γάτα", "it's (so); $HOME & more", "a=b,c"])
def test_paths_of_any_kind(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    code, said = aigc(
        "train", f"run_dir={name} run", *words_of("transformer", folder), "trainer.steps=2", folder=folder
    )
    assert code == 0, said
    run = folder / f"{name} run"
    assert steps(run) == [2]
    resume(run, "trainer.steps=4")
    assert steps(run) == [2, 4]
    code, said = aigc("sample", f"run={name} run", "n=1", "max_tokens=4", f"out={name} out", folder=folder)
    assert code == 0, said
    assert any((folder / f"{name} out").iterdir())


#: Batches that 300 MB have no room for, of fewer items than there are: 256 of them fit, and 512 do not.
LARGE = ["model.network=mlp", "model.hidden=64", "data.size=64", "trainer.batch_size=1024"]


@needs_proc
def test_out_of_memory_names_the_batch_and_what_to_try(tmp_path: Path) -> None:
    code, said = aigc(
        "train", "run_dir=run", *words_of("vae", tmp_path), *LARGE, folder=tmp_path,
        before=functools.partial(without_memory, 300 << 20),
    )  # fmt: skip
    assert code == 5, said
    assert "out of memory on cpu with trainer.batch_size=1024" in said
    assert "trainer.batch_size=512 trainer.accumulate=2" in said
    assert "Traceback" not in said


@needs_proc
def test_an_automatic_batch_shrinks_until_it_fits_the_memory(tmp_path: Path) -> None:
    code, said = aigc(
        "train", "run_dir=run", *words_of("vae", tmp_path), *LARGE, "trainer.auto_batch=true", "trainer.steps=2",
        folder=tmp_path, before=functools.partial(without_memory, 300 << 20),
    )  # fmt: skip
    assert code == 0, said
    assert "out of memory with trainer.batch_size=1024; continuing with trainer.batch_size=512" in said
    assert steps(tmp_path / "run") == [2]
    trainer = find_run(str(tmp_path / "run")).config["trainer"]
    assert trainer["batch_size"] * trainer["accumulate"] == 1024
    assert 1 < trainer["accumulate"] < 1024


def test_a_loss_that_is_not_finite_ends_the_run_and_saves_nothing(tmp_path: Path) -> None:
    code, said = aigc(
        "train", "run_dir=run", *words_of("vae", tmp_path), "optimizer=sgd", "optimizer.lr=1e30", folder=tmp_path
    )
    assert code == 4, said
    assert "is not finite" in said
    assert not steps(tmp_path / "run")
