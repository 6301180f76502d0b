"""A cleaned copy of data: what is left out of it, and how it comes to be there whole or not at all.

Each kind of content is prepared in its own way, registered as a ``preparation`` under :attr:`DataSpec.kind`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aigc_cli import __version__
from aigc_cli.config.words import split_key
from aigc_cli.data.base import Split
from aigc_cli.data.report import Look, look_at
from aigc_cli.data.splits import Cut
from aigc_cli.errors import ConfigError
from aigc_cli.files import new_folder, path_of, resource_errors, write_json
from aigc_cli.locks import writing_alone
from aigc_cli.modalities.base import modality
from aigc_cli.registry import find, is_imported

#: The file that says how a copy was made; hidden, so that it is not taken for data.
RECORD = ".prepared.json"
#: Keys about how the source is read, which its copy does not need.
SETTLED = ("root", "val_fraction", "test_fraction", "max_bad", "max_broken", "encoding")
Dedup = Literal["exact", "near", False]


@dataclass(frozen=True)
class Asked:
    """What a copy is to be."""

    values: Mapping[str, Any]  # the `data` section
    format: str  # "auto" is the usual one of the kind
    size: int | Literal["auto"] | None
    dedup: Dedup
    words: Sequence[str] = ()  # of the user's, about the data

    @property
    def cut(self) -> Cut:
        """What is held out of data without splits of its own."""
        return Cut(self.values.get("val_fraction", 0.0), self.values.get("test_fraction", 0.0))

    def look(self, **changed: Any) -> Look:
        """The data, with all in the training split that has no other of its own."""
        uncut = {key: 0.0 for key in ("val_fraction", "test_fraction") if key in self.values}
        return look_at({**self.values, **uncut, **changed})

    def kept(self, without: Collection[str]) -> list[str]:
        """The user's words about the data that hold for the copy, but those for keys that are settled by it."""
        settled = {"data", *(f"data.{key}" for key in (*SETTLED, *without))}
        return [word for word in self.words if split_key(word)[1] not in settled]

    def refuse_format(self, formats: tuple[str, ...]) -> str:
        """The format, of some `formats`, whose first is the usual one."""
        if self.format not in ("auto", *formats):
            raise ConfigError(f"format={self.format} does not suit this data", f"choose from: {', '.join(formats)}")
        return formats[0] if self.format == "auto" else self.format


@dataclass
class Prepared:
    """What was written."""

    noun: tuple[str, str]
    words: list[str] = field(default_factory=list)  # that train on it, without data.root=
    items: dict[Split, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)  # names, by the reason
    changed: dict[str, int] = field(default_factory=dict)  # how often something was put right

    def leave_out(self, why: str, name: str) -> None:
        """Notes that an item is left out."""
        self.left_out.setdefault(why, []).append(name)

    @property
    def missing(self) -> int:
        """How many items were left out."""
        return sum(map(len, self.left_out.values()))


def folder_names(classes: Sequence[str]) -> list[str]:
    """The name of each class as that of a folder: a label may come from a stranger's table, and leads nowhere else."""
    found: list[str] = []
    for name in classes:
        plain_name = re.sub(r"[/\\\0:]+", "_", name).strip().lstrip(".") or "class"
        found.append(plain_name if plain_name not in found else f"{plain_name}-{len(found)}")
    return found


def free_name(name: str, taken: Counter[str]) -> str:
    """The name, or with a number behind it where it is taken, in whatever case: some disks do not tell cases apart."""
    found, first = name, name.lower()
    while taken[found.lower()]:
        taken[first] += 1
        found = f"{name}-{taken[first]}"
    taken[found.lower()] += 1
    return found


def check_out(out: Path, root: str | None) -> None:
    """Refuses a folder that holds something, or lies within the data that is copied."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"out={out} holds something", "name a new folder, or an empty one")
    if root and out.resolve().is_relative_to(path_of(root).resolve()):
        raise ConfigError(f"out={out} lies within data.root={root}", "name a folder beside it: the data stays as it is")


def prepare(asked: Asked, out: Path) -> Prepared:
    """Writes a cleaned copy into the new folder `out`, which appears whole or not at all.

    Raises:
        ConfigError: `out` holds something, or such content cannot be prepared.
        DataError: nothing is left.
        ResourceError: it cannot be written.
    """
    check_out(out, asked.values.get("root"))
    look = asked.look()
    if not is_imported("preparation", look.kind):
        noun = modality(look.kind.split()[0]).noun[1]
        raise ConfigError(f"{noun} cannot be prepared", "aigc data show reports on them")
    with resource_errors(out, "with out="), writing_alone(out, "with out="), new_folder(out) as folder:
        prepared: Prepared = find("preparation", look.kind).build(asked, folder)
        for split, why in look.lost.items():
            prepared.leave_out(why, f"the {split} split")
        _record(folder, asked, prepared)
    return prepared


def _record(folder: Path, asked: Asked, prepared: Prepared) -> None:
    record = {
        "format": 1, "aigc": __version__, "data": json.loads(json.dumps(asked.values)),
        "settings": {"format": asked.format, "size": asked.size, "dedup": asked.dedup},
        "items": prepared.items, "changed": prepared.changed, "left_out": prepared.left_out, "train": prepared.words,
    }  # fmt: skip
    write_json(folder / RECORD, record)
