"""Calls of a model that come together share a batch, whatever they make; each gets what it would have got alone.

A model is called from the threads of many requests, and works in one. So :class:`Shared` stands for a model wherever
one is sampled: what it is asked for waits for that thread, which takes what goes together at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Model, Prompts
from aigc_cli.nn.decoding import padded
from aigc_cli.randomness import Noise
from aigc_cli.sampling.generate import auto_batch_size
from aigc_cli.serve.tickets import Gone, Ticket, mine
from aigc_cli.serve.writing import Row, Writing

_GATHER_S = 0.004  # that an idle model waits for company


@dataclass
class _Call:
    """Something that a model is asked for: `key` says what it can share a batch with."""

    key: tuple[Any, ...]
    rows: int
    arguments: tuple[Any, ...]
    ticket: Ticket
    answer: Future[Any] = field(default_factory=Future)


class Worker:
    """The thread of one model."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model, self.device = model, device
        self.writes = hasattr(model, "session")
        #: Batches, and the rows in them: what is shared is the ratio of the two.
        self.batches, self.batched = 0, 0
        self._writing, self._most = Writing(model), auto_batch_size(model.held(), device)
        self._calls: list[_Call] = []
        self._entering: list[Row] = []
        self._wake, self.preparing = threading.Condition(), threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="aigc-model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, after what it is at."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=10)

    def enter(self, rows: Sequence[Row]) -> None:
        """Texts to be written."""
        with self._wake:
            self._entering += rows
            self._wake.notify()

    def call(self, key: tuple[Any, ...], rows: int, *arguments: Any) -> Any:
        """What a method of the model gives, by the name that `key` begins with; waits for it.

        Raises:
            Gone: nobody waits for it any more.
        """
        call = _Call(key, rows, arguments, mine())
        with self._wake:
            self._calls.append(call)
            self._wake.notify()
        return call.answer.result()

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._calls or self._entering or self._writing.rows)
                if self._closed:
                    self._end()
                    return
                idle = not self._writing.rows
            if idle:
                time.sleep(_GATHER_S)
            with self._wake:
                calls, room = self._together(), self._most - len(self._writing.rows)
                entering, self._entering = self._entering[:room], self._entering[room:]
            with torch.inference_mode():
                if calls:
                    self._answer(calls)
                if entering or self._writing.rows:
                    self._step(entering)

    def _end(self) -> None:
        gone = Gone("the server is closing")
        for call in self._calls:
            call.answer.set_exception(gone)
        for row in self._entering:
            row.done(gone)
        self._writing.fail(gone)

    def _step(self, entering: list[Row]) -> None:
        try:
            rows = self._writing.step(entering)
        except Exception as error:
            self._writing.fail(error)
            for row in entering:  # which may not be among those yet
                row.done(error)
            return
        self.batches, self.batched = self.batches + bool(rows), self.batched + rows

    def _together(self) -> list[_Call]:
        """The oldest call, and those that can share its batch, as many as fit."""
        for call in [call for call in self._calls if call.ticket.gone]:
            self._calls.remove(call)
            call.answer.set_exception(Gone("the client has left, or its time is up"))
        if not self._calls:
            return []
        first = self._calls[0]
        room = auto_batch_size(self.model.held(first.arguments[1] if first.key[0] == "sample" else None), self.device)
        found: list[_Call] = []
        for call in list(self._calls):
            if call is first or (call.key == first.key and first.key[-1] is not None):
                if found and sum(each.rows for each in found) + call.rows > room:
                    break
                found.append(call)
                self._calls.remove(call)
        return found

    def _answer(self, calls: list[_Call]) -> None:
        try:
            made = _ASKED[calls[0].key[0]](self.model, [call.arguments for call in calls], self.device)
            self.batches, self.batched = self.batches + 1, self.batched + sum(call.rows for call in calls)
            parts = torch.split(made, [call.rows for call in calls])
        except Exception as error:
            for call in calls:
                call.answer.set_exception(error)
            return
        for call, part in zip(calls, parts, strict=True):
            call.answer.set_result(part)


class Shared:
    """Stands for a model in all that samples it: what takes time happens in the model's own thread, in company."""

    def __init__(self, model: Model, worker: Worker) -> None:
        self._model, self._worker = model, worker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def sample(self, noise: Noise, controls: Any, prompts: Prompts | None = None) -> Tensor:
        """See :meth:`Model.sample`."""
        if self._worker.writes and controls.beam == 1:
            return self._written(noise, controls, prompts)
        # Which class a row has depends on its number, and which prompt too: both at once cannot be told anew.
        apart = prompts is not None and (self._model.conditional or prompts.items is not None or prompts.labels)
        key = ("sample", repr(controls), prompts is None, None if apart else "")
        made: Tensor = self._worker.call(key, len(noise), noise, controls, prompts)
        return made

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """See :meth:`Model.decode`."""
        prepared = mine().prepared
        key = ("decode", repr(prepared), tuple(latents.shape[1:]), latents.dtype, labels is None)
        made: Tensor = self._worker.call(key, len(latents), latents, labels, prepared)
        return made

    def encode(self, batch: Batch) -> Tensor:
        """See :meth:`Model.encode`."""
        prepared, apart = mine().prepared, None if batch.source is not None else ""
        key = ("encode", repr(prepared), tuple(batch.content.shape[1:]), batch.labels is None, apart)
        made: Tensor = self._worker.call(key, len(batch), batch, prepared)
        return made

    def prepare(self, items: Iterable[Batch], controls: Any) -> None:
        """See :meth:`Model.prepare`; one at a time, since it changes the model."""
        with self._worker.preparing:
            self._model.prepare(items, controls)
        mine().prepared = controls

    def _written(self, noise: Noise, controls: Any, prompts: Prompts | None) -> Tensor:
        count, pad = controls.max_tokens or self._model.spec.shape[0] - 1, self._model.spec.special("pad") or 0
        texts: list[list[int]] = [[] for _ in noise.indices]
        ends: list[Future[None]] = [Future() for _ in noise.indices]

        def row(place: int, index: int) -> Row:
            own = (None, []) if prompts is None else of_prompt(prompts, index)

            def take(written: Any) -> bool:
                texts[place].append(written.token)
                return False

            def done(error: BaseException | None) -> None:
                if not ends[place].done():
                    ends[place].set_exception(error) if error is not None else ends[place].set_result(None)

            return Row(noise.seed, index, *own, count, self._model.choice(controls), mine(), take, done)

        rows = [row(place, index) for place, index in enumerate(noise.indices)]
        self._worker.enter(rows)
        for end in ends:
            end.result()
        mine().check()
        whole = [[*each.begun, *text] for each, text in zip(rows, texts, strict=True)]
        return padded(whole, pad, "cpu")


def of_prompt(prompts: Prompts, index: int) -> tuple[list[int] | None, list[int]]:
    """The tokens that sample `index` goes on from, and those of which its first is one."""
    place = index % len(prompts.rows)
    return list(prompts.rows[place]), list(prompts.first[place]) if prompts.first else []


def _sample(model: Model, asked: list[tuple[Any, ...]], device: torch.device) -> Tensor:
    if len(asked) == 1:
        noise, controls, prompts = asked[0]
        return model.sample(noise, controls, prompts)
    noise, controls, prompts = Noise.joined([each[0] for each in asked], device), asked[0][1], None
    if asked[0][2] is not None:
        own = [of_prompt(prompts, index) for noise_, _, prompts in asked for index in noise_.indices]
        prompts = Prompts([row or [] for row, _ in own], [first for _, first in own])
        noise.indices = list(range(len(noise)))
    return model.sample(noise, controls, prompts)


def _heeded(model: Model, controls: Any) -> None:
    """Has a model heed the controls of this request, since another may have had others."""
    if controls is not None:
        model.heed(controls)


def _decode(model: Model, asked: list[tuple[Any, ...]], device: torch.device) -> Tensor:
    _heeded(model, asked[0][2])
    labels = None if asked[0][1] is None else torch.cat([each[1] for each in asked])
    return model.decode(torch.cat([each[0] for each in asked]), labels)


def _encode(model: Model, asked: list[tuple[Any, ...]], device: torch.device) -> Tensor:
    _heeded(model, asked[0][1])
    batches: list[Batch] = [each[0] for each in asked]
    if len(batches) == 1:
        return model.encode(batches[0])
    labels = None if batches[0].labels is None else torch.cat([batch.labels for batch in batches])  # type: ignore[misc]
    return model.encode(replace(batches[0], content=torch.cat([batch.content for batch in batches]), labels=labels))


_ASKED: dict[str, Callable[[Model, list[tuple[Any, ...]], torch.device], Tensor]] = {
    "sample": _sample, "decode": _decode, "encode": _encode,
}  # fmt: skip
