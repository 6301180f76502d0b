"""The runs that a server has, and how work for a request is done beside the others."""

from __future__ import annotations

import asyncio
import contextvars
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request as WebRequest

from aigc_cli.api import LoadedRun
from aigc_cli.errors import ConfigError, suggest
from aigc_cli.modalities.credentials import Signer
from aigc_cli.modalities.samples import DIGITAL_SOURCE_TYPE, LABEL, Provenance
from aigc_cli.models.base import Model
from aigc_cli.sampling.controls import named_values
from aigc_cli.sampling.filters import Filters
from aigc_cli.serve.batching import Shared, Worker
from aigc_cli.serve.guard import Counts, Limits
from aigc_cli.serve.texts import Spelling
from aigc_cli.serve.tickets import Gone, Ticket, current

_LOOK_S = 0.2  # between looks at whether the client is still there
#: Of some controls so much already takes as long as a request may.
_MOST = {"beam": 16, "frames": 64, "steps": 1000}

T = TypeVar("T")


class Served:
    """A run that is served: what samples it does so in company."""

    def __init__(self, loaded: LoadedRun) -> None:
        self.worker = Worker(loaded.model, loaded.restored.device)
        self.model = loaded.model
        shared = cast(Model, Shared(loaded.model, self.worker))
        self.loaded = copy(loaded)
        self.loaded.restored = replace(loaded.restored, model=shared)
        self.name = loaded.name
        self.filters: Filters | None = None

    @property
    def codec(self) -> Any:
        """Of its data."""
        return self.loaded.restored.codec

    @cached_property
    def spelling(self) -> Spelling:
        """Of its tokens, where its data is text."""
        return Spelling(self.codec)

    def sieve(self) -> Filters | None:
        """The filters, for one request."""
        return None if self.filters is None else replace(self.filters, counts=Counter())

    def chosen(self, provenance: Provenance) -> Provenance:
        """The same, with the filters."""
        return provenance if self.filters is None else replace(provenance, filters=self.filters.facts)

    def about(self, seed: int, controls: Any) -> dict[str, Any]:
        """The label and where samples come from, as all answers carry it."""
        provenance = self.loaded.provenance(controls, seed=seed, format="json", source={})
        provenance = self.chosen(provenance)
        plain = {key: value for key, value in provenance.identity().items() if key != "format"}
        return {"label": LABEL, "digital_source_type": DIGITAL_SOURCE_TYPE, "run": self.name,
                "model": provenance.model, "data": provenance.data, **plain}  # fmt: skip


class House:
    """All runs of a server, the limits of requests, and what it counts."""

    def __init__(self, runs: Sequence[LoadedRun], limits: Limits) -> None:
        self.runs = {run.name: Served(run) for run in runs}
        self.limits, self.counts, self.draining = limits, Counts(), False
        self.began = int(time.time())
        self.signer: Signer | None = None
        self._pool = ThreadPoolExecutor(limits.queue, "aigc-request")

    def close(self) -> None:
        """Ends all threads."""
        for run in self.runs.values():
            run.worker.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def run(self, name: str | None) -> Served:
        """The run of that name, the first where none is named; answers 404 where there is none."""
        if name is None:
            return next(iter(self.runs.values()))
        if name not in self.runs:
            raise HTTPException(404, f"there is no run {name[:100]!r} here; {suggest(name[:100], self.runs)}")
        return self.runs[name]

    def count(self, n: int | None, usual: int, prompts: int = 1) -> int:
        """How many samples are asked for; a :class:`ConfigError` where these are too many."""
        most = self.limits.samples
        found = min(usual, most) if n is None else n
        if not 1 <= found * max(1, prompts) <= most:
            raise ConfigError(f"n={found}: a request may ask for 1 to {most} samples", "ask several times")
        return found

    def checked(self, run: Served, words: Mapping[str, Any]) -> Any:
        """Typed controls from the words of a request; a :class:`ConfigError` where they are not the model's, or ask for
        more than the limits."""
        controls = run.loaded.checked(words)
        most = self.limits.tokens
        if getattr(controls, "max_tokens", 0) is None:
            usual = run.loaded.spec.shape[0] - 1
            controls = replace(controls, max_tokens=min(most, usual)) if usual > most else controls
        for word, value in named_values(controls).items():
            limit = _MOST.get(word, most)
            if type(value) is int and value > limit:
                raise ConfigError(f"{word}={value}: this server takes up to {limit}", f"ask for {limit} or fewer")
        return controls

    # work

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[Ticket]:
        """Within the context a request is counted as at work; refused where too many are."""
        if self.counts.waiting >= self.limits.queue:
            raise HTTPException(429, "too many requests at once", headers={"Retry-After": "1"})
        ticket = Ticket(time.monotonic() + self.limits.seconds)
        self.counts.waiting += 1
        try:
            yield ticket
        finally:
            self.counts.waiting -= 1
            ticket.cancel()

    async def work(self, request: WebRequest, do: Callable[[], T]) -> T:
        """What `do` gives, in a thread; given up where the client leaves, or its time is up."""
        async with self.admitted() as ticket:
            token = current.set(ticket)
            try:
                context = contextvars.copy_context()
            finally:
                current.reset(token)
            future = asyncio.get_running_loop().run_in_executor(self._pool, context.run, do)
            return await self.waited(request, future, ticket)

    async def waited(self, request: WebRequest, future: asyncio.Future[T], ticket: Ticket) -> T:
        """The result of a future, as long as the client waits for it."""
        while not (await asyncio.wait({future}, timeout=_LOOK_S))[0]:
            if time.monotonic() > ticket.deadline or await request.is_disconnected():
                late = time.monotonic() > ticket.deadline
                ticket.cancel()
                future.cancel()
                raise HTTPException(504 if late else 499, "that took too long" if late else "the client has left")
        try:
            return future.result()
        except Gone as gone:
            raise HTTPException(504, gone.message) from None


def seed_of(seed: int | None) -> int:
    """The seed of a request; any where it names none, which the answer tells."""
    return secrets.randbelow(2**31) if seed is None else seed


def labelled(about: Mapping[str, Any]) -> dict[str, str]:
    """The headers that mark an answer as generated, and say where it comes from."""
    known = {key: about[key] for key in ("run", "step", "seed", "model_checksum") if key in about}
    return {"X-AI-Generated": f"{LABEL}; {DIGITAL_SOURCE_TYPE}", "X-AIGC-Provenance": json.dumps(known)}
