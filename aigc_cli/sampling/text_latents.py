"""The ways to sample text that have to do with latents: what is left of a text, and walks from one to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aigc_cli.data.open import chosen_rows, items_at
from aigc_cli.errors import ConfigError, warn
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.prompts import Prompt, check_lengths, tokens_of
from aigc_cli.modalities.samples import ORIGINAL, RECONSTRUCTION, Arrangement
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD
from aigc_cli.models.language_model import padded
from aigc_cli.models.latent import slerp
from aigc_cli.randomness import Noise
from aigc_cli.sampling.generate import decoded, in_batches, reconstruct
from aigc_cli.sampling.plans import Plan, Request, register_mode, source_of, warn_of_changed

_USUAL, _WALKS, _FRAMES = 8, 4, 8
_DRAWN = ("prior", "latent_temperature")  # the controls of how latents are drawn


@register_mode("text", "reconstruct", hears=["mode", "prompt"])
def _reconstructions(request: Request) -> Plan:
    """Prompts, or held-out texts that the seed chooses, beside what the model makes of their latents."""
    if request.prompts:
        _warn_of_n(request)
        texts = [prompt.text for prompt in request.prompts]
        arrangement = Arrangement(
            n=len(texts), facts={ORIGINAL: texts}, beside=(ORIGINAL,), text=RECONSTRUCTION,
            summary=f"{_count(len(texts), 'reconstruction')} of prompts",
        )  # fmt: skip
        return _decoded_plan(request, arrangement, _encoded(request, request.prompts))
    split, dataset = request.held_out()
    n = request.counted(_USUAL, len(dataset), f"items in the {split} split")
    rows = chosen_rows(dataset, request.seed)[:n]
    texts = _codec(request).text(items_at(dataset, rows).content)
    arrangement = Arrangement(
        n=n, facts={"item": rows, ORIGINAL: texts}, beside=(ORIGINAL,), text=RECONSTRUCTION,
        summary=f"{_count(n, 'reconstruction')} of texts of the {split} split",
    )  # fmt: skip

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        for _, made in reconstruct(request.model, dataset, rows, device=request.device, batch_size=batch_size):
            yield made

    return Plan(arrangement=arrangement, batches=batches, source=source_of(split, dataset))


@register_mode("text", "interpolate", hears=["mode", "prompt", "to", "frames", *_DRAWN])
def _walks(request: Request) -> Plan:
    """From prompt to prompt, each to the next; without any, between two draws from the prior. Every latent on the way
    is decoded to what is likeliest."""
    model = request.model
    frames = request.controls.frames or _FRAMES
    prompts = _path(request)
    if prompts:
        warn_of_changed(model, request.controls, _DRAWN, "between prompts")
        _warn_of_n(request)
        latents = _encoded(request, prompts)
        starts, ends = latents[:-1], latents[1:]
    else:
        n = _WALKS if request.n is None else request.n
        with torch.inference_mode():
            starts, ends = (
                model.latents(Noise(request.seed, range(first, 2 * n, 2), request.device), request.controls)
                for first in (0, 1)
            )
    n = len(starts)
    texts = [prompt.text for prompt in prompts]
    between = {"from": texts[:-1], "to": texts[1:]}
    arrangement = Arrangement(
        n=n * frames,
        facts={
            "walk": [walk for walk in range(n) for _ in range(frames)],
            "frame": list(range(frames)) * n,
            **{name: [text for text in found for _ in range(frames)] for name, found in between.items() if found},
        },
        named=("frame",),
        summary=f"{_count(n, 'walk')} of {frames} texts",
        group=frames,
        row=True,
    )
    shares = torch.linspace(0, 1, frames, device=request.device)
    return _decoded_plan(request, arrangement, slerp(starts, ends, shares).flatten(0, 1))


def _warn_of_n(request: Request) -> None:
    if request.n is not None:
        warn("n= changes nothing beside prompts, each of which is decoded once")


def _path(request: Request) -> list[Prompt]:
    """The texts that a walk goes by.

    Raises:
        ConfigError: there is only one.
    """
    last = request.controls.to
    path = [*request.prompts, *([] if last is None else [Prompt(last, "to=")])]
    if len(path) == 1:
        missing = "to=" if last is None else "prompt="
        raise ConfigError(
            f"mode=interpolate walks between texts, and {path[0].where} is one",
            f"give {missing} too, or prompt_file= with a text a line; without any it walks between draws",
        )
    return path


def _encoded(request: Request, prompts: Sequence[Prompt]) -> Tensor:
    """The latents (k, d) of texts.

    Raises:
        ConfigError: a text is empty, has characters that the vocabulary lacks, or more tokens than the model reads.
    """
    codec, most = _codec(request), request.model.spec.shape[0]
    rows = []
    for prompt in prompts:
        tokens = tokens_of(prompt, codec)
        rows.append([BOS, *tokens[tokens[0] == BOS :], EOS])
    check_lengths(prompts, rows, most, f"reads {most}")
    with torch.inference_mode():
        return request.model.encode(Batch(padded(rows, PAD, request.device)))


def _decoded_plan(request: Request, arrangement: Arrangement, latents: Tensor) -> Plan:
    """A plan of what latents (n, d) are decoded to."""
    model = request.model

    def draw(some: Sequence[int]) -> Tensor:
        return decoded(model.decode(latents[list(some)]), request.codec, f"samples {some[0]} to {some[-1]}")

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        return in_batches(draw, range(arrangement.n), model.held(), request.device, batch_size)

    return Plan(arrangement=arrangement, batches=batches)


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _codec(request: Request) -> TextCodec:
    assert isinstance(request.codec, TextCodec)
    return request.codec
