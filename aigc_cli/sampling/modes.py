"""The ways to sample: each by itself, reconstructions, walks between latents, a latent at a time, gaps filled.

A mode is a function from a :class:`Request` to a :class:`Plan`, and stands in :data:`MODES` with what it takes of a
model. So what a model offers follows from what it can do, and no mode asks what kind of content it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.open import chosen_rows, encoded, items_at
from aigc_cli.errors import ConfigError, warn
from aigc_cli.modalities.samples import ORIGINAL, RECONSTRUCTION, ROLE, Arrangement
from aigc_cli.models.base import Ability, Model
from aigc_cli.models.latent import slerp
from aigc_cli.randomness import Noise
from aigc_cli.sampling import prompts
from aigc_cli.sampling.completions import completions
from aigc_cli.sampling.generate import Plan, Request, in_batches, prepare, reconstruct

_WALK, _MOVE = 8, 9  # frames in a row, unless the control says
_ROWS = 4  # of frames, at least, in what is looked at together
_REACH = 3.0  # standard deviations that a latent is moved either way
_RANKED = 512  # held-out items that the activity of latents is measured on


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way to sample."""

    make: Callable[[Request], Plan]
    #: What a model has to be able to do.
    needs: frozenset[Ability]
    #: The controls that have an effect in it, beside those of the latents where it needs these; None is all.
    hears: frozenset[str] | None = None
    #: Controls that have none, with a warning.
    ignores: frozenset[str] = frozenset()
    #: What the names of its previews end in; None for a mode that is not shown while a model trains.
    preview: str | None = None


def modes_of(model: Model | type[Model]) -> tuple[str, ...]:
    """How a model can be sampled, its usual mode first; none for one that cannot be."""
    return tuple(word for word, way in MODES.items() if way.needs <= model.can)


def plan(request: Request) -> Plan:
    """How the samples that are asked for are drawn and arranged; the model has then seen what it needs for them.

    Raises:
        ConfigError: the model has no such mode or class, a prompt that it cannot read, or there are fewer than `n`.
        DataError: items of the data are needed, and cannot be read.
    """
    modes = modes_of(request.model)
    word = getattr(request.controls, "mode", None) or next(iter(modes), "sample")
    if word not in modes:
        hint = f"choose from: {', '.join(modes)}" if modes else "choose another run="
        raise ConfigError(f"mode={word}: this model has no such mode", hint)
    idle = ignored(request.model, request.controls, word)
    if word == "reconstruct" and not request.prompts:  # the class says what a prompt is of
        idle = [name for name in _names(request.controls) if name in {*idle, "class_"}]
    warn_of_idle(request.model, request.controls, idle, f"with mode={word}")
    if MODES[word].needs & {"sample", "latents"}:  # which are drawn from a prior, and that may have to be fitted
        prepare(request.model, request.train, request.controls, device=request.device)
    return MODES[word].make(request)


def ignored(model: Model, controls: Any, word: str) -> list[str]:
    """The controls, fields of ``model.controls``, that have no effect in a mode."""
    mode, names = MODES[word], _names(controls)
    heard = frozenset(names)
    if mode.hears is not None:
        of_latents = heard if model.of_latents is None else model.of_latents
        heard = mode.hears | of_latents if "latents" in mode.needs else mode.hears
    return [name for name in names if name not in heard - mode.ignores]


def _names(controls: Any) -> list[str]:
    return [field.name for field in fields(controls)]


def warn_of_idle(model: Model, controls: Any, names: Collection[str], where: str) -> None:
    """Warns of those of the controls `names` that somebody has set, although they have no effect `where` they are."""
    usual = model.controls()
    for name in names:
        if getattr(controls, name) != getattr(usual, name):
            warn(f"{name.rstrip('_')}= has no effect {where}")


def samples(request: Request) -> Plan:
    """Each by itself; or what goes on from prompts, or is made from sources. Those of a model that is told classes
    stand below the names of theirs."""
    model = request.model
    if model.spec.source is not None:
        return prompts.translations(request)
    if request.prompts and "prompt" not in model.can:
        takers = ("continue", "infill", "reconstruct", "interpolate")
        hint = " or ".join(f"mode={word}" for word in modes_of(model) if word in takers)
        raise ConfigError("samples by themselves have no prompt", f"add {hint}" if hint else "leave prompt= out")
    classes, turns = model.spec.classes, model.turns(request.controls)
    n = balanced(request.usual, len(turns)) if request.n is None else request.n
    n *= max(1, len(request.prompts))
    labels = [turns[index % len(turns)] for index in range(n)] if turns else None
    facts: dict[str, Sequence[Any]] = {}
    if labels is not None:
        facts["class"] = [classes[label] for label in labels]
    if request.prompts:
        facts["prompt"] = [request.prompts[index % len(request.prompts)].text for index in range(n)]
    arrangement = Arrangement(
        n=n, facts=facts, named=tuple(facts), labels=labels, classes=classes if turns else (),
        turns=tuple(classes[label] for label in turns),
    )  # fmt: skip
    return Plan(arrangement, request.drawn(n, prompts.beginnings(request)))


def balanced(n: int, turns: int) -> int:
    """`n` samples, or a few less, so that there are as many of each of so many classes; `n` where it is small."""
    return n // turns * turns if 1 < turns <= n else n


def reconstructions(request: Request) -> Plan:
    """Held-out items, or prompts, with what the model makes of them.

    An original that can be read is a fact of its reconstruction; one that must be seen stands above it, a sample of its
    own.
    """
    if request.prompts:
        return prompts.reconstructions(request)
    each = 1 if request.codec.readable else 2
    held = request.items(max(1, request.usual // each))
    n, classes = len(held.rows), held.dataset.spec.classes
    facts: dict[str, Sequence[Any]] = {} if request.codec.readable else {ROLE: [ORIGINAL, RECONSTRUCTION] * n}
    facts["item"] = _repeated(held.rows, each)
    labels = None if held.batch.labels is None else _repeated(held.batch.labels.tolist(), each)
    if labels is not None and classes:
        facts["class"] = [classes[label] for label in labels]
    texts = request.codec.text(held.batch.content)
    if texts is not None:
        facts[ORIGINAL] = texts
    arrangement = Arrangement(
        n=each * n, facts=facts, named=tuple(name for name in ("class", ROLE) if name in facts), labels=labels,
        classes=classes, beside=(ORIGINAL,) if request.codec.readable else (), text=RECONSTRUCTION, group=each,
        row_titles=(ORIGINAL, RECONSTRUCTION),
        summary=f"{held} and {'its reconstruction' if n == 1 else 'their reconstructions'}",
    )  # fmt: skip

    def batches(batch_size: int | None) -> Iterator[Tensor]:
        pairs = reconstruct(request.model, held.dataset, held.rows, device=request.device, batch_size=batch_size)
        for original, made in pairs:
            yield made if request.codec.readable else torch.stack([original, made], dim=1).flatten(0, 1)

    return Plan(arrangement, batches, held.source)


def walks(request: Request) -> Plan:
    """Each row goes from the latent of one sample to that of the next of its class; or from prompt to prompt, each to
    the next."""
    model, frames = request.model, request.controls.frames or _WALK
    path = prompts.path(request)
    shares = torch.linspace(0, 1, frames, device=request.device)
    if path:
        warn_of_idle(model, request.controls, model.of_latents or (), "between prompts")
        request.warn_of_n()
        ends, n, label = prompts.encoded(request, path), len(path) - 1, prompts.class_of_prompts(request)
        labels = None if label is None else [label] * n
    else:
        n = request.n or max(_ROWS, request.usual // _WALK)
        labels = _labels(request, range(n))

    def latents(rows: Sequence[int]) -> Tensor:
        if path:
            return slerp(ends[rows[0] : rows[-1] + 1], ends[rows[0] + 1 : rows[-1] + 2], shares)
        turns = max(1, len(model.turns(request.controls)))
        firsts = [2 * (row // turns) * turns + row % turns for row in rows]
        starts = Noise(request.seed, firsts, request.device)
        others = Noise(request.seed, [first + turns for first in firsts], request.device)
        return slerp(model.latents(starts, request.controls), model.latents(others, request.controls), shares)

    facts: dict[str, list[Any]] = {"row": list(range(n))}
    if path:
        facts |= {"from": [prompt.text for prompt in path[:-1]], "to": [prompt.text for prompt in path[1:]]}
    if labels is not None:
        facts["class"] = [model.spec.classes[label] for label in labels]
    return _in_rows(
        request, latents, facts, labels, {"frame": list(range(frames))}, row_titles=tuple(facts.get("class", ())),
        named=("frame",) if labels is None else ("class", "frame"),
        summary=f"{n} {'walk' if n == 1 else 'walks'} of {frames} samples",
    )  # fmt: skip


def moves(request: Request) -> Plan:
    """Each row moves one dimension of the latent of sample 0 from -3 to 3, the most active dimension first."""
    model, frames = request.model, request.controls.frames or _MOVE
    with torch.inference_mode():
        base = model.latents(Noise(request.seed, [0], request.device), request.controls)[0]
    order, source = _by_activity(request, len(base))
    n = request.counted(max(_ROWS, request.usual // _WALK), len(order), "latent dimensions")
    values = torch.linspace(-_REACH, _REACH, frames, device=request.device)

    def latents(rows: Sequence[int]) -> Tensor:
        moved = base.repeat(len(rows), frames, 1)
        for place, row in enumerate(rows):
            moved[place, :, order[row]] = values
        return moved

    labels = _labels(request, [0])
    columns = {"frame": list(range(frames)), "value": [round(value, 3) for value in values.tolist()]}
    return _in_rows(
        request, latents, {"dimension": order[:n]}, None if labels is None else labels * n, columns,
        named=("dimension", "frame"),
        summary=f"{n} latent {'dimension' if n == 1 else 'dimensions'}, {frames} samples each",
        title=None if labels is None else model.spec.classes[labels[0]],
        column_titles=tuple(f"{value:g}" for value in columns["value"]),
        row_titles=tuple(f"z{dimension}" for dimension in order[:n]),
        source=source,
    )  # fmt: skip


def infills(request: Request) -> Plan:
    """Gaps filled: of texts, or of what a model sees as the codes of other content."""
    return prompts.infills(request) if request.codec.readable else completions(request)


def _in_rows(
    request: Request, latents: Callable[[Sequence[int]], Tensor], rows: dict[str, list[Any]],
    labels: Sequence[int] | None, columns: dict[str, list[Any]], *, source: dict[str, Any] | None = None,
    **arranged: Any,
) -> Plan:  # fmt: skip
    """A plan of samples whose `latents` come in rows: they map some rows (r,), in order, to (r, frames, d).

    `rows` has the facts of each row, of which `labels` are the classes, and `columns` those of each frame; `arranged`
    is the rest of the :class:`Arrangement`.
    """
    n, frames = (len(next(iter(facts.values()))) for facts in (rows, columns))
    facts = {name: _repeated(values, frames) for name, values in rows.items()}
    facts |= {name: values * n for name, values in columns.items()}
    each = None if labels is None else _repeated(labels, frames)
    arrangement = Arrangement(
        n=n * frames, facts=facts, labels=each, classes=request.model.spec.classes, group=frames, row=True, **arranged
    )

    def some(indices: Sequence[int]) -> Tensor:
        first, last = indices[0] // frames, indices[-1] // frames
        made = latents(range(first, last + 1)).flatten(0, 1)
        return made[[index - first * frames for index in indices]]

    return Plan(arrangement, request.decoded(n * frames, some, each), source or {})


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
    return order, {"split": split, "fingerprint": dataset.spec.fingerprint}


def _labels(request: Request, indices: Sequence[int]) -> list[int] | None:
    turns = request.model.turns(request.controls)
    return [turns[index % len(turns)] for index in indices] if turns else None


def _repeated(values: Sequence[Any], times: int) -> list[Any]:
    return [value for value in values for _ in range(times)]


#: By the word that users type; the first that a model has the abilities for is its usual one.
MODES = {
    "sample": Mode(
        make=samples, needs=frozenset({"sample"}),
        ignores=frozenset({"frames", "gap", "to", "keep", "region", "resample"}), preview="",
    ),
    "reconstruct": Mode(
        make=reconstructions, needs=frozenset({"encode", "decode"}), hears=frozenset({"mode", "prompt", "class_"}),
        preview="-reconstructions",
    ),
    "interpolate": Mode(
        make=walks, needs=frozenset({"latents", "decode"}),
        hears=frozenset({"mode", "frames", "class_", "prompt", "to"}),
    ),
    "traverse": Mode(
        make=moves, needs=frozenset({"latents", "decode"}), hears=frozenset({"mode", "frames", "class_"})
    ),
    "infill": Mode(
        make=infills, needs=frozenset({"infill"}), ignores=frozenset({"max_tokens"}), preview="-infilled"
    ),
    "continue": Mode(make=completions, needs=frozenset({"continue"}), preview="-continued"),
}  # fmt: skip
