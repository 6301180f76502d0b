"""What is nearly the same: pictures by small grey copies of them, texts by the pieces that they share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SIDE = 16  # pixels of a thumbnail
#: The correlation of two thumbnails that look the same. Of pictures that are all much alike, such as digits, those that
#: happen to be near correlate more than two copies of a photograph, so that they must correlate more still.
LEAST_ALIKE, MOST_ALIKE = 0.97, 0.995
_APART = 16.0  # grey levels that two alike may differ by, on average
_TOGETHER = 2048  # thumbnails that are compared at once
_SHINGLE = 12  # characters of a piece of text
_SKETCH = 48  # pieces that stand for a text
_BACK = 8  # texts before a text that it is held against, of those that share a piece with it
_SHARED = 0.7  # of its pieces, for two texts to be nearly the same


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Pixels (c, h, w) as grey averages, float32 (16, 16); an image of fewer pixels has them repeated."""
    grey: np.ndarray = pixels.mean(0, dtype=np.float32)
    for axis in (0, 1):
        size = grey.shape[axis]
        starts = np.arange(SIDE) * size // SIDE
        if size < SIDE:
            grey = grey.take(starts, axis)
        elif size > SIDE:
            widths = np.diff([*starts, size]).astype(np.float32)
            grey = np.add.reduceat(grey, starts, axis) / (widths[:, None] if axis == 0 else widths)
    return grey


def alike_pictures(thumbnails: np.ndarray) -> np.ndarray:
    """A number for all pictures that look the same, by thumbnails float32 (n, 16, 16): int64 (n,), -1 for those that
    look like no other.

    Two look the same where their thumbnails correlate, and are about as bright. All are compared with all that may be
    near: thumbnails at a distance d of each other differ by at most d in any direction, and few are as near as that
    along the direction in which they differ most.
    """
    flat = thumbnails.reshape(len(thumbnails), SIDE * SIDE)
    centred = flat - flat.mean(1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    places = np.flatnonzero(lengths > 3 * SIDE)  # what is all of one grey looks like much
    unit = centred[places] / lengths[places, None]
    if len(unit) < 2:
        return np.full(len(flat), -1)
    sample = unit[:: max(1, len(unit) // 4096)]
    axis = np.linalg.svd(sample - sample.mean(0), full_matrices=False)[2][0]
    along = unit @ axis
    order = np.argsort(along, kind="stable")
    places, unit, along = places[order], unit[order], along[order]
    alike = _threshold(unit)
    most = float(np.sqrt(2 - 2 * alike))
    sets = _Sets(len(flat))
    for start in range(0, len(unit), _TOGETHER):
        stop = min(start + _TOGETHER, len(unit))
        last = int(np.searchsorted(along, along[stop - 1] + most, side="right"))
        for first in range(start, last, _TOGETHER):
            other = min(first + _TOGETHER, last)
            rows, columns = np.nonzero(unit[start:stop] @ unit[first:other].T > alike)
            one, two = places[start + rows], places[first + columns]
            later = start + rows < first + columns
            near = np.abs(flat[one[later]] - flat[two[later]]).mean(1) < _APART
            sets.join(one[later][near], two[later][near])
    return sets.numbers()


def _threshold(unit: np.ndarray) -> float:
    """The correlation that two must have, by how near 2048 thumbnails (n, 256) of unit length are to each other."""
    sample = unit[:: max(1, len(unit) // _TOGETHER)][:_TOGETHER]
    products = sample @ sample.T
    np.fill_diagonal(products, -1)
    usual = np.quantile(products.max(1), 0.95)
    return float(np.clip(1 - (1 - usual) / 3, LEAST_ALIKE, MOST_ALIKE))


def sketch(text: str) -> np.ndarray:
    """The pieces that stand for a text, as hashes uint64 (at most 48,): of all its runs of 12 characters, in lower case
    and without white space, the least; texts that share most of their runs share most of these (Broder 1997)."""
    points = np.frombuffer("".join(text.lower().split()).encode("utf-32-le", "replace"), dtype=np.uint32)
    if len(points) < 2 * _SHINGLE:
        return np.zeros(0, dtype=np.uint64)
    count = len(points) - _SHINGLE + 1
    hashes = np.zeros(count, dtype=np.uint64)
    for shift in range(_SHINGLE):
        hashes = hashes * np.uint64(0x100000001B3) + points[shift : shift + count]
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    hashes ^= hashes >> np.uint64(29)
    hashes = np.unique(hashes)
    return hashes[:_SKETCH]  # unique has sorted them


def alike_texts(sketches: Sequence[np.ndarray]) -> np.ndarray:
    """A number for all texts whose sketches share most pieces: int64 (n,), -1 for those that are like no other."""
    sizes = np.array([len(some) for some in sketches], dtype=np.int64)
    sets = _Sets(len(sizes))
    if sizes.any():
        pieces = np.concatenate([some for some in sketches if len(some)])
        owners = np.repeat(np.arange(len(sizes)), sizes)
        order = np.argsort(pieces, kind="stable")
        pieces, owners = pieces[order], owners[order]
        starts = np.flatnonzero(np.concatenate([[True], pieces[1:] != pieces[:-1]]))
        firsts = np.repeat(owners[starts], np.diff([*starts, len(pieces)]))
        keys = [firsts * len(sizes) + owners]  # each text with the first that has the same piece, and the last few
        for back in range(1, min(_BACK, len(pieces) - 1) + 1):
            again = pieces[back:] == pieces[:-back]
            keys.append(owners[:-back][again] * len(sizes) + owners[back:][again])
        near = [np.unique(some, return_counts=True) for some in (keys[0], np.concatenate([keys[0][:0], *keys[1:]]))]
        for found, counts in near:
            one, two = np.divmod(found, len(sizes))
            shared = (counts >= _SHARED * np.minimum(sizes[one], sizes[two])) & (one != two)
            sets.join(one[shared], two[shared])
    return sets.numbers()


class _Sets:
    """Sets of places that grow together."""

    def __init__(self, n: int) -> None:
        self.parent = list(range(n))

    def _root(self, place: int) -> int:
        while self.parent[place] != place:
            self.parent[place] = place = self.parent[self.parent[place]]
        return place

    def join(self, one: np.ndarray, two: np.ndarray) -> None:
        """Puts those at the same place of both arrays together."""
        for a, b in zip(one.tolist(), two.tolist(), strict=True):
            first, second = sorted((self._root(a), self._root(b)))
            self.parent[second] = first

    def numbers(self) -> np.ndarray:
        """The number of each place's set; -1 where it is alone."""
        roots = np.array([self._root(place) for place in range(len(self.parent))], dtype=np.int64)
        counts = np.bincount(roots, minlength=len(roots))
        return np.where(counts[roots] > 1, roots, -1) if len(roots) else roots
