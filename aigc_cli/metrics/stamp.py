"""The stamp on a figure: every condition that it depends on, and whether it compares with published figures."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_cli.metrics.result import Result, Score
from aigc_cli.runs import versions

#: What published figures of a dataset are measured on: the reference split, its images, the generated images.
PROTOCOLS = {"cifar10": ("train", 50_000, 50_000)}
#: The metrics that have published figures, with the settings those are of.
_PUBLISHED: dict[str, dict[str, Any]] = {"fid": {}, "kid": {"subsets": 100, "subset_size": 1000}, "is": {"splits": 10}}
#: What two figures must share to be compared: where each is in a record, and what it is called.
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

#: All of a record that its figures depend on, but for versions and device.
_NAMED = ("metric", "generated", "real", "held_out", "extractor", "config", "dtype")


def record(result: Result, sides: Any, device: str, *, dtype: str = "float32") -> dict[str, Any]:
    """Everything that a reader of the figures must know, as plain JSON.

    Args:
        result: The figures.
        sides: What was compared, each side with its ``facts``; the reference and held-out items may be None.
        device: Where it was computed.
        dtype: What extractors computed in.
    """
    extractor = result.extractor
    held_out = {} if sides.held_out is None else sides.held_out.facts
    whole = sides.held_out if sides.all_held_out is None else sides.all_held_out
    real = sides.real.facts if sides.real is not None and result.needs_real else {}
    comparable, reason = comparable_to_literature(result, sides, dtype)
    made: dict[str, Any] = {
        "metric": result.metric,
        "figures": result.labelled(),
        "better": {result.label(figure): way for figure, way in result.better.items()},
        "spread": _named(result, result.spread()),
        "each": [_named(result, one) for one in result.each] or None,
        "bounds": dict(result.bounds) or None,
        "floor": _score(result.floor, held_out),
        **({"beside": {name: _score(score, {}) for name, score in result.beside.items()}} if result.beside else {}),
        "generated_at_floor_n": _score(result.at_floor_n, {}),
        "generated": {"n": result.generated.n, **sides.fake.facts},
        "real": {"n": result.n_real, **real},
        "held_out": {"n": len(whole), **held_out} if result.needs_held_out else None,
        "extractor": None
        if extractor is None
        else {"name": extractor.name, "sha256": extractor.checksum, **extractor.facts},
        "dtype": None if extractor is None else dtype,
        "config": dict(result.config),
        **({"facts": dict(result.facts)} if result.facts else {}),
        "notes": list(result.notes),
        "comparable_to_literature": comparable,
        "comparable_because": reason,
        "device": device,
        "versions": {"python": platform.python_version(), **versions()},
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return made


def _named(result: Result, figures: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if figures is None else {result.label(figure): value for figure, value in figures.items()}


def _score(score: Score | None, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    return None if score is None else {"figures": score.figures, "n": score.n, **facts}


def comparable_to_literature(result: Result, sides: Any, dtype: str = "float32") -> tuple[bool, str]:
    """Whether figures compare with published ones, and why they do, or do not."""
    if result.metric not in _PUBLISHED:
        return False, f"{result.metric} has no published protocol"
    if not result.plain:
        assert result.extractor is not None
        if result.extractor.canonical and dtype != "float32":
            return False, f"the features were computed in {dtype}, and published ones in float32"
        return False, f"the features are of {result.extractor.name}, not the reference's weights and preprocessing"
    changed = [key for key, value in _PUBLISHED[result.metric].items() if result.config.get(key) != value]
    if changed:
        return False, f"metric.{result.metric}.{changed[0]} is not the published one"
    reference = {} if sides.real is None else sides.real.facts
    data, split = reference.get("data"), reference.get("split")
    if data not in PROTOCOLS:
        return False, f"no protocol is known here for a reference of {data or 'images from files'}"
    wanted_split, n_real, n = PROTOCOLS[data]
    if result.generated.n != n:
        made = "an unknown number" if result.generated.n is None else f"{result.generated.n:,}"
        return False, f"published figures are of {n:,} generated images, and these are {made}"
    if not reference.get("original"):
        return False, f"this copy of {data} was not found equal to the published one: it may have lost detail"
    if result.n_real and (split != wanted_split or result.n_real != n_real):
        return (
            False,
            f"published figures are against {n_real:,} {wanted_split} images, not {result.n_real:,} of {split}",
        )
    return True, f"the reference's weights and preprocessing, {n:,} images against the {wanted_split} split of {data}"


def conditions(record: Mapping[str, Any]) -> dict[str, Any]:
    """All of a record that its figures depend on, but for versions and device."""
    return {key: record.get(key) for key in _NAMED}


def file_name(record: Mapping[str, Any]) -> str:
    """A name that tells a record's conditions apart; the same conditions have the same name."""
    digest = hashlib.sha256(json.dumps(conditions(record), sort_keys=True).encode()).hexdigest()[:8]
    made = record["generated"]
    parts = [record["metric"], *(f"{key}{made[key]}" for key in ("step", "seed", "n") if key in made), digest]
    return "-".join(parts) + ".json"


def saved(announced: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """The record that was saved under the very conditions, versions and device of `announced`; None without one."""
    try:
        known = json.loads((folder / file_name(announced)).read_text(encoding="utf-8"))
        same = all(
            known[key] == json.loads(json.dumps(announced[key]))
            for key in (*conditions(announced), "versions", "device")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if same else None


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """The first condition in which two records differ so that their figures do not compare: its name, both values."""
    for path, name in _CONDITIONS.items():
        values = [_at(record, path) for record in (a, b)]
        if values[0] != values[1]:
            return name, values[0], values[1]
    return None


def _at(record: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, Mapping) else None
    return record
