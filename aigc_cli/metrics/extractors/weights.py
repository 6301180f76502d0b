"""Files of a network's weights: where they are looked for, and how they are read without running anything in them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from aigc_cli import files
from aigc_cli.errors import DataError


def load_weights(path: Path, hint: str, *, named_by_sum: bool = False) -> tuple[str, dict[str, Tensor]]:
    """SHA-256 and tensors of a file of weights, ``.pth`` or ``.safetensors``; nothing in it is executed.

    Args:
        path: The file.
        hint: What the user is told to do where it cannot be used.
        named_by_sum: Whether its name ends in the first digits of its SHA-256, as those do that we look for ourselves.

    Raises:
        DataError: it is missing, cut short, corrupt, or holds no plain tensors by name.
    """
    if not path.is_file():
        raise DataError(f"there is no file of weights at {path}", hint)
    checksum = files.checksum(path)
    promised = path.stem.rsplit("-", 1)[-1]
    if named_by_sum and not checksum.startswith(promised):
        raise DataError(f"{path} is corrupt: its SHA-256 begins with {checksum[:8]}, not {promised}", hint)
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd pickles, which are refused anyway
                state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # an unpickler raises whatever a crafted file makes it trip over
        told = "" if isinstance(error, LookupError) else " ".join(str(error).split())[:120]  # a bare key tells nobody
        reason = told or "it is not a file of tensors"
        raise DataError(f"{path} cannot be read as weights: {reason}", hint) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} holds no weights by name", hint)
    odd = [name for name, value in state.items() if not _is_plain(value)]
    if odd:
        raise DataError(f"{path} holds {odd[0]} as a tensor that is sparse, quantized or without values", hint)
    bad = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise DataError(f"{path} holds NaN or infinite weights in {bad[0]}", hint)
    return checksum, state


def misfit(what: str, error: Exception, hint: str) -> DataError:
    """The error of weights that are not those of the network `what`."""
    first = " ".join(line.strip() for line in str(error).splitlines()[:2])
    return DataError(f"the weights do not fit {what}: {first[:300]}", hint)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def weight_folders() -> list[Path]:
    """Where the weights are looked for, best first: our cache, then torch hub's."""
    from aigc_cli.data.cache import cache_dir

    return [cache_dir() / "weights", Path(torch.hub.get_dir()) / "checkpoints"]


def short_path(path: Path) -> str:
    """The path as a person writes it, with ``~`` for the home folder."""
    return str(path).replace(os.path.expanduser("~"), "~", 1)
