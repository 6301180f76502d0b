"""What is made from prompts, or from held-out items in their place: what follows, translations, walks, gaps filled.

Prompts are for models of tokens, and files whose content is encoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, warn
from aigc_cli.modalities.base import Batch, DataSpec, modality
from aigc_cli.modalities.prompts import Prompt, text_with_gaps, tokens_with_gaps
from aigc_cli.modalities.samples import ORIGINAL, RECONSTRUCTION, ROLE, Arrangement
from aigc_cli.modalities.spoken import SpokenText
from aigc_cli.models.base import Prompts
from aigc_cli.nn.decoding import padded
from aigc_cli.randomness import permutation
from aigc_cli.sampling.generate import Batches, HeldOut, Plan, Request

_LEFT_OUT = 0.15  # of the tokens of a held-out item

Rows = Sequence[Sequence[int]]


def beginnings(request: Request) -> Prompts | None:
    """The prompts as what samples go on from; None where there are none.

    A prompt may end in the middle of a word, or with the space that begins one, where no text is cut into tokens: then
    its last token is drawn again, from those that begin as it does.

    Raises:
        ConfigError: one cannot be read, or leaves no room to write in.
    """
    if not request.prompts:
        return None
    rows, first = [], []
    for prompt in request.prompts:
        row = _tokens(request, prompt)
        others = request.codec.extensions(row[-1]) if len(row) > 1 else []
        rows.append(row[:-1] if len(others) > 1 else row)
        first.append(others if len(others) > 1 else [])
    if request.model.moves_on:
        _warn_of_unread(request, rows)
    else:
        more = request.controls.max_tokens or 1
        _check_lengths(request, request.prompts, rows, room=1)
        most, longest = request.model.spec.shape[0], max(map(len, rows))
        if longest + more > most:
            raise ConfigError(
                f"max_tokens={more}: this model reads {most} tokens, and a prompt has {longest}",
                f"choose max_tokens={most - longest} or less, or train on longer items (data.context=)",
            )
    return Prompts(rows, first)


def translations(request: Request) -> Plan:
    """What is made of prompts, of a blank one nothing; without any, of the sources of held-out items, beside what these
    are."""
    prompts, spec = request.prompts, request.model.spec
    if not request.codec.readable:
        return _said(request)
    if prompts:
        rows = _whole(request, prompts, blank=len(prompts) > 1)  # lines of a file
        plan = _of_prompts(request, rows, 1, "source", "translation")
        return replace(plan, batches=_with_blanks(plan.batches, prompts, spec.special("pad") or 0))
    held = request.items(request.usual)
    source, content, end = held.batch.source, held.batch.content, spec.special("eos")
    assert source is not None, "the items have sources"
    # A source that the data has cut has no end, which the model is given and needs room for.
    rows = [row if row[-1] == end else row[: spec.shape[0] - 1] for row in _rows(source, spec)]
    facts = {"source": request.codec.text(source), "reference": request.codec.text(content)}
    return _of_items(request, held, rows, facts, "translation", "translated")


def _said(request: Request) -> Plan:
    """Prompts, or what held-out items say, said by the voices that are asked for in turn, or else of those items."""
    model, prompts = request.model, request.prompts
    turns, voices, source = model.turns(request.controls), model.spec.classes, {}
    if prompts:
        rows, labels, texts = _whole(request, prompts), turns, [prompt.text for prompt in prompts]
        n = (request.n or (len(turns) or 1 if len(rows) == 1 else 1)) * len(rows)
    else:
        held = request.items(request.usual)
        assert held.batch.source is not None, "the items have sources"
        assert request.codec.source is not None, "it reads texts"
        texts, source, n = request.codec.source.text(held.batch.source) or [], held.source, len(held.rows)
        rows = _rows(held.batch.source, model.spec.source or model.spec)
        own = None if held.batch.labels is None or not turns else held.batch.labels.tolist()
        labels = own if own and request.controls.class_ is None else turns
    who = [labels[index % len(labels)] for index in range(n)] if labels else None
    facts = {"speaker": [voices[label] for label in who]} if who else {}
    facts["says"] = [texts[index % len(texts)] for index in range(n)]
    arrangement = Arrangement(n=n, facts=facts, named=tuple(facts), labels=who, classes=voices if who else ())
    return Plan(arrangement, request.drawn(n, Prompts(rows, labels=labels or None)), source)


def infills(request: Request) -> Plan:
    """Prompts with their gaps filled; without any, held-out items of which some tokens are left out."""
    prompts, codec, spec, mask = request.prompts, request.codec, request.model.spec, request.model.mask
    assert mask is not None, "a model that fills gaps has a token for them"
    if prompts:
        canvases = [tokens_with_gaps(prompt, codec, mask, request.controls.gap) for prompt in prompts]
        _check_lengths(request, prompts, canvases)
        return _of_prompts(request, canvases, request.usual, "prompt", "filled")
    held = request.items(max(1, request.usual // 2))
    items, special = _rows(held.batch.content, spec), {token for _, token in spec.specials}
    canvases = []
    for item, row in zip(items, held.rows, strict=True):
        places = [place for place, token in enumerate(item) if token not in special]
        order = permutation(len(places), "gaps", request.seed, row)
        out = {places[place] for place in order[: max(1, round(_LEFT_OUT * len(places)))]}
        canvases.append([mask if place in out else token for place, token in enumerate(item)])
    facts = {
        name: [text_with_gaps(row, codec, mask) for row in rows]
        for name, rows in (("prompt", canvases), (ORIGINAL, items))
    }
    return _of_items(request, held, canvases, facts, "filled", "with gaps filled")


def reconstructions(request: Request) -> Plan:
    """Prompts with what the model makes of their latents."""
    request.warn_of_n()
    latents, n = encoded(request, request.prompts), len(request.prompts)
    if request.model.spec.vocab_size is None:
        return _of_files(request, latents)
    arrangement = Arrangement(
        n=n, facts={ORIGINAL: [prompt.text for prompt in request.prompts]}, beside=(ORIGINAL,), text=RECONSTRUCTION,
        summary=f"{n} {'reconstruction' if n == 1 else 'reconstructions'} of prompts",
    )  # fmt: skip
    return Plan(arrangement, request.decoded(n, lambda some: latents[list(some)]))


def path(request: Request) -> list[Prompt]:
    """What a walk goes by; nothing where it goes between draws; a :class:`ConfigError` where there is only one."""
    last = getattr(request.controls, "to", None)
    found = [*request.prompts, *([] if last is None else [Prompt(last, "to=")])]
    if len(found) == 1:
        other, noun = "to=" if last is None else "prompt=", modality(request.model.spec.modality).noun[1]
        raise ConfigError(
            f"mode=interpolate walks between {noun}, and {found[0].where} is one",
            f"give {other} too, or prompt_file= with a text a line; without any it walks between draws",
        )
    return found


def encoded(request: Request, prompts: Sequence[Prompt]) -> Tensor:
    """The latents (k, d) of prompts; a :class:`ConfigError` of one that is too long, or cannot be read."""
    if request.model.spec.vocab_size is None:
        label = class_of_prompts(request)
        content = torch.cat([_content(request, prompt) for prompt in prompts]).to(request.device)
        labels = None if label is None else torch.full((len(content),), label, device=request.device)
        with torch.inference_mode():
            return request.model.encode(Batch(request.codec.encode(content), labels))
    content = padded(_whole(request, prompts), request.model.spec.special("pad") or 0, request.device)
    with torch.inference_mode():
        return request.model.encode(Batch(content))


def class_of_prompts(request: Request) -> int | None:
    """The class that a model which is told classes is told of prompts; a :class:`ConfigError` where none is named."""
    if not request.model.conditional:
        return None
    turns = request.model.turns(request.controls)
    if len(turns) != 1:
        raise ConfigError("this model is told the class of what it encodes", "name that of the prompt with class=")
    return turns[0]


def _of_files(request: Request, latents: Tensor) -> Plan:
    """A plan of the content of files, each above what is made of its latent."""
    originals = torch.cat([_content(request, prompt) for prompt in request.prompts])
    n, label = len(originals), class_of_prompts(request)
    files = [prompt.text for prompt in request.prompts for _ in range(2)]
    arrangement = Arrangement(
        n=2 * n, facts={ROLE: [ORIGINAL, RECONSTRUCTION] * n, "prompt": files}, named=(ROLE,), group=2,
        row_titles=(ORIGINAL, RECONSTRUCTION),
        summary=f"{n} {'prompt and its reconstruction' if n == 1 else 'prompts and their reconstructions'}",
    )  # fmt: skip
    made = request.decoded(n, lambda some: latents[list(some)], None if label is None else [label] * n)

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        start = 0
        for part in made(batch_size):
            yield torch.stack([originals[start : start + len(part)], part], dim=1).flatten(0, 1)
            start += len(part)

    return Plan(arrangement, batches)


def _content(request: Request, prompt: Prompt) -> Tensor:
    """What is in the file that a prompt names, raw, (1, ...)."""
    try:
        return modality(request.model.spec.modality).parse(prompt.text, request.codec).content
    except ConfigError as error:
        raise ConfigError(f"{prompt.where}: {error.message}", error.hint) from None


def _of_prompts(request: Request, rows: Rows, each: int, name: str, text: str) -> Plan:
    """A plan of what is made of prompts, `rows` of token ids, so many times each."""
    n = (request.n or each) * len(rows)
    facts = {name: [request.prompts[index % len(rows)].text for index in range(n)]}
    arrangement = Arrangement(n=n, facts=facts, beside=(name,), text=text)
    return Plan(arrangement, request.drawn(n, Prompts(rows)))


def _with_blanks(batches: Batches, prompts: Sequence[Prompt], pad: int) -> Batches:
    """The same batches with nothing for prompts that are blank: what is made of line n of a file stays in line n."""
    blank = [not prompt.text.strip() for prompt in prompts]
    if not any(blank):
        return batches

    def draw(batch_size: int | None) -> Iterator[Tensor]:
        begun = 0
        for raw in batches(batch_size):
            places = [place for place in range(len(raw)) if blank[(begun + place) % len(blank)]]
            begun += len(raw)
            yield raw.index_fill(0, torch.tensor(places, dtype=torch.int64), pad)

    return draw


def _of_items(
    request: Request, held: HeldOut, rows: Rows, facts: Mapping[str, list[str] | None], text: str, what: str
) -> Plan:
    """A plan of what is made of held-out items, given as `rows` of token ids, beside what can be read of them."""
    read: dict[str, Any] = {name: found for name, found in facts.items() if found is not None}
    arrangement = Arrangement(
        n=len(rows), facts={"item": held.rows, **read}, beside=tuple(read), text=text, summary=f"{held}, {what}"
    )
    return Plan(arrangement, request.drawn(len(rows), Prompts(rows)), held.source)


def _tokens(request: Request, prompt: Prompt) -> list[int]:
    """The token ids of a prompt, as an item of the data begins."""
    if not (prompt.text.strip() if isinstance(request.codec.source, SpokenText) else prompt.text):
        raise ConfigError(f"{prompt.where} is empty", "omit it to sample without a prompt")
    spec, codec = request.model.spec.source or request.model.spec, request.codec.source or request.codec
    try:
        content = modality(spec.modality).parse(prompt.text, codec).content
    except ConfigError as error:
        raise ConfigError(f"{prompt.where}: {error.message}", error.hint) from None
    row: list[int] = codec.encode(content)[0].tolist()
    return row


def _whole(request: Request, prompts: Sequence[Prompt], *, blank: bool = False) -> list[list[int]]:
    """The token ids of prompts, which may be `blank`, between the tokens of their ends."""
    read = request.model.spec.source or request.model.spec
    start, end = (read.special(name) for name in ("bos", "eos"))
    rows = [[] if blank and not prompt.text.strip() else _tokens(request, prompt) for prompt in prompts]
    whole = [[token for token in (start, *row[row[:1] == [start] :], end) if token is not None] for row in rows]
    _check_lengths(request, prompts, whole)
    return whole


def _check_lengths(request: Request, prompts: Sequence[Prompt], rows: Rows, room: int = 0) -> None:
    """Refuses prompts whose token ids, `rows`, do not leave `room` in what the model reads."""
    read = request.model.spec.source or request.model.spec
    most, start = read.shape[0], read.special("bos")
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) + room > most:
            ends = ", its ends included" if row[0] == start else ""
            raise ConfigError(
                f"{prompt.where} has {len(row)} tokens{ends}, and this model reads {most}"
                f"{', those that it writes included' if room else ''}",
                "shorten it, or train on longer items (data.context= or data.max_length=)",
            )


def _warn_of_unread(request: Request, rows: Rows) -> None:
    """Warns of prompts of which a model sees the end alone."""
    window, start = request.model.spec.shape[0] - 1, request.model.spec.special("bos")
    lengths = [len(row) - (row[0] == start) for row in rows]
    long = [(prompt.where, length) for prompt, length in zip(request.prompts, lengths, strict=True) if length > window]
    if long:
        where, length = long[0]
        others = f" (and {len(long) - 1} more prompts)" if len(long) > 1 else ""
        warn(
            f"{where} has {length} tokens, and this model uses the last {window}: the first {length - window} have no "
            f"effect{others}"
        )


def _rows(tokens: Tensor, spec: DataSpec) -> list[list[int]]:
    """The rows of token ids (n, t) without what fills them up."""
    return [[token for token in row if token != spec.special("pad")] for row in tokens.tolist()]
