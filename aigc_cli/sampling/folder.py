"""The folder that samples land in: what may be replaced there, and how it fills without a half-written moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aigc_cli.errors import AigcError, ConfigError, ResourceError
from aigc_cli.files import hint_for, new_folder, temporary_folder, write_json
from aigc_cli.locks import writing_alone
from aigc_cli.modalities.samples import INCOMPLETE, RECORD, Provenance, read_record, recorded_files

_PLACE = "with out="
_ELSEWHERE = f"choose another folder {_PLACE}"
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
    if not record.get(INCOMPLETE) and (not isinstance(held, int) or held > n):
        raise ConfigError(f"out={out} holds {held} samples, of which these {n} are the first", hint)


@contextmanager
def filling(out: Path, check: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """A temporary folder whose files, :data:`RECORD` among them, become those of `out` when the block ends well.

    A new `out` appears whole, by one rename. An existing one receives its files one by one, the record last; until then
    its record says that it is incomplete. Whatever ends the block otherwise leaves `out` as it was. Only one command
    writes to it at a time; `check` is called when that is sure.

    Raises:
        ConfigError: `out` is not a folder, or another command is writing to it.
        ResourceError: the disk is full, or `out` cannot be written.
    """
    there = out.is_dir()
    try:
        with writing_alone(out, _PLACE, inside=there):
            check()
            with temporary_folder(out / RECORD) if there else new_folder(out) as staging:
                yield staging
                if there:
                    _move_into(out, staging)
    except OSError as error:
        raise _translated(error, out) from error


def _move_into(out: Path, staging: Path) -> None:
    new, names = read_record(staging), recorded_files(read_record(out) or {})
    assert new is not None, "the block writes the record"
    kept = recorded_files(new)
    # Were we killed from here on, it tells whose files are there, and that they are not a set.
    write_json(out / RECORD, {**new, "files": sorted(kept | names), "overview": [], INCOMPLETE: True})
    for name in sorted(kept):
        os.replace(staging / name, out / name)
    for stale in names - kept:
        (out / stale).unlink(missing_ok=True)
    os.replace(staging / RECORD, out / RECORD)


def _translated(error: OSError, out: Path) -> AigcError:
    why = error.strerror or str(error)
    if error.errno in _TAKEN:
        return ConfigError(f"out={out} cannot be made: {why}", _ELSEWHERE)
    return ResourceError(f"the samples cannot be written to {out}: {why}", hint_for(error, "with out="))
