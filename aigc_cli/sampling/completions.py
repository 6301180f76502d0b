"""What is left of an item completed: held-out ones, or a file of one's own, which are kept but for a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import modality
from aigc_cli.modalities.samples import ORIGINAL, ROLE, Arrangement
from aigc_cli.modalities.token_codec import TokenCodec
from aigc_cli.models.base import Prompts
from aigc_cli.sampling.generate import Plan, Request

COMPLETED = "completed"


def completions(request: Request) -> Plan:
    """Prompts, or held-out items, with anew what the controls leave out, each item below what it was.

    Raises:
        ConfigError: a prompt cannot be read.
    """
    model = request.model
    if request.prompts:
        return _of_prompts(request)
    held = request.items(max(1, request.usual // 2))
    n, classes, labels = len(held.rows), held.dataset.spec.classes, None
    facts: dict[str, Any] = {ROLE: [ORIGINAL, COMPLETED] * n, "item": [row for row in held.rows for _ in range(2)]}
    if held.batch.labels is not None and model.conditional:
        labels = held.batch.labels.tolist()
        turns = [] if request.controls.class_ is None else model.turns(request.controls)
        told = [turns[index % len(turns)] for index in range(n)] if turns else labels
        facts["class"] = [classes[label] for pair in zip(labels, told, strict=True) for label in pair]
    arrangement = Arrangement(
        n=2 * n, facts=facts, named=tuple(name for name in ("class", ROLE) if name in facts), group=2,
        row_titles=(ORIGINAL, COMPLETED), summary=f"{held}, completed",
    )  # fmt: skip
    drawn = request.drawn(n, _kept(request, held.batch.content, labels))

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        start = 0
        for made in drawn(batch_size):
            originals = held.batch.content[start : start + len(made)]
            yield torch.stack([originals, made], dim=1).flatten(0, 1)
            start += len(made)

    return Plan(arrangement, batches, held.source)


def _of_prompts(request: Request) -> Plan:
    kind = modality(request.model.spec.modality)
    contents = []
    for prompt in request.prompts:
        try:
            contents.append(kind.parse(prompt.text, request.codec).content)
        except ConfigError as error:
            raise ConfigError(f"{prompt.where}{prompt.text}: {error.message}", error.hint) from None
    n = (request.n or max(1, request.usual // 4)) * len(contents)
    facts = {"prompt": [request.prompts[index % len(contents)].text for index in range(n)]}
    return Plan(Arrangement(n=n, facts=facts), request.drawn(n, _kept(request, torch.cat(contents))))


def _kept(request: Request, content: Tensor, labels: Sequence[int] | None = None) -> Prompts:
    """Raw items (n, ...) as what a model is to complete: codes without those that are to be made anew; of a model that
    sees no codes, whole, since it knows itself what it leaves out."""
    model, codec = request.model, request.codec
    encoded = codec.encode(content.to(request.device))
    if not isinstance(codec, TokenCodec):
        return Prompts((), labels=labels, items=encoded)
    left_out, mask = cast(Any, model).left_out(codec.grid, request.controls), model.mask
    left_out = [out for out in left_out for _ in range(codec.codebooks)]
    rows: list[list[int]] = encoded.tolist()
    if mask is None:  # what it writes follows what it is given
        return Prompts([row[: left_out.index(True)] for row in rows], labels=labels)
    shown = [[mask if out else code for code, out in zip(row, left_out, strict=True)] for row in rows]
    return Prompts(shown, labels=labels)
