"""``aigc`` in processes of its own that start at once: they are forked from one that has imported everything.

Each is a process like any other, to be killed, limited and waited for; only the seconds of importing torch are saved.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aigc_cli.files import checksum

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "aigc_cli.commands.train", "aigc_cli.config.compose", "aigc_cli.data.published_images", "aigc_cli.data.text",
        "aigc_cli.data.image_folder", "aigc_cli.models.gan.gan", "aigc_cli.models.vae.vae",
        "aigc_cli.models.transformer", "aigc_cli.models.bert", "aigc_cli.modalities.image_writers", "sklearn.datasets",
    ]
)  # fmt: skip

#: How long anything may take, in seconds, on however busy a machine.
PATIENCE = 300.0


class Child:
    """One command line in a process of its own; what it says goes to a file."""

    def __init__(self, words: Sequence[str], folder: Path, before: Callable[[], object] | None = None) -> None:
        """Starts in `folder`; `before` is called in the child first, to limit or to instrument it."""
        self.log = folder / f"said-{time.monotonic_ns()}.txt"
        self.process = _CONTEXT.Process(target=_run, args=(list(words), str(folder), str(self.log), before))
        self.process.start()

    @property
    def said(self) -> str:
        """All that it has said so far, on either stream."""
        return self.log.read_text(errors="replace") if self.log.is_file() else ""

    def wait(self) -> int:
        """Waits for its end: the exit code, negative where a signal killed it."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it did not end: {self.said}")
        return int(self.process.exitcode)

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, unless it has ended."""
        if self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, number)

    def wait_for(self, there: Callable[[], object]) -> None:
        """Waits until something is true, or it has ended."""
        self.wait_until(lambda: not self.process.is_alive() or there())

    def wait_until(self, there: Callable[[], object]) -> None:
        """Waits until something is true, whether it has ended or not."""
        end = time.monotonic() + PATIENCE
        while not there():
            assert time.monotonic() < end, f"it did not come to that: {self.said}"
            time.sleep(0.002)


def _run(words: list[str], folder: str, log: str, before: Callable[[], object] | None) -> None:
    os.chdir(folder)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["aigc", *words]
    multiprocessing.set_start_method("fork", force=True)  # for its own workers, as in a process that was not forked
    if before is not None:
        before()
    from aigc_cli.cli import main
    from aigc_cli.training.journal import Journal

    Journal.draw = lambda _: None  # type: ignore[method-assign]  # most of the time of so short a run
    raise SystemExit(main(words))


def aigc(*words: str, folder: Path, before: Callable[[], object] | None = None) -> tuple[int, str]:
    """Runs one command line to its end: its exit code, and what it said."""
    child = Child(words, folder, before)
    return child.wait(), child.said


def die_at(event: str, name: str, number: int) -> None:
    """Kills this process at the `number`-th of the interpreter's audited events, such as ``os.rename``, or as ``open``
    for writing, that has `name` in a path."""
    left = [number]

    def audit(what: str, arguments: tuple[Any, ...]) -> None:
        if what == event and any(name in str(argument) for argument in arguments[:2]):
            left[0] -= event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/statm").is_file(), reason="needs /proc to tell how much memory is in use"
)


def without_memory(more: int) -> None:
    """Leaves this process `more` bytes of address space beyond what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def train(run: Path, *words: str) -> str:
    """Trains `run` to its end, in its parent folder; what was said."""
    code, said = aigc("train", f"run_dir={run.name}", *words, folder=run.parent)
    assert code == 0, said
    return said


def resume(run: Path, *words: str) -> str:
    """Goes on with `run` to its end; what was said."""
    code, said = aigc("train", "--resume", str(run), *words, folder=run.parent)
    assert code == 0, said
    return said


def steps(run: Path) -> list[int]:
    """The steps that have a checkpoint."""
    return sorted(int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*"))


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of each file of tensors in the newest checkpoint."""
    newest = run / "checkpoints" / f"step-{steps(run)[-1]}"
    return {path.name: checksum(path) for path in newest.glob("*.safetensors")}
