"""What a file says of where it comes from, as far as it can be taken at its word; a stranger may have written it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_cli.modalities.samples import LABEL

#: What a claim must say for a sample to be drawn again, and of which type.
NEEDED = {"model_checksum": str, "step": int, "seed": int, "controls": dict, "format": str}


def is_complete(claims: Mapping[str, Any]) -> bool:
    """Whether a claim says all that a sample is drawn again by, as what it is."""
    typed = all(type(claims.get(key)) is kind for key, kind in NEEDED.items())
    numbers = (claims.get(key, 0) for key in ("step", "seed", "index", "n"))
    return (
        typed and all(type(number) is int and number >= 0 for number in numbers)
        and isinstance(claims.get("indices", []), list) and isinstance(claims.get("source", {}), dict)
    )  # fmt: skip


def of_text(path: Path) -> dict[str, Any]:
    """What the first text of a file says, as of all of them. Translations each say what they are of, in the place of
    where all come from: these are its ``lines`` there."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        first = {key: value for key, value in rows[0].items() if key not in ("text", "index")}
        if isinstance(first.get("source"), str):
            first["source"] = {"lines": [str(row["source"]) for row in rows]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return {**first, "n": len(rows)} if first.get("label") == LABEL else {}


def place_of(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Which sample of a set a file is, where each has its own, and what is said of it alone."""
    files, facts = record.get("files"), record.get("samples")
    if not isinstance(files, list) or len(files) < 2 or name not in files:
        return {}
    index = files.index(name)
    lists = facts.items() if isinstance(facts, dict) else ()
    own = {key: values[index] for key, values in lists if isinstance(values, list) and len(values) == len(files)}
    return {"index": index, **own}
