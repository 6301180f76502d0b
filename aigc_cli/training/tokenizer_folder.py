"""The folder of a tokenizer: what is in it, and where it waits for the runs that take a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from aigc_cli.config.schema import save_yaml
from aigc_cli.data.tokens import tokenizers_folder
from aigc_cli.files import checksum, resource_errors, temporary_folder, write_atomically, write_json
from aigc_cli.modalities.base import Codec, DataSpec
from aigc_cli.modalities.token_codec import MANIFEST, WEIGHTS, is_whole
from aigc_cli.training.checkpoint import write_tensors


def placed(name: str, write: Callable[[Path], object]) -> str:
    """Puts the tokenizer that `write` writes into a folder where new runs find it; the SHA-256 of its manifest."""
    root = tokenizers_folder()
    with resource_errors(root, "with AIGC_CACHE"):
        root.mkdir(parents=True, exist_ok=True)
        with temporary_folder(root / name) as folder:
            write(folder)
            found = checksum(folder / MANIFEST)
            if not is_whole(root / found, found):  # a cache may have been cleaned in part
                shutil.rmtree(root / found, ignore_errors=True)
                try:
                    folder.rename(root / found)
                except OSError:
                    if not (root / found).is_dir():  # else another job of a sweep was first
                        raise
    return found


def write_tokenizer(folder: Path, about: Mapping[str, Any], spec: DataSpec, codec: Codec, model: nn.Module) -> None:
    """Writes the folder of a tokenizer, its manifest last; `about` is its ``config.yaml``."""
    save_yaml(folder / "config.yaml", about)
    write_json(folder / "data.json", asdict(spec))
    for name, content in codec.files().items():
        write_atomically(folder / name, content)
    write_tensors(folder / WEIGHTS, model.state_dict())
    write_json(folder / MANIFEST, {path.name: checksum(path) for path in sorted(folder.iterdir())})
