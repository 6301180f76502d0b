"""The ways to sample text: written from a prompt or from nothing, translated, with gaps filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from aigc_cli.data.open import chosen_rows, items_at
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.prompts import Prompt, check_lengths, left_open, tokens_of, tokens_with_gaps, warn_of_unread
from aigc_cli.modalities.samples import Arrangement
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import EOS, FIRST, PAD
from aigc_cli.models.base import Prompts
from aigc_cli.models.language_model import LanguageModel
from aigc_cli.randomness import permutation
from aigc_cli.sampling.generate import generate
from aigc_cli.sampling.plans import Plan, Request, register_mode, source_of

_USUAL = 8  # texts that a person reads
_LEFT_OUT = 0.15  # of the tokens of a held-out passage


@register_mode("text", "sample", ignores=["frames", "gap", "to"])
def _written(request: Request) -> Plan:
    """Each text by itself, or what goes on from prompts, which take turns."""
    codec, prompts = _codec(request), request.prompts
    n = (request.n or _USUAL) * max(1, len(prompts))
    if not prompts:
        return Plan(arrangement=Arrangement(n=n), batches=_batches(request, n))
    texts = [prompts[index % len(prompts)].text for index in range(n)]
    arrangement = Arrangement(n=n, facts={"prompt": texts}, named=("prompt",))
    rows, first = zip(*(left_open(tokens_of(prompt, codec), codec) for prompt in prompts), strict=True)
    if isinstance(request.model, LanguageModel):
        _check_room(request.model, prompts, rows, request.controls.max_tokens or 1)
    return Plan(arrangement=arrangement, batches=_batches(request, n, Prompts(rows, first)))


def _check_room(model: LanguageModel, prompts: Sequence[Prompt], rows: Sequence[Sequence[int]], more: int) -> None:
    """Tells of prompts, whose token ids are `rows`, that a model sees the end of alone, or has no room to write `more`
    tokens after.

    Raises:
        ConfigError: there is no room.
    """
    most = model.spec.shape[0]
    if model.moves_on:
        warn_of_unread(prompts, rows, most - 1)
    else:
        check_lengths(prompts, rows, most - 1, f"looks at {most}, those that it writes included")
        longest = max(map(len, rows))
        if longest + more > most:
            raise ConfigError(
                f"max_tokens={more}: this model looks at {most} tokens, and a prompt has {longest}",
                f"choose max_tokens={most - longest} or less, or train on longer items (data.context=)",
            )


@register_mode("text from text", "sample")
def _translated(request: Request) -> Plan:
    """Translations of prompts; without any, of held-out sources, beside what they were translated to by a person."""
    codec, prompts = _codec(request), request.prompts
    if not prompts:
        return _translated_data(request)
    n = (request.n or 1) * len(prompts)
    sources = [prompts[index % len(prompts)].text for index in range(n)]
    arrangement = Arrangement(n=n, facts={"source": sources}, beside=("source",), text="translation")
    tokens = [[*tokens_of(prompt, codec), EOS] for prompt in prompts]
    most = request.model.spec.shape[0]
    check_lengths(prompts, tokens, most, f"reads {most}")
    return Plan(arrangement=arrangement, batches=_batches(request, n, Prompts(tokens)))


def _translated_data(request: Request) -> Plan:
    codec = _codec(request)
    split, dataset = request.held_out()
    n = request.counted(_USUAL, len(dataset), f"items in the {split} split")
    rows = chosen_rows(dataset, request.seed)[:n]
    batch = items_at(dataset, rows)
    assert batch.source is not None, "pairs have sources"
    longest = request.model.spec.shape[0]
    # A source that the data has cut has no end, which a prompt is given and needs room for.
    sources = [row if row[-1] == EOS else row[: longest - 1] for row in _rows(batch.source)]
    arrangement = Arrangement(
        n=n,
        facts={"item": rows, "source": codec.text(batch.source), "reference": codec.text(batch.content)},
        beside=("source", "reference"),
        text="translation",
        summary=f"{n} {'item' if n == 1 else 'items'} of the {split} split, translated",
    )
    batches = _batches(request, n, Prompts(sources))
    return Plan(arrangement=arrangement, batches=batches, source=source_of(split, dataset))


@register_mode("text", "infill", ignores=["max_tokens"])
def _infilled(request: Request) -> Plan:
    """Prompts with their gaps filled; without any, held-out passages of which some tokens are left out."""
    codec, prompts, model = _codec(request), request.prompts, request.model
    assert isinstance(model, LanguageModel)
    assert model.mask is not None, "a model that fills gaps has a token for them"
    if not prompts:
        return _infilled_data(request, model.mask)
    gap = request.controls.gap
    canvases = [tokens_with_gaps(prompt, codec, model.mask, gap) for prompt in prompts]
    most = model.spec.shape[0]
    check_lengths(prompts, canvases, most, f"looks at {most}")
    n = (request.n or _USUAL) * len(prompts)
    texts = [prompts[index % len(prompts)].text for index in range(n)]
    arrangement = Arrangement(n=n, facts={"prompt": texts}, beside=("prompt",), text="filled")
    return Plan(arrangement=arrangement, batches=_batches(request, n, Prompts(canvases)))


def _infilled_data(request: Request, mask: int) -> Plan:
    codec = _codec(request)
    split, dataset = request.held_out()
    n = request.counted(_USUAL // 2, len(dataset), f"items in the {split} split")
    rows = chosen_rows(dataset, request.seed)[:n]
    passages = _rows(items_at(dataset, rows).content)
    canvases = [_with_gaps(passage, mask, request.seed, row) for passage, row in zip(passages, rows, strict=True)]
    arrangement = Arrangement(
        n=n,
        facts={
            "item": rows,
            "prompt": [_text_with_gaps(canvas, mask, codec) for canvas in canvases],
            "original": [codec.tokenizer.decode(passage) for passage in passages],
        },
        beside=("prompt", "original"),
        text="filled",
        summary=f"{n} {'passage' if n == 1 else 'passages'} of the {split} split with gaps filled",
    )
    return Plan(
        arrangement=arrangement, batches=_batches(request, n, Prompts(canvases)), source=source_of(split, dataset)
    )


def _with_gaps(passage: Sequence[int], mask: int, seed: int, row: int) -> list[int]:
    """A passage without a share of its tokens that stand for text, at least one of which it has."""
    places = [place for place, token in enumerate(passage) if token >= FIRST]
    order = permutation(len(places), "gaps", seed, row)
    chosen = {places[place] for place in order[: max(1, round(_LEFT_OUT * len(places)))]}
    return [mask if place in chosen else token for place, token in enumerate(passage)]


def _text_with_gaps(canvas: Sequence[int], mask: int, codec: TextCodec) -> str:
    """A canvas for a person to read: neighbouring masks are one gap."""
    pieces: list[list[int]] = [[]]
    for place, token in enumerate(canvas):
        if token != mask:
            pieces[-1].append(token)
        elif place == 0 or canvas[place - 1] != mask:
            pieces.append([])
    return "____".join(codec.tokenizer.decode(piece) for piece in pieces)


def _rows(tokens: Tensor) -> list[list[int]]:
    return [[token for token in row if token != PAD] for row in tokens.tolist()]


def _codec(request: Request) -> TextCodec:
    assert isinstance(request.codec, TextCodec)
    return request.codec


def _batches(request: Request, n: int, prompts: Prompts | None = None) -> Callable[[int | None], Iterator[Tensor]]:
    """The batches of `n` samples, written from `prompts`."""

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        return generate(
            request.model, request.codec, range(n), seed=request.seed, device=request.device, batch_size=batch_size,
            controls=request.controls, prompts=prompts,
        )  # fmt: skip

    return batches
