"""A new run directory: where it lies, and how it appears, whole or not at all."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aigc_cli.errors import ConfigError
from aigc_cli.files import check_writable, new_folder, path_of, replacing, resource_errors
from aigc_cli.runs import Run

#: The system's numbers for a folder that nothing can be renamed to: a disk is mounted there, or it lies in others'.
_IN_PLACE = (errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS)


def create_run(config: dict[str, Any], begin: Callable[[Run], object] = lambda run: None) -> Run:
    """A new run directory, at ``run_dir`` or under ``outputs``; two runs never share one.

    It appears with all that `begin` writes into it, which also may lock it, or not at all; ``latest`` is the run then.

    Raises:
        ConfigError: ``run_dir`` exists and is not empty.
        ResourceError: it cannot be written.
    """
    root = Path(config["outputs"])
    check_writable(root)
    if config["run_dir"] is not None:
        path = path_of(config["run_dir"]).absolute()
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            resumable = (path / "config.yaml").exists()
            hint = f"resume it with `aigc train --resume {Run(path).word}`, or name " if resumable else "name "
            raise ConfigError(f"run_dir={config['run_dir']} exists and is not empty", hint + "another folder")
        check_writable(path)
    else:
        path = stamped_folder(root.absolute() / f"{config['model']['name']}-{config['data']['name']}")
    run = Run(path)
    with resource_errors(path):
        try:
            with new_folder(path) as folder:
                run.path = folder
                begin(run)
        except BaseException as error:
            if not isinstance(error, OSError) or error.errno not in _IN_PLACE or config["run_dir"] is None:
                with suppress(OSError):
                    path.rmdir()  # the empty one that has kept the name for it
                raise
            run.path = path
            begin(run)
        run.path = path
        root.mkdir(parents=True, exist_ok=True)
        point_latest(root / "latest", path)
    return run


def stamped_folder(parent: Path) -> Path:
    """A new folder under `parent`, named by the time; two that are made in the same second never share one."""
    with resource_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        for attempt in range(10_000):
            path = parent / (stamp if attempt == 0 else f"{stamp}-{attempt}")
            with suppress(FileExistsError):
                path.mkdir()  # fails where another process was first
                return path
    raise AssertionError("ten thousand folders in one second")


def point_latest(link: Path, target: Path) -> None:
    """Makes `link` lead to the run at `target`, at once for whoever reads it meanwhile."""
    with replacing(link) as part:
        part.symlink_to(os.path.relpath(target.resolve(), link.parent.resolve()), target_is_directory=True)
