"""What each of a set of samples is, what its file is called, and where it stands when all are looked at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aigc_cli.modalities.image_grid import Layout

#: The fact that tells an item of the data, which no model made, from what a model made of it.
ROLE, ORIGINAL, RECONSTRUCTION = "role", "original", "reconstruction"
_DIGITS = 6  # at least, so that the names of the first million do not depend on how many there are


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """A set of `n` samples. What is said of sample ``i`` does not depend on `n`."""

    n: int
    layout: Layout = field(default_factory=Layout)
    #: What is known of each sample, a list of `n` for each kind of fact: ``{"class": ["cat", "dog", ...]}``.
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    #: The facts that the names of files show, or the headings of texts.
    named: tuple[str, ...] = ()
    #: Of texts, the facts that stand beside each, and what it is called there.
    beside: tuple[str, ...] = ()
    text: str = "text"
    #: The number of each sample's class, and the names that the numbers stand for.
    labels: Sequence[int] | None = None
    classes: tuple[str, ...] = ()
    #: The set as a person counts it; None is so many samples.
    summary: str | None = None
    #: Consecutive samples whose files share a number: the frames of a walk, an original and its reconstruction.
    group: int = 1

    def about(self, index: int) -> dict[str, Any]:
        """The facts of one sample."""
        return {name: values[index] for name, values in self.facts.items()}

    def generated(self, index: int) -> bool:
        """Whether a model made it."""
        return ROLE not in self.facts or self.facts[ROLE][index] != ORIGINAL

    def name(self, index: int) -> str:
        """The name of a sample's file without its ending, such as ``000003-cat``."""
        number = index // self.group
        digits = max(_DIGITS, len(str((self.n - 1) // self.group)))
        return "-".join([f"{number:0{digits}d}", *(_tag(name, self.facts[name][index]) for name in self.named)])

    def described(self) -> str:
        """The set in a few words."""
        return self.summary or f"{self.n} {'sample' if self.n == 1 else 'samples'}"


def _tag(name: str, value: Any) -> str:
    return f"{name}{value:03d}" if isinstance(value, int) else re.sub(r"[^\w.+-]+", "_", value)[:40]


def slug(text: str, longest: int = 40) -> str:
    """A name that a shell and Hydra take as it is, and that differs where the texts differ."""
    plain = re.sub(r"[^A-Za-z0-9.+_-]+", "_", text)
    if plain == text and len(plain) <= longest:
        return plain
    return f"{plain[:longest]}-{hashlib.blake2b(text.encode(), digest_size=3).hexdigest()}"
