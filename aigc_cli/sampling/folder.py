"""The folder that samples land in: what may be replaced there, and how it fills without a half-written moment."""

from __future__ import annotations

import errno
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aigc_cli.errors import AigcError, ConfigError, ResourceError
from aigc_cli.files import hint_for
from aigc_cli.modalities.samples import RECORD, Provenance, read_record, recorded_files

_ELSEWHERE = "choose another folder with out="
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)


def check_replaceable(out: Path, provenance: Provenance, n: int, overwrite: bool) -> None:
    """Holds that writing `n` samples into `out` loses nothing that a person may want.

    An empty or missing folder will do, and one that holds at most `n` samples of the same provenance and nothing else,
    as they will be the same again. Any other takes `overwrite`, which replaces files of the same name and those of an
    earlier sampling, and no others.

    Raises:
        ConfigError: `out` holds something else.
        ResourceError: `out` cannot be read.
    """
    try:
        entries = {entry.name for entry in out.iterdir() if not entry.name.startswith(".")}
    except FileNotFoundError:
        return
    except OSError as error:
        raise _translated(error, out) from error
    if overwrite or not entries:
        return
    record = read_record(out)
    foreign = entries - (recorded_files(record) if record else set()) - {RECORD}
    hint = f"{_ELSEWHERE}, or replace what is there with overwrite=true"
    if record is None or foreign:
        example = sorted(foreign or entries)[0]
        raise ConfigError(f"out={out} is not empty: it holds {example}, which aigc sample did not record there", hint)
    differs = [key for key, value in provenance.identity().items() if record.get(key) != value]
    if differs:
        raise ConfigError(f"out={out} holds samples of another {' and '.join(differs)}", hint)
    held = record.get("n")
    if not isinstance(held, int) or held > n:
        raise ConfigError(f"out={out} holds {held} samples, of which these {n} are the first", hint)


@contextmanager
def filling(out: Path) -> Iterator[Path]:
    """A temporary folder whose files, :data:`RECORD` among them, become those of `out` when the block ends well.

    A new `out` appears whole, by one rename. An existing one receives its files one by one, the record last.
    Whatever ends the block otherwise leaves `out` as it was.

    Raises:
        ConfigError: `out` is not a folder.
        ResourceError: the disk is full, or `out` cannot be written.
    """
    fresh = not out.exists()
    made = [parent for parent in out.parents if not parent.exists()] if fresh else []
    prefix = f".{out.name}.partial-" if fresh else ".partial-"
    home = out.parent if fresh else out
    staging = home / f"{prefix}{platform.node()}-{os.getpid()}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        _sweep(home, prefix)
        staging.mkdir()
        yield staging
        if fresh:
            staging.rename(out)
        else:
            _move_into(out, staging)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise _translated(error, out) from error
        raise


def _move_into(out: Path, staging: Path) -> None:
    old, new = read_record(out), read_record(staging)
    assert new is not None, "the block writes the record"
    names = recorded_files(new)
    if old is not None and old.get("model_checksum") != new.get("model_checksum"):
        (out / RECORD).unlink()  # it would lie about the files that have been replaced, were we killed here
    for name in sorted(names):
        os.replace(staging / name, out / name)
    for stale in recorded_files(old or {}) - names:
        (out / stale).unlink(missing_ok=True)
    os.replace(staging / RECORD, out / RECORD)
    staging.rmdir()


def _sweep(home: Path, prefix: str) -> None:
    """Removes what processes of this machine that no longer live left under `prefix`."""
    prefix += f"{platform.node()}-"
    for entry in home.iterdir():
        pid = entry.name.removeprefix(prefix)
        if entry.name.startswith(prefix) and pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(entry, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name != "posix" or pid == os.getpid():  # signal 0 asks only on POSIX; our own leftover is from a namesake
        return os.name != "posix"
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True


def _translated(error: OSError, out: Path) -> AigcError:
    why = error.strerror or str(error)
    if error.errno in _TAKEN:
        return ConfigError(f"out={out} cannot be made: {why}", _ELSEWHERE)
    return ResourceError(f"the samples cannot be written to {out}: {why}", hint_for(error, "with out="))
