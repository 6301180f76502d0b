"""The record of a metric: its scores, every condition that they depend on, and whether they compare with others."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.environment import versions
from aigc_cli.errors import DataError
from aigc_cli.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from aigc_cli.metrics.extractors.base import Extractor
    from aigc_cli.modalities.base import Items

#: What published scores of a dataset are measured on: the reference split, its items, the generated items.
PROTOCOLS = {"cifar10": ("train", 50_000, 50_000)}
#: The metrics that have published scores, with the settings those are of.
_PUBLISHED: dict[str, dict[str, Any]] = {"fid": {}, "kid": {"subsets": 100, "subset_size": 1000}, "is": {"splits": 10}}
#: What two scores must share to be compared: where each is in a record, and what it is called.
_CONDITIONS = {
    ("metric",): "metric",
    ("extractor", "sha256"): "extractor",
    ("extractor", "preprocessing"): "preprocessing",
    ("dtype",): "dtype",
    ("real", "data"): "reference data",
    ("real", "fingerprint"): "fingerprint of the reference data",
    ("real", "listing"): "files of the reference",
    ("real", "sha256"): "file of the reference",
    ("real", "checkpoint"): "checkpoint of the reference",
    ("real", "split"): "split",
    ("real", "n"): "n of the reference",
    ("generated", "n"): "n",
    ("generated", "reconstructed"): "reconstructed split",
    ("held_out", "data"): "held-out data",
    ("held_out", "fingerprint"): "fingerprint of the held-out data",
    ("held_out", "listing"): "files of the held-out data",
    ("held_out", "sha256"): "file of the held-out data",
    ("held_out", "split"): "split of the held-out data",
    ("held_out", "n"): "n of the held-out data",
    ("config",): "settings of the metric",
}
#: All of a record that its scores depend on, but for versions and device.
_NAMED = ("metric", "generated", "real", "held_out", "extractor", "config", "dtype")


@dataclass(frozen=True)
class Score:
    """The scores of one set of items by name, and how many those were; None where a file of statistics does not say."""

    figures: dict[str, float]
    n: int | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a metric says, with all that it said it on. This is the one place that makes the JSON of ``eval/``."""

    metric: str
    config: Mapping[str, Any]
    #: For each score which way is better: "lower", "higher", "near" that of real items, or "" where nothing says.
    better: Mapping[str, str]
    #: The scores of the items in question; their means where there are several sets of them.
    generated: Score
    #: For the stamp, what the items in question are, what they are held against, and whether it says the latter.
    made: Mapping[str, Any]
    real: Mapping[str, Any] = field(default_factory=dict)
    compares: bool = True
    #: 0 where it looks at none; None where a file of statistics does not say it.
    n_real: int | None = 0
    #: What a headline calls both.
    called: tuple[str, str] = ("", "")
    #: None where it looks at no features, and so is the precision that those were computed in.
    extractor: Extractor | None = None
    dtype: str = "float32"
    #: Whether the metric's plain name stands for it, or it takes the extractor's name in brackets.
    plain: bool = True
    #: Held-out real items in the place of generated ones, and what those are; None where there are none.
    baseline: Score | None = None
    baseline_of: Mapping[str, Any] = field(default_factory=dict)
    #: As many generated items as the baseline has, where it has fewer: several scores depend on the number.
    at_baseline_n: Score | None = None
    #: Other things in the place of the generated ones, such as held-out text, by what they are.
    beside: Mapping[str, Score] = field(default_factory=dict)
    #: The held-out items that the scores themselves depend on; None where that is the baseline alone.
    held_out: Items | None = None
    #: The scores of each of several independent sample sets.
    each: tuple[Mapping[str, float], ...] = ()
    #: "<=" or ">=" for scores that bound what they stand for.
    bounds: Mapping[str, str] = field(default_factory=dict)
    #: What else a reader must know, such as the signature of a text metric.
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    #: Where it was computed.
    device: str = "cpu"
    #: Items worth a look, raw, (rows, columns, ...).
    gallery: Tensor | None = None
    #: When it was made: once, so that the file and what is printed say the same.
    time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))

    def label(self, figure: str) -> str:
        """The score's name as it must be shown, such as ``fd[digits-cnn]``."""
        return figure if self.plain or self.extractor is None else f"{figure}[{self.extractor.name}]"

    def labelled(self) -> dict[str, float]:
        """The scores of the generated items by their full names."""
        return {self.label(figure): value for figure, value in self.generated.figures.items()}

    def spread(self) -> dict[str, float] | None:
        """The standard deviation (n - 1) of each score over the sample sets; None where there is one set."""
        if len(self.each) < 2:
            return None
        return {figure: stdev(one[figure] for one in self.each) for figure in self.generated.figures}

    def plain_json(self) -> dict[str, Any]:
        """All of it as plain data. The baseline stands under the name that records of before have for it, "floor"."""
        extractor, held_out = self.extractor, self.held_out
        seen = None if extractor is None else {"name": extractor.name, "sha256": extractor.checksum, **extractor.facts}
        comparable, reason = comparable_to_literature(self)
        return {
            "metric": self.metric,
            "figures": self.labelled(),
            "better": {self.label(figure): way for figure, way in self.better.items()},
            "spread": self._named(self.spread()),
            "each": [self._named(one) for one in self.each] or None,
            "bounds": dict(self.bounds) or None,
            "floor": _score(self.baseline, self.baseline_of),
            **({"beside": {name: _score(score, {}) for name, score in self.beside.items()}} if self.beside else {}),
            "generated_at_floor_n": _score(self.at_baseline_n, {}),
            "generated": {"n": self.generated.n, **self.made},
            "real": {"n": self.n_real, **(self.real if self.compares else {})},
            "held_out": None if held_out is None else {"n": len(held_out), **held_out.facts},
            "extractor": seen,
            "dtype": None if extractor is None else self.dtype,
            # Older records have no align, and mean the same.
            "config": {key: value for key, value in self.config.items() if (key, value) != ("align", "auto")},
            **({"facts": dict(self.facts)} if self.facts else {}),
            "notes": list(self.notes),
            "comparable_to_literature": comparable,
            "comparable_because": reason,
            "device": self.device,
            "versions": {"python": platform.python_version(), **versions()},
            "time": self.time,
        }

    def _named(self, scores: Mapping[str, float] | None) -> dict[str, float] | None:
        return None if scores is None else {self.label(figure): value for figure, value in scores.items()}


def averaged(sets: Sequence[Sequence[Record]]) -> list[Record]:
    """The records of several sample sets as one for each metric: means, with every set's own scores."""
    if len(sets) == 1:
        return list(sets[0])
    merged = []
    for records in zip(*sets, strict=True):
        each = tuple(record.generated.figures for record in records)
        matched = [record.at_baseline_n for record in records if record.at_baseline_n is not None]
        changed: dict[str, Any] = {
            "generated": Score(_means(each), records[0].generated.n),
            "at_baseline_n": Score(_means([score.figures for score in matched]), matched[0].n) if matched else None,
            "notes": tuple(dict.fromkeys(note for record in records for note in record.notes)),
        }
        merged.append(replace(records[0], each=each, **changed))
    return merged


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {figure: fmean(one[figure] for one in each) for figure in each[0]}


def finite(name: str, values: Mapping[str, Tensor]) -> dict[str, float]:
    """The scores of a metric as numbers.

    Raises:
        DataError: one is not finite.
    """
    figures = {key: float(value) for key, value in values.items()}
    if not all(math.isfinite(value) for value in figures.values()):
        raise DataError(f"{name} is not finite: {figures}", "look at the items: they are probably all alike, or broken")
    return figures


def _score(score: Score | None, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    return None if score is None else {"figures": score.figures, "n": score.n, **facts}


def comparable_to_literature(record: Record) -> tuple[bool, str]:
    """Whether scores compare with published ones, and why they do, or do not."""
    if record.metric not in _PUBLISHED:
        return False, f"{record.metric} has no published protocol"
    if not record.plain and record.extractor is not None:
        if record.extractor.canonical and record.dtype != "float32":
            return False, f"the features were computed in {record.dtype}, and published ones in float32"
        return False, f"the features are of {record.extractor.name}, not the reference's weights and preprocessing"
    changed = [key for key, value in _PUBLISHED[record.metric].items() if record.config.get(key) != value]
    if changed:
        return False, f"metric.{record.metric}.{changed[0]} is not the published one"
    data, split = record.real.get("data"), record.real.get("split")
    if data not in PROTOCOLS:
        return False, f"no protocol is known here for a reference of {data or 'images from files'}"
    wanted_split, n_real, n = PROTOCOLS[data]
    if record.generated.n != n:
        made = "an unknown number" if record.generated.n is None else f"{record.generated.n:,}"
        return False, f"published scores are of {n:,} generated images, and these are {made}"
    if not record.real.get("original"):
        return False, f"this copy of {data} was not found equal to the published one: it may have lost detail"
    if record.n_real and (split != wanted_split or record.n_real != n_real):
        wanted = f"{n_real:,} {wanted_split} images"
        return False, f"published scores are against {wanted}, not {record.n_real:,} of {split}"
    return True, f"the reference's weights and preprocessing, {n:,} images against the {wanted_split} split of {data}"


def file_name(record: Mapping[str, Any]) -> str:
    """A name that tells a record's conditions apart; the same conditions have the same name."""
    conditions = {key: record.get(key) for key in _NAMED}
    digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:8]
    made = record["generated"]
    parts = [record["metric"], *(f"{key}{made[key]}" for key in ("step", "seed", "n") if key in made), digest]
    return "-".join(parts) + ".json"


def saved(announced: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """The record that was saved under the very conditions, versions and device of `announced`; None without one."""
    try:
        known: dict[str, Any] = json.loads((folder / file_name(announced)).read_text(encoding="utf-8"))
        wanted = json.loads(json.dumps({key: announced[key] for key in (*_NAMED, "versions", "device")}))
        return known if all(known[key] == value for key, value in wanted.items()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


_LENIENT: ConfigDict = {**STRICT, "extra": "ignore"}


@typed(config=_LENIENT, frozen=True)
class _Facts:
    per_token: list[str] = field(default_factory=list)


@typed(config=_LENIENT, frozen=True)
class _Saved:
    """What a comparison reads of a record, which a stranger may have written."""

    metric: str
    figures: dict[str, float]
    spread: dict[str, float] | None = None
    better: dict[str, Literal["lower", "higher", "near", ""]] | None = None
    bounds: dict[str, Literal["<=", ">="]] | None = None
    facts: _Facts | None = None
    generated: dict[str, Any] | None = None
    real: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    extractor: dict[str, Any] | None = None


def read_record(path: Path) -> dict[str, Any]:
    """A record that was saved, as plain data.

    Raises:
        DataError: there is no such file, or it does not hold a record of ours.
    """
    hint = "name a file from the eval folder of a run"
    if not path.is_file():
        raise DataError(f"there is no record {path}", hint)
    try:
        loaded: dict[str, Any] = read_json(path)
        TypeAdapter(_Saved).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DataError(f"{path} is not a record of an evaluation: {reason}", hint) from None
    return loaded


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first condition in which two records differ so that their scores do not compare: its name, both values."""
    for path, name in _CONDITIONS.items():
        values: list[Any] = [_at(record, *path) for record in (a, b)]
        if path == ("config",):  # what was asked for may name what was chosen, which is compared next
            values = [{**(value or {}), "tokenize": None} if isinstance(value, Mapping) else value for value in values]
        if values[0] != values[1]:
            return name, values[0], values[1]
    own, other = map(_tokenizer, (a, b))
    return None if own == other else ("what cuts words", own, other)


def _at(record: Any, *path: str) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


def _tokenizer(record: Mapping[str, Any]) -> Any:
    """What cut words; records of before have it in BLEU's signature alone."""
    found = re.search(r"\btok:([\w-]+)", str(_at(record, "facts", "signature")))
    return _at(record, "facts", "tokenizer") or (found and found[1])
