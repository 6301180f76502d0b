"""Where a sample comes from, and the label that says it was generated."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from aigc_cli import __version__

#: The words that mark generated content wherever it goes.
LABEL = "AI-generated"
#: The IPTC's term for content made by a trained model (https://cv.iptc.org/newscodes/digitalsourcetype/).
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
#: The file beside the samples that says all this; written last, so that samples without one are incomplete.
RECORD = "samples.json"


def _versions() -> dict[str, str]:
    import torch

    return {"aigc": __version__, "torch": torch.__version__, "python": platform.python_version()}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a set of samples. Sample ``i`` is a function of this and ``i``, up to float rounding."""

    modality: str
    format: str
    run: str
    model: str
    data: str
    step: int
    model_checksum: str  # sha256 of the weights
    seed: int
    controls: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=_versions)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        # Through JSON, so that what was written and what is compared agree.
        return dict(json.loads(json.dumps(asdict(self))))

    def identity(self) -> dict[str, Any]:
        """What two sets of samples share exactly where one may replace the other."""
        keys = ("modality", "format", "step", "model_checksum", "seed", "controls")
        return {key: value for key, value in self._plain.items() if key in keys}

    def of_samples(self, indices: range) -> dict[str, Any]:
        """The provenance of one sample, or of the few that a grid shows, for metadata of their own."""
        which = {"index": indices[0]} if len(indices) == 1 else {"indices": list(indices)}
        return {"label": LABEL, **self._plain, **which}

    def sentence(self) -> str:
        """The provenance as a person reads it."""
        return f"{LABEL} by {self.model} trained on {self.data}: run {self.run}, step {self.step}, seed {self.seed}"

    def of_set(self, n: int) -> dict[str, Any]:
        """The provenance of samples 0 to n - 1."""
        return {"label": LABEL, "digital_source_type": DIGITAL_SOURCE_TYPE, **self._plain, "n": n}

    def record(self, n: int, files: list[str], overview: list[str]) -> dict[str, Any]:
        """The content of :data:`RECORD`: `files` hold samples 0 to n - 1 in order, `overview` shows some of them."""
        return {**self.of_set(n), "overview": overview, "indices": list(range(n)), "files": files}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes :data:`RECORD` into `folder`, a key a line: the lists are as long as there are samples."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    (folder / RECORD).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """What :func:`write_record` wrote into `folder`; None where there is nothing of the kind."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("label") == LABEL else None


def recorded_files(record: Mapping[str, Any]) -> set[str]:
    """The names a record lists. A folder from a stranger is data: what is not a plain file name is left out."""
    listed = [record.get(key) for key in ("files", "overview")]
    names = {name for part in listed if isinstance(part, list) for name in part if isinstance(name, str)}
    return {name for name in names if name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)}
