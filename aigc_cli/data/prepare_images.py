"""A cleaned copy of pictures: in class folders, or in parquet files as on the Hugging Face hub."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aigc_cli.data.alike import alike_pictures
from aigc_cli.data.base import SPLITS, Split
from aigc_cli.data.image_report import NOUN
from aigc_cli.data.picture_facts import Facts, facts_of, misnamed
from aigc_cli.data.prepare import Asked, Prepared, folder_names, free_name
from aigc_cli.data.report import groups_of, members
from aigc_cli.data.splits import names_of, part_for
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.image_decode import opened, pillow_errors, plain, upright
from aigc_cli.progress import Progress
from aigc_cli.registry import register

_ROWS = 5000  # of a parquet file
Parts = dict[Split, np.ndarray]  # the places of the pictures of each split
_AS_IT_IS = {("PNG", "L"), ("PNG", "RGB"), ("JPEG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB")}


@register("preparation", "image")
def prepare_images(asked: Asked, folder: Path) -> Prepared:
    """Writes pictures that can be read, each once, resized and turned, by split and class.

    Raises:
        DataError: none is left.
    """
    asked.refuse_format(("folder", "parquet"))
    size = asked.values.get("size") if asked.size == "auto" else asked.size
    look = asked.look(**({} if size is None else {"size": size}))
    prepared = Prepared(NOUN)
    if asked.values.get("labels") and not look.values.get("labels"):
        prepared.changed[f"without classes: {look.refused[0].message}"] = 1
    facts = facts_of(look)
    flat = facts.labels is not None and bool((facts.labels < 0).any())
    form = asked.refuse_format(("parquet", "folder") if flat else ("folder", "parquet"))
    if flat and form == "folder":
        raise ConfigError("a split has no classes, and others do: class folders cannot say so", "use format=parquet")
    kept = _kept(facts, asked, prepared)
    if not len(kept):
        raise DataError("there is nothing left of these pictures", "aigc data show says what is wrong with them")
    parts = _parts(facts, kept, asked, list(look.splits), prepared)
    prepared.items = {split: len(places) for split, places in parts.items()}
    resized = asked.size is not None
    for name, mask in (("turned as the EXIF says", facts.turned), ("of several frames, the first", facts.animated)):
        prepared.changed |= {name: int(mask[kept].sum())} if mask[kept].any() else {}
    with pillow_errors():
        write = _write_folder if form == "folder" else _write_parquet
        write(facts, parts, folder, resized)
    channels, height, _ = facts.part(int(kept[0])).shape
    name = "image_folder" if form == "folder" else "parquet"
    others = asked.kept(("size", "channels", "labels", "label_column", "image_column"))
    prepared.words = ["model=gan", f"data={name}", f"data.size={height}", f"data.channels={channels}", *others]
    return prepared


def _kept(facts: Facts, asked: Asked, prepared: Prepared) -> np.ndarray:
    """The places of the pictures that are written, in their order."""
    for place, reason in facts.failed.items():
        prepared.leave_out(f"cannot be read: {reason}", facts.names[place])
    blank = [place for place in facts.readable if facts.blank[place]]
    for place in blank:
        prepared.leave_out("a single colour", facts.names[place])
    kept = np.setdiff1d(facts.readable, blank)
    sets = members(groups_of(facts.digests[kept])) if asked.dedup else []
    left: set[int] = set()
    for some in sets:
        places = kept[some]
        torn = facts.labels is not None and len(set(facts.labels[places].tolist()) - {-1}) > 1
        keep = None if torn else _best(facts, places)
        for place in places.tolist():
            if place != keep:
                if keep is None:
                    prepared.leave_out("the same in several classes", facts.names[place])
                else:
                    prepared.leave_out("the same as another", f"{facts.names[place]} = {facts.names[keep]}")
                left.add(place)
    kept = np.array([place for place in kept.tolist() if place not in left], dtype=np.int64)
    if asked.dedup != "near":
        return kept
    for some in members(alike_pictures(facts.thumbnails[kept])):
        keep = _best(facts, kept[some])
        for place in kept[some].tolist():
            if place != keep:
                prepared.leave_out("nearly the same as another", f"{facts.names[place]} = {facts.names[keep]}")
                left.add(place)
    return np.array([place for place in kept.tolist() if place not in left], dtype=np.int64)


def _best(facts: Facts, places: np.ndarray) -> int:
    """Which of several is kept: one that is held out, so that nothing trained on is measured; else the largest."""
    order = np.lexsort((places, -facts.sizes[places].prod(1), -facts.of[places]))
    return int(places[order[0]])


def _parts(facts: Facts, kept: np.ndarray, asked: Asked, own: Sequence[Split], prepared: Prepared) -> Parts:
    """The places of each split: its own, or what a hash of the pixels of each holds out of the training part.

    A class that would not be trained on moves into the training part; of a split of its own, it is left out.
    """
    found: Parts = {"train": np.zeros(0, dtype=np.int64)}
    keys = {f"{int(facts.digests[place])} {'' if asked.dedup else place}": place for place in kept.tolist()}
    for split in SPLITS:
        part, cut = part_for(split, own, asked.cut)
        of_part = [key for key, place in keys.items() if SPLITS[facts.of[place]] == part]
        if part == "train" and of_part:
            first: dict[int, str] = {}  # of those that look the same, which are there where copies are kept
            origins = {key: first.setdefault(int(facts.digests[keys[key]]), key) for key in of_part}
            same = {key: origin for key, origin in origins.items() if key != origin}
            try:
                of_part = names_of(split, of_part, cut, "the copy", same)
            except ConfigError:  # nothing is to be held out
                continue
        found[split] = np.array([keys[key] for key in of_part], dtype=np.int64)
    if not len(found["train"]):  # there are too few to hold any out
        rest = {split: found[split] for split in found if split in own}
        found = {**rest, "train": kept[facts.of[kept] == SPLITS.index("train")]}
    if facts.labels is not None:
        trained = np.append(facts.labels[found["train"]], -1)
        for split in [split for split in found if split != "train"]:
            idle = ~np.isin(facts.labels[found[split]], trained)
            if split not in own:
                found["train"] = np.concatenate([found["train"], found[split][idle]])
            else:
                for place in found[split][idle].tolist():
                    prepared.leave_out("no training item has its class", facts.names[place])
            found[split] = found[split][~idle]
    return {split: np.sort(places) for split, places in found.items() if len(places)}


def _write_folder(facts: Facts, parts: Parts, folder: Path, resized: bool) -> None:
    classes = folder_names(facts.classes)
    taken: Counter[str] = Counter()
    with Progress(sum(map(len, parts.values())), "writing", "picture") as bar:
        for split, places in parts.items():
            for place in places.tolist():
                below = Path(split, *([] if facts.labels is None else [classes[int(facts.labels[place])]]))
                content, suffix = _encoded(facts, place, resized)
                stem = _plain(facts.names[place].rpartition("/")[2].rsplit(".", 1)[0])
                (folder / below).mkdir(parents=True, exist_ok=True)
                (folder / f"{free_name(f'{below}/{stem}', taken)}{suffix}").write_bytes(content)
                bar.advance()


def _plain(text: str) -> str:
    return re.sub(r"[^\w+=-]+", "_", text)[:80].strip("_") or "picture"


def _encoded(facts: Facts, place: int, resized: bool) -> tuple[bytes, str]:
    """A picture as a file, and the suffix of it."""
    from PIL import Image

    source = facts.encoded(place)
    if resized or source is None:
        pixels = facts.decode(place)
        image: Any = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    else:
        kind, mode, name = facts.kinds[place], facts.modes[place], facts.names[place]
        whole = (kind, mode) in _AS_IT_IS and not (facts.turned[place] or facts.animated[place])
        if whole and not misnamed(name, kind):
            return source.read_bytes() if isinstance(
                source, Path
            ) else source, f".{kind.lower().replace('jpeg', 'jpg')}"
        with opened(source) as there:
            there.load()
            turned = upright(there)
            grey = turned.mode in ("L", "LA", "1") or turned.mode.startswith("I")
            image = plain(turned, "L" if grey else "RGB").copy()
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue(), ".png"


def _write_parquet(facts: Facts, parts: Parts, folder: Path, resized: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    names = {"names": list(facts.classes), "_type": "ClassLabel"}
    with Progress(sum(map(len, parts.values())), "writing", "picture") as bar:
        for split, places in parts.items():
            labels = None if facts.labels is None or (facts.labels[places] < 0).any() else facts.labels
            features = {"image": {"_type": "Image"}, **({} if labels is None else {"label": names})}
            fields = [image, *([] if labels is None else [pa.field("label", pa.int64())])]
            about = {"huggingface": json.dumps({"info": {"features": features}})}
            files = list(_batches(places, _ROWS))
            for number, some in enumerate(files):
                rows = []
                for place in some.tolist():
                    content, suffix = _encoded(facts, place, resized)
                    row: dict[str, Any] = {"image": {"bytes": content, "path": f"{_plain(facts.names[place])}{suffix}"}}
                    rows.append(row if labels is None else {**row, "label": int(labels[place])})
                    bar.advance()
                table = pa.Table.from_pylist(rows, schema=pa.schema(fields, metadata=about))
                pq.write_table(table, folder / f"{split}-{number:05d}-of-{len(files):05d}.parquet")


def _batches(places: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
