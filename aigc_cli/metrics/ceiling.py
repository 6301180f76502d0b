"""What a model of codes can reach at best: held-out items, as its tokenizer gives them back.

Samples go through the same tokenizer, so that what it loses of an item is lost in every sample too. It is worth a look
before a training, and beside every score.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from aigc_cli.data.open import Splits, chosen_rows, items_at
from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.items import SampledItems
from aigc_cli.metrics.passages import items_of
from aigc_cli.metrics.views import Views
from aigc_cli.modalities.base import Batch, Items, modality
from aigc_cli.modalities.token_codec import LearnedCodec, TokenCodec

#: Training items whose codes say how many of all codes are in use, and the share below which that is worth a warning.
COUNTED, FEW = 2048, 0.2
#: How often each code could have been seen, at least: of a handful of items most codes are absent however good it is.
_OFTEN = 4
_TOGETHER = 256


def through_tokenizer(splits: Splits, device: torch.device) -> SampledItems | None:
    """Held-out items as the tokenizer, or the autoencoder, of the data gives them back; None where the data has none.

    Raises:
        ConfigError: nothing is held out.
        DataError: the data cannot be read.
    """
    codec = splits["train"].codec
    if not isinstance(codec, LearnedCodec):
        return None
    split, dataset = splits.held_out("train")
    items = items_of(dataset, split, splits.name)

    def stream() -> Iterator[Batch]:
        for batch in items.batches(_TOGETHER):
            yield batch.with_content(codec.decode(codec.encode(batch.content.to(device))).cpu())

    called = f"{items.called} as reconstructed by the tokenizer"
    return SampledItems(stream, len(items), items.spec, items.asked_about(), called=called)


def usage(splits: Splits, device: torch.device) -> float:
    """The share of all codes that some training items have."""
    dataset = splits["train"]
    assert isinstance(dataset.codec, TokenCodec), "the data is seen as codes"
    content = items_at(dataset, sorted(chosen_rows(dataset, "codes")[:COUNTED])).content
    codes = torch.cat(
        [dataset.codec.encode(part.to(device)).flatten().cpu() for part in torch.split(content, _TOGETHER)]
    )
    return int((torch.bincount(codes) > 0).sum()) / dataset.codec.codes


def ceiling(splits: Splits, device: torch.device, *, brief: bool = False) -> list[str]:
    """Lines that say what the tokenizer of the data allows; none where the data has none. Warns of one that hardly uses
    its codes, and of a ceiling that cannot be measured. Before a `brief` run no network learns to measure it."""
    codec = splits["train"].codec
    if not isinstance(codec, LearnedCodec):
        return []
    known = str(codec)
    if isinstance(codec, TokenCodec):
        share, seen = usage(splits, device), min(COUNTED, len(splits["train"])) * math.prod(codec.grid)
        if share < FEW and seen >= _OFTEN * codec.codes:
            warn(
                f"the tokenizer uses {share:.0%} of its {codec.codes:,} codes: it was trained too short, or has too "
                "many; train it with fewer (model.codes=), or longer"
            )
        known = f"{codec}, {share:.0%} in use"
    if splits["train"].spec.source is not None:  # what counts is what is understood, which takes a network to learn
        return [f"{known}; `aigc eval` says how many words are understood through them"]
    try:
        made = through_tokenizer(splits, device)
        assert made is not None, "the data has a tokenizer"
        told = _measured(splits, made, device, learns=not brief)
    except (ConfigError, DataError) as error:
        if not brief:
            warn(f"what the tokenizer allows at best is not known: {error.message}")
        told = "reconstructions were not measured" + (", which aigc eval does" if brief else "")
    return [f"{known}; {told}"]


def _measured(splits: Splits, made: Items, device: torch.device, *, learns: bool) -> str:
    views = Views(Sources(device=device, splits=splits, learns=learns))
    reference = items_of(splits["train"], "train", splits.name)
    split, dataset = splits.held_out("train")
    real = items_of(dataset, split, splits.name)
    config: dict[str, Any] = {"fd": {"name": "fd", "extractor": views.usual_extractor}}
    (record,) = Evaluation(config, views, reference, real).of(made)
    (name, value), *_ = record.labelled().items()
    own = record.baseline
    beside = "" if own is None else f", these themselves {own.figures['fd']:.3g}"
    noun = modality(made.spec.modality).noun[1]
    found = f"reconstructions of {len(made):,} {split} {noun} have {name} {value:.3g}{beside}"
    return f"{found}: samples will hardly do better"
