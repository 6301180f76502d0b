"""What files that a user names have in common, whatever is in them: which are read, and which stand for all."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from aigc_cli.errors import DataError
from aigc_cli.files import walk_files
from aigc_cli.modalities.base import Items
from aigc_cli.modalities.samples import not_samples
from aigc_cli.randomness import permutation


class FileItems(Items):
    """Items that can be had in any order: all of a file or folder, or some of them."""

    held: Sequence[Any] | np.ndarray  # what each is read from, in order

    @property
    def called(self) -> str:  # type: ignore[override]
        """How many, and where they are."""
        return f"{len(self):,} {self.modality.noun[1]} of {self.facts.get('folder', self.facts.get('file'))}"

    def __len__(self) -> int:
        return len(self.held)

    def few(self, n: int) -> Tensor:
        """Drawn by a permutation that depends on the numbers alone.

        Files of one class stand together as a rule, so that the first few would be of one class.
        """
        return torch.from_numpy(permutation(len(self), "files", n)[:n]).sort().values

    def take(self, n: int) -> Self:
        """`n` that stand for all, in their order; raises DataError where there are fewer."""
        if n > len(self):
            raise DataError(f"n={n}: there are {len(self)} {self.modality.noun[1]}", f"use n={len(self)}, or no n=")
        return self.changed(f"drawn {n}", held=[self.held[place] for place in self.few(n).tolist()])

    def changed(self, how: str, **attributes: Any) -> Self:
        """The same with other attributes, and a key that says how."""
        other = copy(self)
        vars(other).update(key=None if self.key is None else f"{self.key}/{how}", **attributes)
        return other


def files_below(folder: Path) -> tuple[list[Path], list[Path]]:
    """All files below a folder, by name, and those of them that are not the overview or the originals of samples."""
    found = sorted(path for _, path in walk_files(folder))
    left_out = {parent: not_samples(parent) for parent in {path.parent for path in found}}
    return found, [path for path in found if path.name not in left_out[path.parent]]
