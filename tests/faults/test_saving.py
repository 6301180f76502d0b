"""What a save leaves behind that is killed at any of its writes, or that the disk has no room for."""

from __future__ import annotations

import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children import aigc, hashes, resume, steps, train
from families import words_of

from aigc_cli.errors import ResourceError
from aigc_cli.training.checkpoint import CheckpointFolder

#: Few and early: the run is done once for each write of a save.
SHORT = ["trainer.steps=6", "trainer.checkpoint_every=2", "trainer.keep=1", "trainer.validate_every=2"]
#: What changes a file system, by the names under which the interpreter audits it.
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def die_at_write(number: int, under: str) -> None:
    """Kills this process at the `number`-th write under a folder, just before it is done."""
    left = [number]

    def count(path: object) -> None:
        if under in str(path):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            count(arguments[0])

    flush = os.fsync

    def fsync(descriptor: int) -> None:
        count(os.readlink(f"/proc/self/fd/{descriptor}"))
        flush(descriptor)

    sys.addaudithook(audit)
    os.fsync = fsync  # which is not audited


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to tell what is being flushed")
def test_a_kill_at_any_write_of_a_save_loses_nothing(tmp_path: Path, kills: int) -> None:
    words = [*words_of("vae", tmp_path), *SHORT]
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    train(whole, *words)
    train(begun, *words, "trainer.steps=2")
    config = begun / "config.yaml"
    config.write_text(config.read_text().replace("steps: 2\n", "steps: 6\n", 1))
    number, every = 1, max(1, 12 // kills)
    while True:
        run = tmp_path / f"run-{number}"
        shutil.copytree(begun, run)
        code, said = aigc(
            "train", "--resume", str(run), folder=tmp_path,
            before=functools.partial(die_at_write, number, f"{run.name}/checkpoints"),
        )  # fmt: skip
        if code == 0:
            break
        assert code == -signal.SIGKILL, said
        said = resume(run)
        assert "broken" not in said
        assert hashes(run) == hashes(whole), number
        assert not list(run.glob("checkpoints/.tmp*"))
        number += every
    assert number > 30, "a save has more writes than these"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fills a file system but for some bytes."""
    filler = folder / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - leave)))
    return filler


def fill_before_saving(step: int, folder: str) -> None:
    """Has another program take all the space but 6 kB just before the checkpoint of `step`."""
    save = CheckpointFolder.save

    def crowded(self: CheckpointFolder, at: int, *rest: Any) -> None:
        if at == step:
            fill(Path(folder), 6_000)
        save(self, at, *rest)

    CheckpointFolder.save = crowded  # type: ignore[method-assign]


def test_a_disk_that_fills_in_the_middle_of_a_save_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    words = [*words_of("gan", tmp_path), "trainer.steps=6", "trainer.checkpoint_every=2"]
    whole, run = tmp_path / "whole", small_disk / "run"
    train(whole, *words)
    code, said = aigc(
        "train", f"run_dir={run}", *words, folder=tmp_path,
        before=functools.partial(fill_before_saving, 4, str(small_disk)),
    )  # fmt: skip
    assert code == 5, said
    assert f"cannot write {run}" in said
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert steps(run) == [2]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-2"]
    (small_disk / "filler").unlink()
    resume(run)
    assert hashes(run) == hashes(whole)


def test_a_disk_without_room_for_checkpoints_is_told_before_the_first_step(small_disk: Path, tmp_path: Path) -> None:
    fill(small_disk, 60_000)
    run = small_disk / "run"
    code, said = aigc("train", f"run_dir={run}", *words_of("gan", tmp_path), folder=tmp_path)
    assert code == 5, said
    assert "a checkpoint takes about" in said
    assert not steps(run)


def limit_files(size: int) -> None:
    """Lets this process write no file larger than `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_limit_on_the_size_of_files_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, said = aigc(
        "train", "run_dir=run", *words_of("gan", tmp_path), folder=tmp_path,
        before=functools.partial(limit_files, 15_000),
    )  # fmt: skip
    assert code == 5, said
    assert "File too large" in said
    assert "Traceback" not in said
    assert not list((run / "checkpoints").iterdir())


def test_a_folder_that_is_read_only_is_told_before_training(small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    code, said = aigc("train", f"run_dir={small_disk / 'run'}", *words_of("gan", tmp_path), folder=tmp_path)
    assert code == 5, said
    assert "read-only" in said.lower()
    assert "training:" not in said


@pytest.mark.parametrize("errno", ["ENOSPC", "EDQUOT", "EROFS", "EACCES"])
def test_a_save_that_fails_at_any_of_its_files_leaves_nothing(
    tmp_path: Path, errno: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno as numbers

    import torch

    from aigc_cli.training import checkpoint

    folder = CheckpointFolder(tmp_path / "checkpoints")
    tensors = {"model": {"w": torch.ones(3)}, "optimizer": {"main/w/step": torch.ones(1)}}
    folder.save(1, tensors, {"step": 1})
    number = getattr(numbers, errno)

    def failing(act: Callable[..., Any], at: int) -> Callable[..., Any]:
        calls = iter(range(at + 1))

        def failed(*arguments: Any, **options: Any) -> Any:
            if next(calls, None) == at:
                raise OSError(number, os.strerror(number))
            return act(*arguments, **options)

        return failed

    for name, count in {"write_tensors": 2, "sync": 4, "write_json": 2, "checksum": 3}.items():
        for at in range(count):
            with monkeypatch.context() as patch:
                patch.setattr(checkpoint, name, failing(getattr(checkpoint, name), at))
                with pytest.raises(ResourceError, match="cannot write"):
                    folder.save(2, tensors, {"step": 2})
            assert folder.steps() in ([1], [1, 2])
            assert not list(folder.path.glob(".tmp*"))
            assert folder.load_newest() is not None
            shutil.rmtree(folder.folder(2), ignore_errors=True)
