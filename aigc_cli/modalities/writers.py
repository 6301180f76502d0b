"""What writes samples to files, and the writer that every modality has: of one NumPy array."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, ClassVar

import numpy as np
import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, suggest
from aigc_cli.files import replacing
from aigc_cli.modalities.base import Codec, Writer, modality
from aigc_cli.modalities.samples import LABEL, Arrangement

#: The format that stands for the usual one of a modality.
AUTO = "auto"
ARCHIVE = "samples.npz"


class ArrayWriter(Writer):
    """All samples in one archive: ``numpy.load("samples.npz")["samples"]`` is (n, ...).

    Where classes are known there are also ``labels``, int64 (n,), and ``classes``, the names that they number. The
    samples' header and rows go straight into the archive, so memory holds one batch. Nothing in it is pickled.
    """

    preview_suffix = ".npz"
    #: What the array is called.
    array: ClassVar[str] = "samples"
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
            self._rows = self._begin(rows)
        self._rows.write(rows.data)

    def _begin(self, rows: np.ndarray) -> IO[bytes]:
        archive = self.open.enter_context(zipfile.ZipFile(self.folder / ARCHIVE, "w"))
        archive.comment = self.provenance.sentence().encode()[:65535]
        _add_classes(archive, self.arrangement)
        entry = self.open.enter_context(archive.open(_entry(self.array), "w", force_zip64=True))
        descr = np.lib.format.dtype_to_descr(rows.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.arrangement.n, *rows.shape[1:])}
        np.lib.format.write_array_header_1_0(entry, header)
        return entry

    def end(self) -> tuple[list[str], list[str]]:
        """See :meth:`Writer.end`."""
        return [ARCHIVE], []

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
    """The writer of a modality's format, and the format's name, which for "auto" is the modality's usual one.

    Raises:
        ConfigError: the modality has no such format.
    """
    writers = modality(name).writers or {"npz": ArrayWriter}
    if format != AUTO and format not in writers:
        raise ConfigError(f"format={format}: {name} samples cannot be written in this format", suggest(format, writers))
    found = next(iter(writers)) if format == AUTO else format
    return found, writers[found]
