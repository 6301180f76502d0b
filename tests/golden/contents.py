"""What the files of a run hold, without what differs from one time to the next: times, versions, places, metadata."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

#: Of records: when and on what they were made.
VOLATILE = {"time", "versions", "seconds", "items_per_second"}
#: Of records: sentences for people, which may be written anew.
PROSE = {"notes", "comparable_because", "signature", "unit", "scale", "floor"}


def sha256(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def steady(value: Any) -> Any:
    """A record without what is volatile or prose, at any depth, and with paths and names of files that do not depend
    on where it was made: without the current folder, and without the sum that names of records end in."""
    if isinstance(value, dict):
        passing = VOLATILE | ({"sha256"} if "statistics_of" in value else set())  # np.savez writes down the time
        return {key: steady(part) for key, part in value.items() if key not in passing and not _is_prose(key, part)}
    if isinstance(value, list):
        return [steady(part) for part in value]
    if isinstance(value, str):
        return re.sub(r"-[0-9a-f]{8}(\.\w+)$", r"\1", value.replace(f"{Path.cwd()}/", ""))
    return value


def _is_prose(key: str, value: Any) -> bool:
    """Whether this is written for people; a score is not, though it has the name of a sentence elsewhere."""
    sentences = value if isinstance(value, list) else [value]
    return key in PROSE and all(isinstance(sentence, str) for sentence in sentences)


def pixels(path: Path, *, below_title: bool = False) -> str:
    """The SHA-256 of a picture's size, mode and pixels; without its upper half, where a title may stand."""
    from PIL import Image

    with Image.open(path) as image:
        array = np.asarray(image)
    seen = array[array.shape[0] // 2 :] if below_title else array
    return sha256(f"{array.shape} {array.dtype}".encode() + seen.tobytes())


def arrays(path: Path) -> dict[str, str]:
    """The SHA-256 of each array of an ``.npz``; those that hold a record, as text, are left out."""
    with np.load(path, allow_pickle=False) as archive:
        found = {name: archive[name] for name in archive.files}
    return {
        name: sha256(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
        for name, array in found.items()
        if array.dtype.kind not in "US"
    }


def texts(path: Path) -> list[str]:
    """The texts of a ``samples.jsonl``."""
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def content(path: Path) -> Any:
    """What tells the content of a file of samples: the texts themselves, or a SHA-256."""
    if path.suffix == ".png":
        return pixels(path)
    if path.suffix == ".npz":
        return arrays(path)
    if path.suffix == ".jsonl":
        return texts(path)
    if path.suffix == ".json":
        return steady(json.loads(path.read_text(encoding="utf-8")))
    return "present"  # such as samples.txt, which says again what the .jsonl says
