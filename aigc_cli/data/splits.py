"""Which items each split holds: those of a part that is named after it, or what is cut off the training part.

Nothing here depends on a run's seed or settings: scores compare, and a model is never measured on what another run of
the same data was trained on. Of what is cut by a permutation or a hash, the test part does not depend on `val` either,
so that it stays held out when someone chooses another share for validation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import SPLITS, Split
from aigc_cli.errors import ConfigError
from aigc_cli.files import some_of
from aigc_cli.randomness import permutation

Fraction = Annotated[float, Field(ge=0, lt=1)]
#: The words that files and folders of a split are named with; the hub's own readers take `eval` for a test part too.
SPLIT_WORDS: Mapping[str, Split] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "validate": "val", "validating": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test", "holdout": "test", "heldout": "test",
}  # fmt: skip


class Cut(NamedTuple):
    """The fractions of a source that are held out."""

    val: float = 0.0
    test: float = 0.0


NO_CUT = Cut()
NO_COPIES: Mapping[int, int] = MappingProxyType({})


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


def split_word(name: str) -> Split | None:
    """The split that a file or folder is plainly named after: its word, perhaps with numbers, such as
    ``train-00000-of-00002.parquet``, and nothing more."""
    found = re.fullmatch(r"([a-z]+|held[-_]out)(?:[-_. ]?(?:\d+|of))*(?:\.\w+)*", name.lower())
    return SPLIT_WORDS.get(re.sub("[-_]", "", found[1])) if found else None


def split_named(name: str) -> Split | None:
    """The split that a file within a folder belongs to, as its path says: the first part that is plainly named after
    one, else the first word of the whole, else of the file's own name."""
    parts = name.split("/")
    plain = next((word for word in map(split_word, parts) if word), None)
    words = (SPLIT_WORDS.get(re.match("[a-z]*", part.lower())[0]) for part in (name, parts[-1]))  # type: ignore[index]
    return plain or next((word for word in words if word), None)


def parts_by(words: Sequence[Split | None]) -> dict[Split, list[int]]:
    """Where the items of each split lie, as a word of each says; no parts where none of them is for training."""
    found = {split: [place for place, word in enumerate(words) if word == split] for split in SPLITS if split in words}
    return found if "train" in found else {}


def parts_named(names: Sequence[str]) -> dict[Split, list[int]]:
    """Where the files of each split lie among `names`, as those say.

    No parts where none says train, or where none says anything else and some say nothing, unless one says plainly
    train and nothing more: a log of somebody's training is not a split.
    """
    words = [split_named(name) for name in names]
    found = parts_by(words)
    plainly = any(split_word(part) == "train" for name in names for part in name.split("/"))
    return {} if len(found) == 1 and None in words and not plainly else found


def left_out(names: Sequence[str], parts: Mapping[Split, Sequence[int]]) -> list[str]:
    """A line about the files beside those of the splits, which belong to none and are never merged with one."""
    taken = {place for part in parts.values() for place in part}
    left = [name for place, name in enumerate(names) if place not in taken] if parts else []
    return [f"the splits are what is named after {' and '.join(parts)}; left out: {some_of(left)}"] if left else []


def part_for(split: Split, parts: Collection[Split], cut: Cut) -> tuple[Split, Cut]:
    """The part of a source that `split` comes out of, and what of it is held out for splits without a part.

    `parts` are those that the source has itself, "train" among them; or none where it is one whole, which `cut` is of.
    """
    if split != "train" and split in parts:
        return split, NO_CUT
    return "train", Cut(0.0 if "val" in parts else cut.val, 0.0 if "test" in parts else cut.test)


def rows_of(split: Split, n: int, cut: Cut, name: str, same: Mapping[int, int] = NO_COPIES) -> np.ndarray:
    """The rows of `split`, ascending: `n` items are cut by a permutation that is the dataset's own, by its `name`.

    `same` has the row of each copy with that of the item which it copies: they are always in one split. Raises
    ConfigError where the fractions leave nothing for `split`.
    """
    order = permutation(n, "split", name)
    tests, vals = round(n * cut.test), round(n * cut.val)
    part = np.full(n, SPLITS.index("train"))
    part[order[:tests]], part[order[tests : tests + vals]] = SPLITS.index("test"), SPLITS.index("val")
    for row, first in same.items():
        part[row] = part[first]
    rows = np.flatnonzero(part == SPLITS.index(split))
    if not len(rows):
        raise empty(split, name, cut, n, "items")
    return rows


def names_of(
    split: Split, names: Sequence[str], cut: Cut, where: str, same: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """The `names` that belong to `split`, sorted: a hash of each decides, so that others may come and go.

    `same` has the name of each copy with that of the item which it copies: they are always in one split. Each part
    whose fraction is not zero gets at least one, if there are three names or more. Raises ConfigError where the
    fractions leave nothing for `split`.
    """
    place = {name: place_of(same.get(name, name)) for name in names}
    order = sorted(names, key=lambda name: place[name])
    least = 1 if len(names) - len(same) >= 3 else 0
    found = [place[name] for name in order]

    def end(first: int, low: float, share: float) -> int:
        count = sum(low <= at < low + share for at in found)
        stop = first + (max(count, least) if share else 0)
        while first < stop < len(found) and found[stop] == found[stop - 1]:  # a copy goes with what it copies
            stop += 1
        return stop

    tests = end(0, 0.0, cut.test)
    vals = end(tests, cut.test, cut.val)
    parts = {"test": order[:tests], "val": order[tests:vals], "train": order[vals:]}
    if not parts[split]:
        raise empty(split, where, cut, len(names), "files")
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
    fractions = "data.val_fraction=0 data.test_fraction=0" if split == "train" else f"data.{split}_fraction="
    return ConfigError(
        f"the {split} split of {where} is empty: data.val_fraction={cut.val:g} and data.test_fraction={cut.test:g} of "
        f"{total} {unit} leave it nothing",
        f"{'set' if split == 'train' else 'raise'} {fractions}, or use more {unit}",
    )
