"""Fits the tokenizer of ``data.tokens=kmeans`` to a training split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from aigc_cli.config.schema import OF_ALL_DATA
from aigc_cli.data.base import Dataset
from aigc_cli.data.cache import digest_of, remembered
from aigc_cli.data.open import chosen_rows, items_at, open_dataset
from aigc_cli.data.tokens import KMEANS, tokenizers_folder
from aigc_cli.errors import tell
from aigc_cli.modalities.token_codec import is_whole
from aigc_cli.models.kmeans import LEARNT, KMeansConfig, KMeansTokenizer
from aigc_cli.training.tokenizer_folder import placed, write_tokenizer

CODES = 512  # of 300 spoken digits, 256 leave 41 that are not recognised, these 24, and two levels of them 6
_SECONDS = 0.032  # of a patch
_ROWS = 128  # clips that are encoded at a time
_VERSION = 2  # of how it is fitted


def fitted(values: Mapping[str, Any]) -> str:
    """Fits the tokenizer to the training split that a section `data` describes, unless that was done before, and puts
    it where new runs find it; the SHA-256 of its manifest.

    Raises:
        ConfigError: the data is not one of spectrograms of sound, or too small.
        DataError: it cannot be read.
    """
    dataset = open_dataset({key: value for key, value in values.items() if key not in OF_ALL_DATA}, "train")
    spec = replace(dataset.spec, classes=(), untrained=(), attributes=(), source=None)
    frames = max(1, round(_SECONDS * (spec.rate or 0) * spec.shape[-1] / spec.raw[-1]))
    settings = {"codes": values.get("codes") or CODES, "levels": values.get("residual") or 1, "frames": frames}
    model = KMeansTokenizer(KMeansConfig(name="kmeans", **settings), spec)

    def made() -> str:
        return placed(KMEANS, lambda folder: _write(dataset, model, {"name": values["name"]}, folder))

    key = digest_of([_VERSION, spec.fingerprint, sorted(dataset.codec.files().items()), settings])
    found = remembered("kmeans", key, made, str)
    return found if is_whole(tokenizers_folder() / found, found) else made()


def _write(dataset: Dataset, model: KMeansTokenizer, data: Mapping[str, Any], folder: Path) -> None:
    """Fits a tokenizer, and writes its folder."""

    def encoded(rows: list[int]) -> Iterator[Tensor]:
        for start in range(0, len(rows), _ROWS):
            yield dataset.codec.encode(items_at(dataset, rows[start : start + _ROWS]).content)

    chosen = chosen_rows(dataset, KMEANS)
    few = chosen[:_ROWS]  # of all kinds, as all that is learnt from has to be: files often lie kind by kind
    share = sum(map(model.heard, encoded(few))) / len(few)
    rows = sorted(chosen[: min(LEARNT, max(len(few), math.ceil(LEARNT / max(share, 1))))])
    tell(f"fitting {model.vocab_size - 1:,} codes to patches of {len(rows):,} training clips")
    model.fit(encoded(rows))
    about = {"model": dict(vars(model.config)), "data": data, "run": KMEANS, "step": 0}
    write_tokenizer(folder, about, model.spec, dataset.codec, model)
