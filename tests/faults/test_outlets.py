"""What a command talks to and stands on: closed and full streams, a folder that is gone, names of any length, shared
memory, a full disk at the end."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import aigc, hashes, train
from families import words_of
from streamed import STREAMED, paint

from aigc_cli.runs import Run

SHORT = ["trainer.steps=2", "trainer.checkpoint_every=2"]
DRAWN = ["n=3", "max_tokens=4"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that gives vectors, and texts."""
    folder = tmp_path_factory.mktemp("bert")
    train(folder / "run", *words_of("bert", folder), *SHORT)
    return folder / "run"


def close(*numbers: int) -> None:
    """As a shell does by ``>&-``."""
    for number in numbers:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)


def fill(number: int) -> None:
    """As a shell does by ``2>/dev/full``."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def leave_unread(*numbers: int) -> None:
    """As behind ``| head``, which has ended."""
    read, written = os.pipe()
    os.close(read)
    for number in numbers:
        os.dup2(written, number)


@pytest.mark.parametrize(
    "before",
    [
        functools.partial(close, 1), functools.partial(close, 2), functools.partial(close, 0, 1, 2),
        functools.partial(fill, 2), functools.partial(leave_unread, 2),
    ],
    ids=["stdout closed", "stderr closed", "all closed", "stderr full", "stderr unread"],
)  # fmt: skip
def test_what_cannot_be_told_ends_no_work(tmp_path: Path, bert: Path, before: Callable[[], object]) -> None:
    words = [*words_of("vae", tmp_path), *SHORT]
    for line in (["train", "run_dir=run", *words], ["sample", f"run={bert}", "out=out", "n=2"]):
        code, said = aigc(*line, folder=tmp_path, before=before)
        assert code == 0, said
        assert "Traceback" not in said
    assert hashes(tmp_path / "run")
    for path in (tmp_path / "out").iterdir():
        assert "sampling" not in path.read_text(), "nothing that is said lands in a file"


def test_a_run_whose_lines_nobody_reads_is_complete(tmp_path: Path) -> None:
    code, said = aigc(
        "train", "run_dir=run", *words_of("vae", tmp_path), *SHORT, folder=tmp_path,
        before=functools.partial(leave_unread, 1, 2),
    )  # fmt: skip
    assert code == 141, said
    assert Run(tmp_path / "run").status() == "complete"
    assert hashes(tmp_path / "run")


def leave() -> None:
    """The current folder is deleted."""
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")


@pytest.mark.parametrize("line", ["train", "train -m seed=0,1", "sample", "eval", "embed text=a", "data show"])
def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, bert: Path, line: str) -> None:
    code, said = aigc(*line.split(), folder=tmp_path, before=leave)
    assert code == 2, said
    assert "the current folder has been deleted" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("letter", ["x", "ä"])
def test_names_of_any_length_that_the_system_has(tmp_path: Path, bert: Path, letter: str) -> None:
    count = 1 if letter == "x" else 2
    text = tmp_path / f"{letter * (251 // count)}.txt"
    text.write_text("a few words\nand others\n")
    folder, archive = letter * (255 // count), f"{letter * (251 // count)}.npz"
    run = ["embed", f"run={bert}"]
    for line in (
        [*run, "text=abc", f"out={archive}"],
        [*run, text.name],
        ["sample", f"run={bert}", f"out={folder}", "n=1"],
    ):
        code, said = aigc(*line, folder=tmp_path)
        assert code == 0, said
    assert (tmp_path / archive).is_file()
    assert (tmp_path / folder).is_dir()
    code, said = aigc(*run, "text=abc", f"out={'y' * 252}.npz", folder=tmp_path)
    assert code == 2, said
    assert "Traceback" not in said


def little_shared_memory() -> None:
    """As in a container with ``--shm-size=64k``: a name space of mounts of its own."""
    assert ctypes.CDLL(None).unshare(0x20000) == 0  # CLONE_NEWNS
    for line in ("--make-rprivate /", "-t tmpfs -o size=64k tmpfs /dev/shm"):
        subprocess.run(["mount", *line.split()], check=True)


def test_a_shared_memory_that_is_too_small_for_a_batch_slows_and_stops_nothing(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no name space of mounts can be made here")
    paint(tmp_path / "pictures")
    words = [*STREAMED, "data.size=64", "trainer.batch_size=16", "trainer.steps=6", "trainer.checkpoint_every=6"]
    train(tmp_path / "whole", *words)
    code, said = aigc(
        "train", "run_dir=run", *words, "trainer.workers=2", folder=tmp_path, before=little_shared_memory
    )  # fmt: skip
    assert code == 0, said
    assert hashes(tmp_path / "run") == hashes(tmp_path / "whole")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill_up(folder: Path) -> Path:
    filler = folder / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(folder).free))
    return filler


def test_what_was_measured_is_shown_where_it_cannot_be_kept(tmp_path: Path, disk: Path, bert: Path) -> None:
    (tmp_path / "some.txt").write_text("a few words\nand a few others\n")
    fill_up(disk)
    code, said = aigc("eval", "--metric", "distinct", "fake=some.txt", f"out={disk}", folder=tmp_path)
    assert code == 5, said
    assert "distinct" in said.split("aigc:")[0]
    assert f"cannot write {disk}" in said
    assert "No space left on device" in said
    code, said = aigc("embed", "some.txt", f"run={bert}", "neighbours=1", f"out={disk}/a.npz", folder=tmp_path)
    assert code == 5, said
    assert "and a few others" in said
    assert f"cannot write {disk}/a.npz: No space left on device" in said
    assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_full_disk_is_named_in_training_too(tmp_path: Path, disk: Path) -> None:
    words = [*words_of("vae", tmp_path), "trainer.log_every=1", "trainer.checkpoint_every=1000", "trainer.steps=100000"]
    from children import Child

    child = Child(["train", f"run_dir={disk}/run", *words], tmp_path)
    child.wait_for(lambda: (disk / "run/metrics.jsonl").is_file() and (disk / "run/metrics.jsonl").read_text())
    fill_up(disk)
    assert child.wait() == 5, child.said
    assert f"cannot write {disk}/run/metrics.jsonl: No space left on device" in child.said


def use_cache(folder: str) -> None:
    os.environ["AIGC_CACHE"] = folder


def test_a_cache_that_is_read_only_serves_what_it_holds(tmp_path: Path, disk: Path) -> None:
    words, before = [*words_of("transformer", tmp_path), *SHORT], functools.partial(use_cache, str(disk))
    code, said = aigc("train", "run_dir=first", *words, folder=tmp_path, before=before)
    assert code == 0, said
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, said = aigc("train", "run_dir=second", *words, folder=tmp_path, before=before)
    assert code == 0, said
    assert hashes(tmp_path / "first") == hashes(tmp_path / "second")
    (tmp_path / "words.txt").write_text("other words than those that it holds. " * 50)
    code, said = aigc("train", "run_dir=third", *words, folder=tmp_path, before=before)
    assert code == 5, said
    assert "AIGC_CACHE" in said


def test_a_run_may_be_where_a_disk_is_mounted(tmp_path: Path, disk: Path) -> None:
    """As in a container: nothing can be renamed to it, and its files come one by one."""
    train(disk, *words_of("vae", tmp_path), *SHORT)
    assert hashes(disk)
    assert not [path.name for path in disk.iterdir() if path.name.startswith(".")]


def test_a_run_that_is_read_only_is_resumed_in_a_copy(tmp_path: Path, disk: Path) -> None:
    run = disk / "run"
    train(run, *words_of("vae", tmp_path), *SHORT)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    code, said = aigc("train", "--resume", str(run), "trainer.steps=4", folder=tmp_path)
    assert code == 5, said
    assert "aigc train --resume COPY" in said
    shutil.copytree(run, tmp_path / "copy")
    code, said = aigc("train", "--resume", "copy", "trainer.steps=4", folder=tmp_path)
    assert code == 0, said
