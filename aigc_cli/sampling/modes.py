"""The ways to sample images: each by itself, reconstructions, walks between latents, a latent at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.open import chosen_rows, encoded, items_at
from aigc_cli.modalities.samples import ORIGINAL, RECONSTRUCTION, ROLE, Arrangement
from aigc_cli.models.latent import slerp
from aigc_cli.randomness import Noise
from aigc_cli.sampling.classes import balanced
from aigc_cli.sampling.generate import decoded, generate, in_batches, reconstruct
from aigc_cli.sampling.plans import Plan, Request, register_mode, source_of

_WALK, _MOVE = 8, 9  # frames in a row, unless the control says
_REACH = 3.0  # standard deviations that a latent is moved either way
_RANKED = 512  # held-out items that the activity of latents is measured on


@register_mode("image", "sample", ignores=["frames"])
def _samples(request: Request) -> Plan:
    """Each by itself; those of a model that knows classes stand below the names of theirs."""
    model = request.model
    classes = model.turns(request.controls)
    n = balanced(64, model, request.controls) if request.n is None else request.n
    arrangement = Arrangement(n=n)
    if classes:
        labels = [classes[index % len(classes)] for index in range(n)]
        arrangement = Arrangement(
            n=n,
            turns=tuple(model.spec.classes[label] for label in classes),
            facts={"class": [model.spec.classes[label] for label in labels]},
            named=("class",),
            labels=labels,
            classes=model.spec.classes,
        )

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        return generate(
            model, request.codec, range(n), seed=request.seed, device=request.device, batch_size=batch_size,
            controls=request.controls,
        )  # fmt: skip

    return Plan(arrangement=arrangement, batches=batches)


@register_mode("image", "reconstruct", hears=["mode"])
def _reconstructions(request: Request) -> Plan:
    """Held-out items above what the model makes of them; the seed decides which items."""
    split, dataset = request.held_out()
    n = request.counted(32, len(dataset), f"items in the {split} split")
    rows = chosen_rows(dataset, request.seed)[:n]
    held = items_at(dataset, rows)
    facts: dict[str, Sequence[Any]] = {
        ROLE: [ORIGINAL, RECONSTRUCTION] * n,
        "item": [row for row in rows for _ in range(2)],
    }
    labels = None if held.labels is None else [int(label) for label in held.labels for _ in range(2)]
    classes = dataset.spec.classes
    if labels is not None and classes:
        facts["class"] = [classes[label] for label in labels]
    arrangement = Arrangement(
        n=2 * n,
        row_titles=(ORIGINAL, RECONSTRUCTION),
        facts=facts,
        named=("class", ROLE) if "class" in facts else (ROLE,),
        labels=labels,
        classes=classes,
        summary=f"{n} {'item' if n == 1 else 'items'} of the {split} split and {'its' if n == 1 else 'their'} "
        f"reconstruction{'s' if n > 1 else ''}",
        group=2,
    )

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        for pair in reconstruct(request.model, dataset, rows, device=request.device, batch_size=batch_size):
            yield torch.stack(pair, dim=1).flatten(0, 1)

    return Plan(arrangement=arrangement, batches=batches, source=source_of(split, dataset))


@register_mode("image", "interpolate")
def _walks(request: Request) -> Plan:
    """Each row goes from the latent of one sample to that of the next of its class."""
    model = request.model
    classes = max(1, len(model.turns(request.controls)))
    frames = request.controls.frames or _WALK
    n = 8 if request.n is None else request.n
    shares = torch.linspace(0, 1, frames, device=request.device)

    def latents(rows: Sequence[int]) -> Tensor:
        firsts = [2 * (row // classes) * classes + row % classes for row in rows]
        starts = Noise(request.seed, firsts, request.device)
        ends = Noise(request.seed, [first + classes for first in firsts], request.device)
        return slerp(model.latents(starts, request.controls), model.latents(ends, request.controls), shares)

    labels = _labels(request, range(n))
    names = [] if labels is None else [model.spec.classes[label] for label in labels]
    arrangement = Arrangement(
        n=n * frames,
        row=True,
        row_titles=tuple(names),
        facts={
            "row": [row for row in range(n) for _ in range(frames)],
            "frame": list(range(frames)) * n,
            **({"class": [name for name in names for _ in range(frames)]} if names else {}),
        },
        named=("class", "frame") if names else ("frame",),
        labels=None if labels is None else [label for label in labels for _ in range(frames)],
        classes=model.spec.classes,
        summary=f"{n} {'walk' if n == 1 else 'walks'} of {frames} samples",
        group=frames,
    )
    return Plan(arrangement=arrangement, batches=_drawn_in_rows(request, arrangement, latents))


@register_mode("image", "traverse")
def _moves(request: Request) -> Plan:
    """Each row moves one dimension of the latent of sample 0 from -3 to 3, the most active dimension first."""
    model = request.model
    frames = request.controls.frames or _MOVE
    with torch.inference_mode():
        base = model.latents(Noise(request.seed, [0], request.device), request.controls)[0]
    order, source = _by_activity(request, len(base))
    n = request.counted(8, len(order), "latent dimensions")
    values = torch.linspace(-_REACH, _REACH, frames, device=request.device)

    def latents(rows: Sequence[int]) -> Tensor:
        moved = base.repeat(len(rows), frames, 1)
        for place, row in enumerate(rows):
            moved[place, :, order[row]] = values
        return moved

    labels = _labels(request, [0])
    shown = [round(value, 3) for value in values.tolist()]
    arrangement = Arrangement(
        n=n * frames,
        row=True,
        title=None if labels is None else model.spec.classes[labels[0]],
        column_titles=tuple(f"{value:g}" for value in shown),
        row_titles=tuple(f"z{dimension}" for dimension in order[:n]),
        facts={
            "dimension": [dimension for dimension in order[:n] for _ in range(frames)],
            "frame": list(range(frames)) * n,
            "value": shown * n,
        },
        named=("dimension", "frame"),
        labels=None if labels is None else labels * (n * frames),
        classes=model.spec.classes,
        summary=f"{n} latent {'dimension' if n == 1 else 'dimensions'}, {frames} samples each",
        group=frames,
    )
    return Plan(arrangement=arrangement, batches=_drawn_in_rows(request, arrangement, latents), source=source)


def _by_activity(request: Request, size: int) -> tuple[list[int], dict[str, Any]]:
    """The dimensions of the latent by how much the latents of held-out items vary in them, and which items those are.

    A dimension that the model does not use stays at its prior's mean for whatever it encodes (Burda et al.,
    Importance Weighted Autoencoders, 2016, section 5.2). Of a model that does not encode they come as they are.
    """
    model = request.model
    if "encode" not in model.can:
        return list(range(size)), {}
    split, dataset = request.held_out()
    rows = chosen_rows(dataset, "activity")[:_RANKED]

    def encode(some: Sequence[int]) -> Tensor:
        return model.encode(encoded(items_at(dataset, some).to(request.device), dataset.codec)).double().cpu()

    latents = torch.cat(list(in_batches(encode, rows, model.held(), request.device)))
    order: list[int] = latents.var(dim=0, correction=0).argsort(descending=True, stable=True).tolist()
    return order, source_of(split, dataset)


def _labels(request: Request, indices: Sequence[int]) -> list[int] | None:
    labels = request.model.labels(indices, request.controls, request.device)
    return None if labels is None else [int(label) for label in labels]


def _drawn_in_rows(
    request: Request, arrangement: Arrangement, latents: Callable[[Sequence[int]], Tensor]
) -> Callable[[int | None], Iterator[Tensor]]:
    """The batches of samples whose latents come in rows: `latents` maps rows (r,) to (r, frames, d)."""
    model, frames = request.model, arrangement.group

    def draw(some: Sequence[int]) -> Tensor:
        first, last = some[0] // frames, some[-1] // frames
        made = latents(range(first, last + 1)).flatten(0, 1)
        chosen = made[[index - first * frames for index in some]]
        labels = None
        if arrangement.labels is not None:
            labels = torch.tensor([arrangement.labels[index] for index in some], device=request.device)
        what = f"samples {some[0]} to {some[-1]} of seed {request.seed}"
        return decoded(model.decode(chosen, labels), request.codec, what)

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        return in_batches(draw, range(arrangement.n), model.held(), request.device, batch_size)

    return batches
