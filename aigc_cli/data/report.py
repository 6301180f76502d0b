"""What a person's data is, before anything is trained on it: what there is, what is wrong with it, and what to do.

Each kind of content has a report of its own, registered as a ``report`` under :attr:`DataSpec.kind`; content of any
other kind, such as a plugin's, is counted and searched for copies as :func:`plain_report` does.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from aigc_cli.config.schema import check, own_keys
from aigc_cli.config.words import split_key
from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.open import open_dataset
from aigc_cli.data.raw import Raw, raw_of
from aigc_cli.errors import AigcError, ConfigError, DataError, ResourceError
from aigc_cli.files import about_folder, suffix_of, walk_files
from aigc_cli.modalities.text_files import printable
from aigc_cli.registry import find, is_imported

SPLIT, CLASS, FILE = ("split", "splits"), ("class", "classes"), ("file", "files")
#: The model that each kind of content is usually trained with.
USUAL = {"image": "gan", "audio": "gan", "video": "vqvae", "text": "transformer", "text from text": "seq2seq"}
NAMED = 3  # names that a line shows
#: How lines of readers begin that are told as findings of their own: kinds of files, and classes.
_TOLD = ("passed over:", "no training item has")
LISTED = 200  # names that a program gets


@dataclass(frozen=True)
class Finding:
    """Something about the data that a person should know before training on it."""

    code: str  # a word for programs
    message: str
    hint: str = ""  # which key or command helps, if any does
    count: int = 1
    names: Sequence[str] = ()  # of the items or files
    prepared: bool = False  # whether `aigc data prepare` puts it right

    @property
    def shown(self) -> str:
        """The message, with the first few names."""
        more = f", and {self.count - NAMED:,} more" if len(self.names) > NAMED else ""
        return f"{self.message}: {', '.join(self.names[:NAMED])}{more}" if self.names else self.message

    def state(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**asdict(self), "names": list(self.names[:LISTED])}


@dataclass
class Report:
    """What was found."""

    noun: tuple[str, str]  # one item and several
    stops: bool = False  # whether training would, for what one of the findings says
    facts: dict[str, Any] = field(default_factory=dict)  # plain data
    sets: list[str] = field(default_factory=list)  # the words that findings propose in place of what is set
    lines: list[list[str]] = field(default_factory=list)  # of the table that a person reads: a title, and what it is
    findings: list[Finding] = field(default_factory=list)
    preview: Callable[[Any], None] | None = None  # writes a picture of some items to a path
    excerpts: list[str] = field(default_factory=list)

    def add(self, title: str, text: str, **facts: Any) -> None:
        """A line for a person, and the same for a program."""
        self.lines.append([title, text])
        self.facts.update(facts)

    def find(
        self, code: str, names: Sequence[str] | int, message: str, hint: str = "", *,
        prepared: bool = False, noun: tuple[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Adds a finding about some items (else `noun`), if there are any: their names, or how many."""
        count = names if isinstance(names, int) else len(names)
        if count:
            text = f"{message} ({counted(count, noun or self.noun)})"
            self.findings.append(Finding(code, text, hint, count, [] if isinstance(names, int) else names, prepared))


@dataclass(frozen=True)
class Look:
    """Data that is looked at: what each split is made of, and what is said of those that cannot be had."""

    values: Mapping[str, Any]  # the `data` section
    splits: dict[Split, Raw]
    refused: list[Finding]
    stops: bool = False  # whether training on these values would, for what was refused
    lost: Mapping[Split, str] = field(default_factory=dict)  # splits that are there and cannot be read, and why

    @property
    def kind(self) -> str:
        """As :attr:`DataSpec.kind`."""
        return next(iter(self.splits.values())).kind

    @property
    def model(self) -> str:
        """The model that suits such data, or nothing."""
        return USUAL.get(self.kind, "")

    @property
    def config(self) -> Any:
        """The typed configuration of the dataset."""
        return check("data", find("data", self.values["name"]).config, own_keys(self.values))


def look_at(values: Mapping[str, Any]) -> Look:
    """What the `data` section of a configuration names.

    Raises:
        ConfigError: it is wrong.
        DataError: nothing can be read.
    """
    values = own_keys(values)  # it is the items that are looked at, whatever a model sees of them
    splits: dict[Split, Raw] = {}
    refused: list[Finding] = []
    lost: dict[Split, str] = {}
    first: AigcError | None = None
    labels = values.get("labels")
    for ignored in ({}, {"labels": False}):
        seen = {**values, **ignored}
        if splits or (ignored and values.get("labels") is not True):
            break
        for split in SPLITS:
            try:
                splits[split] = raw_of(lambda split=split, seen=seen: open_dataset(seen, split))  # type: ignore[misc]
            except (ConfigError, DataError, ResourceError) as error:
                first = first or error
                if not isinstance(error, ConfigError):
                    lost[split] = error.message
                wanted = split in lost or values.get(f"{split}_fraction") != 0  # else nobody misses it
                if wanted and error.message not in [finding.message for finding in refused]:
                    rest = split in lost and "train" in splits  # which a copy then consists of
                    hint = f"{error.hint}; `aigc data prepare` copies the other splits" if rest else error.hint
                    refused.append(Finding("refused", error.message, hint, prepared=rest))
        values = seen if splits else values
    if not splits:
        assert first is not None, "each split was opened or refused"
        raise first
    for split in splits:  # without labels it can be read
        lost.pop(split, None)
    stops = "train" not in splits or "val" in lost or values.get("labels") != labels
    return Look(values, splits, refused, stops, lost)


def report_on(look: Look) -> Report:
    """The report on some data, by its kind; raises DataError where nothing of it can be read."""
    if is_imported("report", look.kind):  # what registers reports was imported with the datasets
        report: Report = find("report", look.kind).build(look)
    else:
        report = plain_report(look)
    report.findings[:0] = look.refused
    report.stops |= look.stops
    return report


def plain_report(look: Look) -> Report:
    """Content of any kind, by what a :class:`Dataset` says of it: numbers, classes, and copies."""
    from aigc_cli.modalities.base import modality

    opened = {split: raw.content for split, raw in look.splits.items()}
    spec = next(iter(opened.values())).spec
    report = Report(modality(spec.modality).noun)
    add_counts(report, {split: len(dataset) for split, dataset in opened.items()})
    report.add("shape", " x ".join(map(str, spec.shape)), shape=list(spec.shape))
    names, digests, of, labels = [], [], [], []
    for split, dataset in opened.items():
        for index in range(len(dataset)):
            content, label = dataset.read(index)
            names.append(f"{split} {index}")
            digests.append(digest(content.contiguous().numpy()))
            of.append(SPLITS.index(split))
            labels.append(-1 if label is None else label)
    add_classes(report, spec.classes, np.array(labels), np.array(of))
    groups = groups_of(np.array(digests, dtype=np.int64))
    add_copies(report, groups, names, np.array(of), np.array(labels) if spec.classes else None)
    return report


def add_counts(report: Report, counts: Mapping[Split, int]) -> None:
    """How many items there are in each split."""
    told = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    report.add(report.noun[1], f"{sum(counts.values()):,}: {told}", items=dict(counts))
    if 0 < counts.get("train", 0) < 100:
        hint = "a model learns these by heart: add more; pictures can be changed in training with data.augment="
        report.find("few", counts["train"], "there is little to train on", hint)


def add_classes(report: Report, classes: Sequence[str], labels: np.ndarray, of: np.ndarray) -> None:
    """How many items each class has; `labels` (n,) and splits `of` (n,), as numbers, are of readable items."""
    if not classes:
        return
    whole, train = (np.bincount(part[part >= 0], minlength=len(classes)) for part in (labels, labels[of == 0]))
    order = np.argsort(-whole, kind="stable")
    told = ", ".join(f"{classes[place]} {whole[place]:,}" for place in order[:12])
    more = f", and {len(classes) - 12} more" if len(classes) > 12 else ""
    report.add("classes", f"{len(classes)}: {told}{more}", classes=dict(zip(classes, whole.tolist(), strict=True)))
    missing = [name for name, count in zip(classes, train, strict=True) if not count]
    hint = "add some, or move all of a class into the training part; data.labels=false ignores classes"
    report.find("class_untrained", missing, "no training item of a class", hint, noun=CLASS)
    low = [f"{name} ({count})" for name, count in zip(classes, train, strict=True) if 0 < count < 10]
    report.find("class_small", low, "fewer than 10 training items of a class", noun=CLASS)
    if len(classes) == 1:
        hint = "data.labels=false ignores folders"
        report.find("one_class", list(classes), "a single class tells a model nothing", hint, noun=CLASS)
    elif train.any() and train.max() > 10 * max(1, train.min()):
        what = f"the largest class has {train.max() / max(1, train.min()):.0f} times as many items as the smallest"
        report.findings.append(Finding("imbalance", what))
    alike = Counter(name.lower().strip() for name in classes)
    twice = [name for name in classes if alike[name.lower().strip()] > 1]
    hint = "rename one to the other"
    report.find("class_names_alike", twice, "names that differ in case or space alone", hint, noun=CLASS)


def add_copies(
    report: Report, groups: np.ndarray, names: Sequence[str], of: np.ndarray, labels: np.ndarray | None, near: str = ""
) -> None:
    """Which items are the same: those of one number in `groups` (n,), where -1 is like no other; `near` says how alike
    they are, such as "nearly the same", where they are not the same."""
    before, prepared = ("near_", False) if near else ("", True)
    sets = members(groups)
    extra = sum(map(len, sets)) - len(sets)
    pairs = [" = ".join(names[place] for place in some[:4]) for some in sets]
    report.facts[f"{before}duplicates"] = extra
    hint = f"`aigc data prepare` with dedup={'near' if near else 'exact'} keeps one of each"
    if extra:
        message = f"{near or 'the same'} as others ({counted(extra, report.noun)} too many)"
        report.findings.append(Finding(f"{before}duplicates", message, hint, extra, pairs, prepared))
    across = [some for some in sets if len(set(of[some].tolist())) > 1]
    where = [" = ".join(f"{names[place]} ({SPLITS[of[place]]})" for place in some[:4]) for some in across]
    message = f"{near or 'the same'} in several splits, so that scores say too much"
    report.find(f"{before}split_copies", where, message, hint, prepared=prepared)
    if labels is not None and not near:
        torn = [some for some in sets if len(set(labels[some].tolist()) - {-1}) > 1]
        where = [" = ".join(names[place] for place in some[:4]) for some in torn]
        hint = "keep the one that is right; `aigc data prepare` leaves all of them out"
        report.find("label_conflict", where, "the same in several classes", hint, prepared=True)


def digest(array: np.ndarray) -> int:
    """What an array holds, as a number of 64 bits."""
    return int.from_bytes(hashlib.sha256(array.tobytes()).digest()[:8], "big", signed=True)


def groups_of(digests: np.ndarray) -> np.ndarray:
    """A number for all items with the same digest (n,), int64 (n,); -1 for those that are like no other."""
    _, inverse, counts = np.unique(digests, return_inverse=True, return_counts=True)
    return np.where(counts[inverse] > 1, inverse, -1)


def members(groups: np.ndarray) -> list[np.ndarray]:
    """The places of the items of each group, in their order, by the first of each."""
    places = np.flatnonzero(groups >= 0)
    order = places[np.argsort(groups[places], kind="stable")]
    found = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []
    return sorted((some for some in found if len(some) > 1), key=lambda some: int(some[0]))


def add_lines(report: Report, lines: Iterable[str]) -> None:
    """What a reader says of the files that it did not take, but for what is told in another way."""
    told = [finding.message for finding in report.findings]
    for line in lines:
        if not line.startswith(_TOLD) and line not in told:
            report.findings.append(Finding("reading", line))


def add_left_out(report: Report, root: Any, used: Iterable[str], also: Mapping[str, str]) -> None:
    """Which files below a folder are not read, by their kinds; `also` says what to do about some of them."""
    taken = set(used)
    names = [printable(name) for name, _ in walk_files(root) if not about_folder(name)]
    names = [name for name in names if name not in taken]
    kinds = Counter(map(suffix_of, names))
    report.facts["left_out"] = dict(kinds)
    if not kinds:
        return
    told = ", ".join(f"{count:,} x {kind}" for kind, count in kinds.most_common(8))
    hints = "; ".join(dict.fromkeys(also[kind] for kind in kinds if kind in also))
    report.add("left out", told)
    report.find("left_out", names, "not read, because of their suffix or place", hints, noun=FILE)


def counted(count: int, noun: tuple[str, str]) -> str:
    """A number of items in words."""
    return f"{count:,} {noun[count != 1]}"


def spread(values: np.ndarray, unit: str = "") -> str:
    """The least, the median and the most of some numbers."""
    least, middle, most = (int(np.quantile(values, share, method="nearest")) for share in (0, 0.5, 1))
    return f"{least:,} to {most:,}{unit}, half of them up to {middle:,}" if least != most else f"{least:,}{unit}"


def words_of(overrides: Sequence[str]) -> list[str]:
    """The words of the user's that say which data is meant."""
    return [word for word in overrides if split_key(word)[1].split(".")[0] == "data"]
