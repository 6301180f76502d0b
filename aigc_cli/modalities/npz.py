"""Arrays out of ``.npz`` files from anyone: nothing in them is run, and none grows to fill the memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aigc_cli.errors import DataError, ResourceError

#: An array above the first may not be so many times larger than it is packed; pictures never are, what is made to fill
#: the memory of whoever opens it is.
_MOST_BYTES, _MOST_RATIO = 2**30, 100


def array_names(path: Path) -> list[str]:
    """The names of the arrays in a file; none where it is no ``.npz``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return []


def read_arrays(path: Path, names: Iterable[str], what: str, hint: str) -> dict[str, np.ndarray]:
    """The arrays `names` of a ``.npz`` file, as far as it has them.

    Args:
        path: The file.
        names: Of the arrays.
        what: They are to be read as, for the message.
        hint: What the user is told to do where they cannot be.

    Raises:
        DataError: it is broken, holds objects, or unpacks to far more than it is.
        ResourceError: it does not fit in memory.
    """
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
