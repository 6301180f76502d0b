"""Arrays in ``.npz`` files: samples are written as one, and what anyone's hold is read.

Nothing in a file is run, and none grows to fill the memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError, ResourceError, suggest
from aigc_cli.files import replacing
from aigc_cli.modalities.base import Codec, Writer, modality
from aigc_cli.modalities.samples import LABEL, Arrangement

AUTO = "auto"  # the format that stands for the usual one of a modality
ARCHIVE = "samples.npz"
#: An array above the first may not be so many times larger than it is packed; pictures never are, what is made to fill
#: the memory of whoever opens it is.
_MOST_BYTES, _MOST_RATIO = 2**30, 100


class ArrayWriter(Writer):
    """All samples in one archive: ``numpy.load("samples.npz")["samples"]`` is (n, ...).

    Where classes are known there are also ``labels``, int64 (n,), and ``classes``, the names that they number. The
    samples' header and rows go straight into the archive, so memory holds one batch. Nothing in it is pickled.
    """

    preview_suffix = ".npz"
    array: ClassVar[str] = "samples"  # what the array is called
    _rows: IO[bytes] | None = None

    @classmethod
    def rows(cls, raw: Tensor) -> np.ndarray:
        """Raw content (b, ...) as it lies in the array."""
        found: np.ndarray = raw.contiguous().numpy()
        return found

    def put(self, raw: Tensor) -> None:
        """See :meth:`Writer.put`."""
        rows = self.rows(raw)
        if self._rows is None:
            archive = self.open.enter_context(zipfile.ZipFile(self.folder / ARCHIVE, "w"))
            archive.comment = self.provenance.sentence().encode()[:65535]
            _add_classes(archive, self.arrangement)
            self._rows = self.open.enter_context(archive.open(_entry(self.array), "w", force_zip64=True))
            descr, shape = np.lib.format.dtype_to_descr(rows.dtype), (self.arrangement.n, *rows.shape[1:])
            np.lib.format.write_array_header_1_0(self._rows, {"descr": descr, "fortran_order": False, "shape": shape})
        self._rows.write(rows.data)

    def end(self) -> tuple[list[str], list[str]]:
        """See :meth:`Writer.end`."""
        return [ARCHIVE], []

    def add(self, name: str, array: np.ndarray) -> None:
        """Adds an array beside the samples, once these are written."""
        with zipfile.ZipFile(self.folder / ARCHIVE, "a") as archive:
            _add(archive, name, array)

    @classmethod
    def preview(cls, path: Path, batches: Iterable[Tensor], arrangement: Arrangement, codec: Codec, title: str) -> None:
        """Writes the same archive."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
            archive.comment = f"{LABEL}, {title}".encode()[:65535]
            _add_classes(archive, arrangement)
            _add(archive, cls.array, cls.rows(torch.cat(list(batches)).cpu()))


def _add_classes(archive: zipfile.ZipFile, arrangement: Arrangement) -> None:
    if arrangement.labels is not None:
        _add(archive, "labels", np.asarray(arrangement.labels, dtype=np.int64))
        _add(archive, "classes", np.asarray(arrangement.classes, dtype=np.str_))


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy")  # it has a fixed date, so that the same samples are the same bytes


def _add(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    with archive.open(_entry(name), "w") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def find_writer(name: str, format: str = AUTO) -> tuple[str, type[Writer]]:
    """The writer of a modality's format, and the format's name, which for "auto" is the modality's usual one; raises
    ConfigError where the modality has no such format."""
    writers = modality(name).writers or {"npz": ArrayWriter}
    if format != AUTO and format not in writers:
        raise ConfigError(f"format={format}: {name} samples cannot be written in this format", suggest(format, writers))
    found = next(iter(writers)) if format == AUTO else format
    return found, writers[found]


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a file; none where it is no ``.npz``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []


def read_arrays(path: Path, names: Iterable[str], what: str, hint: str) -> dict[str, np.ndarray]:
    """The arrays `names` of a ``.npz`` file, as far as it has them; `what` they are to be read as is for the message;
    raises DataError where it is broken, holds objects, or unpacks to far more than it is, and ResourceError where it
    does not fit in memory."""
    refused = f"{path} cannot be read as {what}"
    if not zipfile.is_zipfile(path):
        raise DataError(f"{refused}: it is not an .npz archive, or is cut short", hint)
    try:
        with zipfile.ZipFile(path) as archive:
            swollen = [info for info in archive.infolist() if info.file_size > _MOST_BYTES]
        for info in swollen:
            if info.file_size > _MOST_RATIO * info.compress_size:
                raise DataError(f"{refused}: {info.filename} unpacks to {info.file_size:,} bytes", hint)
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in names if name in file.files}
    except DataError:
        raise
    except MemoryError as error:
        raise ResourceError(f"{path} does not fit in memory: {error}", "give fewer images") from None
    except Exception as error:  # NumPy's reader raises whatever a broken header makes it trip over
        raise DataError(f"{refused}: {str(error) or type(error).__name__}", hint) from None
