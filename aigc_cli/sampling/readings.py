"""What a trained model makes of content that it is given: vectors or latents of it, and how likely it finds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, suggest
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.prompts import Lines
from aigc_cli.modalities.text_files import without_surrogates
from aigc_cli.nn.decoding import padded
from aigc_cli.randomness import Noise
from aigc_cli.training.restore import Restored

#: Texts, or raw content (n, ...) as samples and datasets have it, such as uint8 pixels.
Content = Tensor | Sequence[str]
#: A class for each item, by its name or its number.
Labels = Sequence[str | int] | Tensor


def encode(restored: Restored, items: Content, labels: Labels | None = None, batch_size: int = 64) -> Tensor:
    """A vector for each item, float32 (n, d), or its codes where the model makes those; on the CPU.

    Raises:
        ConfigError: the model has no encoder, or the items are not what it reads.
    """
    name = restored.run.name
    if "encode" not in restored.model.can:
        raise ConfigError(f"{name} gives no vectors: its model has no encoder", "name a run of model=bert or model=vae")
    parts = []
    with torch.inference_mode():
        for batch in _batches(restored, items, labels, None, batch_size, scored=False):
            made = restored.model.encode(batch).cpu()
            parts.append(made.float() if made.is_floating_point() else made)
    return torch.cat(parts)


def decode(restored: Restored, latents: Tensor, labels: Labels | None = None, batch_size: int = 64) -> Tensor:
    """Raw content (n, ...) on the CPU, of latents as :func:`encode` gives them.

    Raises:
        ConfigError: the model does not decode.
    """
    model = restored.model
    if "decode" not in model.can:
        raise ConfigError(f"{restored.run.name} decodes nothing: its model has no decoder", "name a run of model=vae")
    numbers = _numbers(restored, labels, len(latents))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(latents), batch_size):
            own = None if numbers is None else numbers[start : start + batch_size].to(restored.device)
            some = latents[start : start + batch_size].to(restored.device)
            parts.append(restored.codec.decode(model.decode(some, own)).cpu())
    return torch.cat(parts)


def score(
    restored: Restored, items: Content, *, labels: Labels | None = None, sources: Content | None = None,
    seed: int = 0, samples: int | None = None, batch_size: int = 64,
) -> dict[str, Tensor]:  # fmt: skip
    """How likely the model finds each item: its held-out scores by name, each (n,), such as ``nelbo``, in nats.

    Of texts that are windows of a longer one, the first token follows what writing from nothing begins after. `seed` is
    of what a bound draws, for which `samples` are drawn an item; None is as many as in evaluation.

    Raises:
        ConfigError: the model scores nothing, or the items are not what it reads.
    """
    model = restored.model
    if "score" not in model.can:
        raise ConfigError(f"{restored.run.name} has no likelihood", "name a run of a VAE, a flow or a model of text")
    found: dict[str, list[Tensor]] = {}
    start = 0
    with torch.inference_mode():
        for batch in _batches(restored, items, labels, sources, batch_size, scored=True):
            noise = Noise(seed, range(start, start + len(batch)), restored.device)
            for name, values in model.score(batch, noise, samples or model.probes).items():
                found.setdefault(name, []).append(values.cpu())
            start += len(batch)
    return {name: torch.cat(parts) for name, parts in found.items()}


def embed(restored: Restored, lines: Lines, batch_size: int = 64) -> Tensor:
    """A vector for each line of text, float32 (n, width), on the CPU; a line that is too long is cut.

    Raises:
        ConfigError: the model gives no vectors, or is not of text.
    """
    spec, model, name = restored.spec, restored.model, restored.run.name
    if not restored.codec.readable or spec.source is not None:
        raise ConfigError(f"aigc embed reads text, and {name} is of {spec.kind}", "name a run on text")
    if "encode" not in model.can:
        raise ConfigError(f"{name} gives no vectors: its model has no encoder", "name a run of model=bert")
    rows = lines.tokens(restored.codec, spec.shape[0] - 1, whole="decode" in model.can)
    vectors = []
    with torch.inference_mode():
        for first in range(0, len(rows), batch_size):
            content = padded(rows[first : first + batch_size], spec.special("pad") or 0, restored.device)
            vectors.append(model.encode(Batch(content)).float().cpu())
    found = torch.cat(vectors)
    if not bool(torch.isfinite(found).all()):
        worst = list(lines.texts)[int((~torch.isfinite(found)).any(1).nonzero()[0])]
        raise ConfigError(f"line {worst} is too short for {name} to give it a vector", "leave it out")
    return found


def _batches(
    restored: Restored, items: Content, labels: Labels | None, sources: Content | None, size: int, *, scored: bool
) -> Iterator[Batch]:
    """The items as the model sees them, a batch at a time, on its device."""
    if not len(items):
        raise ConfigError("there are no items", "give at least one")
    if restored.codec.readable:
        rows = _rows(restored, items, scored=scored)
        if (sources is None) == (restored.spec.source is not None):
            what = "is given no sources" if sources is None else "has no sources"
            raise ConfigError(f"{restored.run.name} {what}", "only a translator scores items by their sources")
        others = None if sources is None else _rows(restored, sources, scored=False)
        if others is not None and len(others) != len(rows):
            raise ConfigError(f"there are {len(rows)} items and {len(others)} sources", "give a source for each")
        pad = restored.spec.special("pad") or 0
        for start in range(0, len(rows), size):
            source = None if others is None else padded(others[start : start + size], pad, restored.device)
            yield Batch(padded(rows[start : start + size], pad, restored.device), source=source)
        return
    content, numbers = _raw(restored, items), _numbers(restored, labels, len(items))
    for start in range(0, len(content), size):
        raw = content[start : start + size].to(restored.device)
        own = None if numbers is None else numbers[start : start + size].to(restored.device)
        yield Batch(restored.codec.encode(raw), own)


def _raw(restored: Restored, items: Content) -> Tensor:
    raw, name = restored.spec.raw, restored.run.name
    shape = "x".join(map(str, raw))
    if not isinstance(items, Tensor):
        raise ConfigError(f"{name} reads {restored.spec.kind}, and these are texts", f"give a tensor (n, {shape})")
    if items.is_floating_point() or tuple(items.shape[1:]) != tuple(raw):
        what = f"{str(items.dtype).removeprefix('torch.')} of {'x'.join(map(str, items.shape))}"
        raise ConfigError(f"these are {what}, and {name} reads raw content, integers (n, {shape})",
                          "give what run.sample() or a dataset gives")  # fmt: skip
    return items


def _rows(restored: Restored, items: Content, *, scored: bool) -> list[list[int]]:
    """The token ids of texts, between the tokens of their ends where the model takes texts so; characters that the
    vocabulary lacks are read as `unk`, as in the data."""
    if isinstance(items, (Tensor, str)):
        raise ConfigError(f"{restored.run.name} reads texts", 'give a list of strings, such as ["to be, or not"]')
    codec: Any = restored.codec
    specials: Mapping[str, int] = dict(restored.spec.specials)
    whole = bool(codec.opening) or "decode" in restored.model.can or restored.spec.source is not None
    before = [specials["bos"]] if whole else [codec.start] if scored else []

    def tokens(text: str) -> list[int]:
        return list(codec.tokenizer.encode(without_surrogates(text)[0]).tolist())

    rows = [[*before, *tokens(text), *([specials["eos"]] if whole else [])] for text in items]
    most = restored.spec.shape[0] if scored or whole else restored.spec.shape[0] - 1
    for place, row in enumerate(rows):
        if not len(before) < len(row) <= most:
            what = f"has {len(row)} tokens, its ends included, and this model reads {most}" if row else "is empty"
            raise ConfigError(f"text {place} {what}", "shorten it, or cut it in parts" if row else "leave it out")
    return rows


def _numbers(restored: Restored, labels: Labels | None, n: int) -> Tensor | None:
    """The classes (n,), int64, where the model is told them."""
    if not restored.model.conditional:
        if labels is not None:
            raise ConfigError(f"{restored.run.name} was trained without classes", "leave labels= out")
        return None
    classes = restored.spec.classes
    if labels is None or len(labels) != n:
        what = "is told the class of what it reads" if labels is None else f"is given {len(labels)} labels of {n} items"
        raise ConfigError(f"{restored.run.name} {what}", f"give labels=, a class for each: {', '.join(classes[:12])}")
    found = []
    for label in labels.tolist() if isinstance(labels, Tensor) else labels:
        if label not in classes and not (isinstance(label, int) and 0 <= label < len(classes)):
            raise ConfigError(f"there is no class {label}", suggest(str(label), classes, limit=20))
        found.append(label if isinstance(label, int) else classes.index(label))
    return torch.tensor(found)
