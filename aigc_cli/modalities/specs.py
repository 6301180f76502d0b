"""The description of a run's data, read back from its folder, which may come from a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aigc_cli.modalities.base import DataSpec, modality


def read_spec(saved: Mapping[str, Any]) -> DataSpec:
    """The spec that was saved as a dictionary; raises KeyError, TypeError or ValueError where it is not one."""
    name, source = str(saved["modality"]), saved.get("source")
    if name == "pairs":  # as older runs have it, of texts whose source is text of the same tokens
        name, source = "text", {**saved, "modality": "text", "fingerprint": ""}
    shape, content = (tuple(int(size) for size in saved.get(key, ())) for key in ("shape", "content"))
    vocab_size = None if saved["vocab_size"] is None else int(saved["vocab_size"])
    axes = 1 if vocab_size is not None and not content else len(modality(name).axes)
    if min(shape + content, default=0) < 1 or len(content or shape) != axes:
        raise ValueError(f"shape {list(shape)} is not that of {name} data")
    classes = tuple(str(label) for label in saved["classes"])
    attributes = tuple((str(word), tuple(map(str, values))) for word, values in saved.get("attributes", ()))
    if any(len(values) != len(classes) for _, values in attributes):
        raise ValueError("an attribute has not a value for each class")
    return DataSpec(
        modality=name,
        shape=shape,
        classes=classes,
        vocab_size=vocab_size,
        specials=tuple((str(special), int(token)) for special, token in saved.get("specials", ())),
        fingerprint=str(saved["fingerprint"]),
        source=None if source is None else read_spec(source),
        untrained=tuple(str(label) for label in saved.get("untrained", ())),
        content=content,
        rate=None if saved.get("rate") is None else int(saved["rate"]),
        padding=None if saved.get("padding") is None else float(saved["padding"]),
        grid=tuple(int(size) for size in saved.get("grid", ())),
        level=None if saved.get("level") is None else str(saved["level"]),
        attributes=attributes,
    )
