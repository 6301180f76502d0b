"""Which items each split holds: those of a part that is named after it, or what is cut off the training part.

Nothing here depends on a run's seed or settings: scores compare, and a model is never measured on what another run of
the same data was trained on. Of what is cut by a permutation or a hash, the test part does not depend on `val` either,
so that it stays held out when someone chooses another share for validation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import SPLITS, Split
from aigc_cli.errors import ConfigError
from aigc_cli.randomness import permutation

Fraction = Annotated[float, Field(ge=0, lt=1)]
#: The words that files and folders of a split are named with.
SPLIT_WORDS: Mapping[str, Split] = {
    "train": "train", "training": "train", "test": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
}  # fmt: skip


class Cut(NamedTuple):
    """The fractions of a source that are held out."""

    val: float = 0.0
    test: float = 0.0


NO_CUT = Cut()


@dataclass(config=STRICT, frozen=True, kw_only=True)
class CutConfig:
    """How much is held out where a source has no splits of its own."""

    val_fraction: Fraction
    test_fraction: Fraction

    @model_validator(mode="after")
    def _leave_some(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError("val_fraction and test_fraction leave nothing to train on")
        return self

    @property
    def cut(self) -> Cut:
        """The fractions."""
        return Cut(self.val_fraction, self.test_fraction)


def split_named(name: str) -> Split | None:
    """The split that the first word of a file's name stands for."""
    word = re.match("[a-z]*", name.lower())
    return SPLIT_WORDS.get(word[0] if word else "")


def parts_by(words: Sequence[Split | None]) -> dict[Split, list[int]]:
    """Where the items of each split lie, as a word of each says; no parts where none of them is for training."""
    found = {split: [place for place, word in enumerate(words) if word == split] for split in SPLITS if split in words}
    return found if "train" in found else {}


def parts_named(names: Sequence[str]) -> dict[Split, list[int]]:
    """Where the files of each split lie among `names`, as their first words say.

    No parts where none begins with train, or where that is the only word and other files have none: a log of
    somebody's training is not a split.
    """
    words = [split_named(name) for name in names]
    found = parts_by(words)
    return {} if len(found) == 1 and None in words else found


def part_for(split: Split, parts: Collection[Split], cut: Cut) -> tuple[Split, Cut]:
    """The part of a source that `split` comes out of, and what of it is held out for splits without a part.

    `parts` are those that the source has itself, "train" among them; or none where it is one whole, which `cut` is of.
    """
    if split != "train" and split in parts:
        return split, NO_CUT
    return "train", Cut(0.0 if "val" in parts else cut.val, 0.0 if "test" in parts else cut.test)


def rows_of(split: Split, n: int, cut: Cut, name: str) -> np.ndarray:
    """The rows of `split`, ascending: `n` items are cut by a permutation that is the dataset's own, by its `name`;
    raises ConfigError where the fractions leave nothing for `split`."""
    order = permutation(n, "split", name)
    tests, vals = round(n * cut.test), round(n * cut.val)
    parts = {"test": order[:tests], "val": order[tests : tests + vals], "train": order[tests + vals :]}
    if not len(parts[split]):
        raise empty(split, name, cut, n, "images")
    return np.sort(parts[split])


def names_of(split: Split, names: Sequence[str], cut: Cut, where: str) -> list[str]:
    """The `names` that belong to `split`, sorted: a hash of each decides, so that others may come and go.

    Each part whose fraction is not zero gets at least one, if there are three names or more. Raises ConfigError where
    the fractions leave nothing for `split`.
    """
    place = {name: place_of(name) for name in names}
    order = sorted(names, key=lambda name: place[name])
    least = 1 if len(names) >= 3 else 0
    tests = sum(place[name] < cut.test for name in names)
    vals = sum(cut.test <= place[name] < cut.test + cut.val for name in names)
    tests = max(tests, least) if cut.test else 0
    vals = max(vals, least) if cut.val else 0
    parts = {"test": order[:tests], "val": order[tests : tests + vals], "train": order[tests + vals :]}
    if not parts[split]:
        raise empty(split, where, cut, len(names), "pictures")
    return sorted(parts[split])


def places_of(split: Split, cut: Cut) -> tuple[float, float]:
    """The bounds, in [0, 1], between which the hashes (:func:`place_of`) of the items of `split` lie."""
    held_out = cut.test + cut.val
    return {"test": (0.0, cut.test), "val": (cut.test, held_out), "train": (held_out, 1.0)}[split]


def positions_of(split: Split, total: int, cut: Cut) -> tuple[int, int]:
    """The bounds, in [0, total], of `split` in a source whose end is held out: training, then validation, then test."""
    train, val = int(total * (1 - cut.val - cut.test)), int(total * (1 - cut.test))
    return {"train": (0, train), "val": (train, val), "test": (val, total)}[split]


def place_of(*parts: str) -> float:
    """A hash of some text, or of a file's name, uniform in [0, 1)."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def empty(split: Split, where: str, cut: Cut, total: int, unit: str) -> ConfigError:
    """The error of a split that a cut leaves nothing; `unit` is what `total` counts."""
    return ConfigError(
        f"the {split} split of {where} is empty: data.val_fraction={cut.val:g} and data.test_fraction={cut.test:g} of "
        f"{total} {unit} leave it nothing",
        f"change the fractions, or use more {unit}",
    )
