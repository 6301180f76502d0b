"""A cleaned copy of sound: the files as they are, but for those that cannot be used, by split and class."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from aigc_cli.data.audio_report import Facts, facts_of
from aigc_cli.data.base import SPLITS
from aigc_cli.data.prepare import Asked, Prepared, folder_names, free_name
from aigc_cli.data.report import groups_of, look_at, members
from aigc_cli.data.sound_files import NOUN
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.text_files import printable
from aigc_cli.progress import Progress
from aigc_cli.registry import register


@register("preparation", "audio")
def prepare_audio(asked: Asked, folder: Path) -> Prepared:
    """Copies the files that can be used, each once, into the splits that training has.

    Raises ConfigError for data that is not files, and DataError where nothing is left.
    """
    asked.refuse_format(("folder",))
    if asked.size != "auto" or asked.dedup == "near":
        word = "dedup=near" if asked.dedup == "near" else f"size={asked.size}"
        raise ConfigError(f"{word} is for pictures", "leave it out: files of sound are copied as they are")
    look = look_at(asked.values)
    facts = facts_of(look)
    if facts is None:
        raise ConfigError(f"data={asked.values['name']} is ready as it is", "train on it, or name a folder of your own")
    prepared = Prepared(NOUN, ["model=gan", "data=audio_folder", *asked.kept(("labels", "label_column"))])
    kept = _kept(facts, asked, prepared)
    if not len(kept):
        raise DataError("there is nothing left of these files", "aigc data show says what is wrong with them")
    taken: Counter[str] = Counter()
    classes = folder_names(facts.classes)
    with Progress(len(kept), "copying", "file") as bar:
        for place in kept.tolist():
            split = SPLITS[facts.of[place]]
            label = -1 if facts.labels is None else int(facts.labels[place])
            _copy(facts, place, folder.joinpath(split, *([] if label < 0 else [classes[label]])), taken)
            prepared.items[split] = prepared.items.get(split, 0) + 1
            bar.advance()
    return prepared


def _kept(facts: Facts, asked: Asked, prepared: Prepared) -> np.ndarray:
    """The places of the files that are copied."""
    left = set()
    for place, entry in enumerate(facts.entries):
        if entry.reason:
            prepared.leave_out(f"cannot be used: {entry.reason}", facts.names[place])
            left.add(place)
    usable = facts.usable
    digests = np.array([int(facts.entries[place].digest, 16) for place in usable.tolist()], dtype=np.uint64)
    for some in members(groups_of(digests)) if asked.dedup else []:
        places = usable[some].tolist()
        torn = facts.labels is not None and len(set(facts.labels[places].tolist()) - {-1}) > 1
        keep = max(places, key=lambda place: facts.of[place])  # one that is held out is not to be trained on
        for place in places:
            if torn:
                prepared.leave_out("the same in several classes", facts.names[place])
            elif place != keep:
                prepared.leave_out("the same as another", f"{facts.names[place]} = {facts.names[keep]}")
            if torn or place != keep:
                left.add(place)
    return np.array([place for place in usable.tolist() if place not in left], dtype=np.int64)


def _copy(facts: Facts, place: int, below: Path, taken: Counter[str]) -> None:
    """Writes a file as it is under its own name, or with a number more where that is taken."""
    part = facts.parts[SPLITS[facts.of[place]]]
    first = int(np.flatnonzero(facts.of == facts.of[place])[0])
    key = part.keys[place - first]
    path = below / printable(str(key).rsplit("/", 1)[-1])
    path = Path(free_name(str(path.with_suffix("")), taken) + path.suffix)
    below.mkdir(parents=True, exist_ok=True)
    found = part.read(key)
    if isinstance(found, bytes):
        path.write_bytes(found)
    else:
        shutil.copyfile(found, path)
