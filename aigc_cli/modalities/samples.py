"""A set of samples: what each is and how they belong together, where they come from, and the label that says so."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from aigc_cli import __version__
from aigc_cli.errors import DataError
from aigc_cli.files import read_json
from aigc_cli.modalities.labels import gb_label

#: The fact that tells an item of the data, which no model made, from what a model made of it.
ROLE, ORIGINAL, RECONSTRUCTION = "role", "original", "reconstruction"
LABEL = "AI-generated"  # the words that mark generated content wherever it goes
#: The IPTC's terms for content made by a trained model, and for such content beside other content
#: (https://cv.iptc.org/newscodes/digitalsourcetype/).
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
COMPOSITE_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
#: The file beside the samples that says all this; written last, so that samples without one are incomplete.
RECORD = "samples.json"
#: Under this key a record says that only some of its files are there yet.
INCOMPLETE = "incomplete"
#: The parts of where samples come from that are told where there is something to tell.
_OPTIONAL = ("source", "explicit", "watermark", "filters")
_DIGITS = 6  # at least, so that the names of the first million do not depend on how many there are


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """A set of `n` samples: what belongs together, and what is to be read beside it; its writer finds the place for it.

    What is said of sample ``i`` does not depend on `n`.
    """

    n: int
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # `n` a kind: ``{"class": ["cat", "dog", ...]}``
    named: tuple[str, ...] = ()  # the facts that the names of files show, or the headings of texts
    beside: tuple[str, ...] = ()  # of texts, the facts that stand beside each
    text: str = "text"  # what the text itself is called there
    labels: Sequence[int] | None = None  # the number of each sample's class
    classes: tuple[str, ...] = ()  # the names that the numbers stand for
    summary: str | None = None  # the set as a person counts it; None is so many samples
    #: Consecutive samples that belong together, whose files share a number: the frames of a walk, an original and its
    #: reconstruction. As a `row` they are looked at side by side, else one above the other.
    group: int = 1
    row: bool = False
    turns: tuple[str, ...] = ()  # what samples that stand alone take turns in, such as classes: a column for each
    title: str | None = None  # above all
    column_titles: tuple[str, ...] = ()
    row_titles: tuple[str, ...] = ()  # where there are more rows, they begin again

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

    def source_type(self) -> str:
        """The IPTC's term for the set, which may hold items of the data beside what a model made."""
        mixed = not all(map(self.generated, range(min(self.n, self.group))))
        return COMPOSITE_SOURCE_TYPE if mixed else DIGITAL_SOURCE_TYPE

    def described(self) -> str:
        """The set in a few words."""
        return self.summary or f"{self.n} {'sample' if self.n == 1 else 'samples'}"


def _tag(name: str, value: Any) -> str:
    if isinstance(value, int):
        return f"{name}{value:03d}"
    word = re.sub(r"[^\w.+-]+", "_", value)[:40]
    return word.encode()[:80].decode(errors="ignore")  # a name has 255 bytes, whatever the script


def kind_of(about: Mapping[str, Any]) -> str | None:
    """The digital source type of what `about` is about; None where no model made it."""
    return DIGITAL_SOURCE_TYPE if about.get("label") == LABEL else None


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
    source: Mapping[str, Any] = field(default_factory=dict)  # the items of the data that the samples were made from
    explicit: bool = False  # whether a person sees or hears in each that it was generated
    filters: Mapping[str, Any] = field(default_factory=dict)  # what chose which samples are in the set
    watermark: str = ""  # the name of the key that marks each, which does not give it away
    versions: Mapping[str, str] = field(default_factory=_versions)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        # Through JSON, so that what was written and what is compared agree.
        values = dict(json.loads(json.dumps(asdict(self))))
        return {key: value for key, value in values.items() if key not in _OPTIONAL or value}

    def identity(self) -> dict[str, Any]:
        """What two sets of samples share exactly where one may replace the other."""
        keys = ("modality", "format", "step", "model_checksum", "seed", "controls", *_OPTIONAL)
        return {key: value for key, value in self._plain.items() if key in keys}

    def of_sample(self, arrangement: Arrangement, index: int) -> dict[str, Any]:
        """The provenance of one sample, for its own metadata; an item of the data itself has no label."""
        label = {"label": LABEL} if arrangement.generated(index) else {}
        return {**label, **self._plain, "index": index, **arrangement.about(index)}

    def of_grid(self, shown: int) -> dict[str, Any]:
        """The provenance of the first few, for the metadata of what shows them together."""
        return {"label": LABEL, **self._plain, "indices": list(range(shown))}

    def sentence(self) -> str:
        """The provenance as a person reads it."""
        return f"{LABEL} by {self.model} trained on {self.data}: run {self.run}, step {self.step}, seed {self.seed}"

    def title(self, arrangement: Arrangement, index: int) -> str:
        """What one sample is, as a person reads it."""
        if arrangement.generated(index):
            return f"{self.sentence()}, sample {index}"
        return f"an original of {self.data}, for comparison"

    def of_set(self, arrangement: Arrangement) -> dict[str, Any]:
        """The provenance of a whole set."""
        about = {"label": LABEL, "digital_source_type": arrangement.source_type(), **self._plain}
        return {**about, "gb45438": gb_label(about), "n": arrangement.n}

    def record(self, arrangement: Arrangement, files: list[str], overview: list[str]) -> dict[str, Any]:
        """The content of :data:`RECORD`: `files` hold the samples in order, `overview` shows some of them.

        Under ``samples`` it has a list for each kind of fact, such as the class, an entry a sample.
        """
        facts = {name: list(values) for name, values in arrangement.facts.items()}
        which = {"indices": list(range(arrangement.n)), "files": files}
        return {**self.of_set(arrangement), "overview": overview, **which, **({"samples": facts} if facts else {})}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes :data:`RECORD` into `folder`, a key a line: the lists are as long as there are samples."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items()]
    (folder / RECORD).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """What :func:`write_record` wrote into `folder`; None where there is nothing of the kind."""
    try:
        record = read_json(folder / RECORD)
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("label") != LABEL:
        return None
    if record.get("modality") == "pairs":  # as older versions called texts that are made from others
        record["modality"] = "text"
    return record


def recorded_files(record: Mapping[str, Any]) -> set[str]:
    """The names a record lists. A folder from a stranger is data: what is not a plain file name is left out."""
    listed = [record.get(key) for key in ("files", "overview")]
    names = {name for part in listed if isinstance(part, list) for name in part if isinstance(name, str)}
    return {name for name in names if name not in ("", ".", "..") and not {"/", "\\", "\0"} & set(name)}


def not_samples(folder: Path) -> set[str]:
    """The names of files in a sample folder that no model made or that show others again: originals, overviews.

    Raises:
        DataError: the set is incomplete.
    """
    record = read_record(folder) or {}
    if record.get(INCOMPLETE):
        what = f"{folder} holds part of a set of samples: who wrote it was killed, or is still at it"
        raise DataError(what, "wait for it, or write the set again with `aigc sample`")
    facts, overview = record.get("samples"), record.get("overview")
    roles = facts.get(ROLE) if isinstance(facts, dict) else None
    lists = [part if isinstance(part, list) else [] for part in (record.get("files"), roles, overview)]
    originals = [name for name, role in zip(lists[0], lists[1], strict=False) if role == ORIGINAL]
    return {name for name in (*originals, *lists[2]) if isinstance(name, str)}
