"""Files of tensors, as safetensors writes them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors of any device, which may share memory.

    Raises:
        OSError: no space, or no permission.
    """
    try:
        save_file(_unshared(tensors), path)
    except SafetensorError as error:
        raise _as_os_error(error) from error


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in this machine's memory, no two in one place as tied weights are, which is refused."""
    own: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        here = tensor.detach().cpu().contiguous()
        place = here.untyped_storage().data_ptr()
        own[name] = here.clone() if place in places else here
        places.add(place)
    return own


def _as_os_error(error: SafetensorError) -> OSError | SafetensorError:
    # safetensors reports the operating system's errors as text: "... (os error 28)"
    match = re.search(r"os error (\d+)", str(error))
    if match is None:
        return error
    number = int(match[1])
    return OSError(number, os.strerror(number))
