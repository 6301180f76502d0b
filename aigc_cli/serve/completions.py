"""``/v1/completions`` as OpenAI has it: texts that go on from prompts, whole or as they are written."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.prompts import Lines, Prompt
from aigc_cli.models.base import Prompts
from aigc_cli.sampling.prompts import beginnings
from aigc_cli.sampling.readings import embed
from aigc_cli.serve.batching import of_prompt
from aigc_cli.serve.choices import Choice
from aigc_cli.serve.house import House, Served, labelled, seed_of
from aigc_cli.serve.texts import Growing
from aigc_cli.serve.tickets import Ticket
from aigc_cli.serve.writing import Row

#: What OpenAI's clients may send and no model here has: refused unless it has no effect.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "suffix": (None, ""), "best_of": (None, 1), "presence_penalty": (None, 0), "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
}  # fmt: skip
_LONGEST_STOP, _STOPS = 100, 16
_LONGEST_PROMPT = 8192  # tokens
Text = Annotated[str, Field(max_length=100_000)]


class CompletionRequest(BaseModel):
    """What a completion is asked for with; further keys are the controls of the model, such as ``top_k``."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    prompt: Text | list[Text] | list[int] | list[list[int]] | None = None
    n: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0)] | None = None
    stop: str | list[str] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    user: str | None = None

    def controls(self) -> dict[str, Any]:
        """The words for the model; a :class:`ConfigError` where one has an effect that no model here has."""
        words = {word: value for word, value in (self.model_extra or {}).items() if value is not None}
        for word, idle in _WITHOUT_EFFECT.items():
            if word in words and words.pop(word) not in idle:
                raise ConfigError(f"{word} is not supported", "leave it out")
        if words.get("top_p") == 1 or words.get("temperature") == 0:  # as clients send it, to no effect
            words.pop("top_p", None)
        if self.echo and self.logprobs is not None:  # whoever asks for both scores the prompt by them
            raise ConfigError("the prompt has no log-probabilities here", "leave out echo or logprobs")
        return words

    def stops(self) -> list[str]:
        """The texts that end a completion."""
        found = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        if len(found) > _STOPS or any(len(stop) > _LONGEST_STOP for stop in found):
            raise ConfigError(f"stop may hold {_STOPS} texts of {_LONGEST_STOP} characters", "give fewer")
        return found

    def wants_usage(self) -> bool:
        """Whether a stream is to end with what it took."""
        return bool((self.stream_options or {}).get("include_usage"))

    def prompts(self) -> list[str | list[int] | None]:
        """One or more, each text or token ids; None stands for none."""
        if self.prompt is None or isinstance(self.prompt, str):
            return [self.prompt or None]
        if self.prompt and isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return [prompt or None for prompt in self.prompt] or [None]  # type: ignore[misc]


class EmbeddingRequest(BaseModel):
    """What vectors are asked for with."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)]
    encoding_format: str = "float"
    dimensions: int | None = None
    user: str | None = None


def router(house: House) -> APIRouter:
    """The routes under ``/v1`` that make something."""
    routes = APIRouter()

    @routes.post("/v1/completions")
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        run, seed = house.run(asked.model), seed_of(asked.seed)
        controls = house.checked(run, asked.controls())
        house.count(asked.n, asked.n, len(asked.prompts()))
        about = run.about(seed, controls)
        frame = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()),
                 "model": run.name}  # fmt: skip
        async with AsyncExitStack() as stack:
            ticket = await stack.enter_async_context(house.admitted())
            if not run.worker.writes or controls.beam > 1 or run.filters is not None:
                await stack.aclose()
                return await _at_once(house, run, asked, controls, seed, request, {**frame, "aigc": about})
            choices = _begin(run, asked, controls, seed, ticket)
            if asked.stream:
                events = _events(house, choices, asked, {**frame, "aigc": about}, ticket)
                return _Held(events, stack.pop_all(), labelled(about))
            await house.waited(request, asyncio.ensure_future(_ended(choices)), ticket)
            for choice in choices:
                _check(choice, ticket)
            told = [_whole(choice, asked.echo) for choice in choices]
            usage = _usage(house, choices, asked.n)
            return JSONResponse({**frame, "choices": told, "usage": usage, "aigc": about}, headers=labelled(about))

    @routes.post("/v1/embeddings")
    async def embeddings(asked: EmbeddingRequest, request: Request) -> Response:
        run = house.run(asked.model)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if asked.encoding_format not in ("float", "base64") or asked.dimensions is not None:
            raise ConfigError("encoding_format is float or base64, and dimensions= is not supported", "leave it out")
        if not all(text.strip() for text in texts):
            raise ConfigError("a text is empty", "leave it out")
        lines = Lines(dict(enumerate(texts, 1)))
        vectors = await house.work(request, lambda: embed(run.loaded.restored, lines))
        rows = vectors.tolist() if asked.encoding_format == "float" else [
            base64.b64encode(row.numpy().astype(np.float32).tobytes()).decode() for row in vectors
        ]  # fmt: skip
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        count = sum(len(run.codec.tokenizer.encode(text)) for text in texts)
        about = {"run": run.name, "step": run.loaded.step, "model_checksum": run.loaded.restored.checksum}
        usage = {"prompt_tokens": count, "total_tokens": count}
        return JSONResponse({"object": "list", "data": data, "model": run.name, "usage": usage, "aigc": about})

    return routes


def _begin(run: Served, asked: CompletionRequest, controls: Any, seed: int, ticket: Ticket) -> list[Choice]:
    """The texts of a request, handed to the model."""
    spelling, stops, stop = run.spelling, asked.stops(), run.loaded.spec.special("eos")
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Choice]()
    count = controls.max_tokens or run.loaded.spec.shape[0] - 1
    choices: list[Choice] = []
    rows: list[Row] = []
    model: Any = run.model
    for prompt in asked.prompts():
        text, begin = "", None
        if isinstance(prompt, str):
            text = prompt
            begin = beginnings(run.loaded.request(controls, 1, seed=seed, prompts=[Prompt(prompt, "the prompt")]))
        elif prompt is not None:
            if not all(0 <= token < run.loaded.spec.vocab_size for token in prompt):  # type: ignore[operator]
                raise ConfigError("the prompt holds a token that is not in the vocabulary", "give ids of this model")
            text, begin = spelling.of(prompt).decode("utf-8", "replace"), Prompts([prompt])
        tokens, first = (None, []) if begin is None else of_prompt(begin, 0)
        if len(tokens or ()) > _LONGEST_PROMPT:
            raise ConfigError(f"a prompt may have {_LONGEST_PROMPT:,} tokens", "shorten it")
        skip = max(0, len(text.encode()) - len(spelling.of(tokens or []))) if first else 0
        for index in range(asked.n):
            choice = Choice(
                len(choices), text, tokens or [], Growing(skip, stops), spelling, asked.logprobs, queue, loop
            )
            rows.append(Row(
                seed, index, tokens, first, count, model.choice(controls), ticket, partial(choice.take, stop=stop),
                choice.end, asked.logprobs,
            ))  # fmt: skip
            choices.append(choice)
    run.worker.enter(rows)
    return choices


async def _ended(choices: list[Choice]) -> None:
    """Returns when all texts have ended."""
    while not all(choice.ended for choice in choices):
        await choices[0].queue.get()


def _check(choice: Choice, ticket: Ticket) -> None:
    if choice.error is not None:
        raise choice.error
    if choice.finish == "length" and ticket.gone:
        raise HTTPException(504, "that took too long")


def _whole(choice: Choice, echo: bool) -> dict[str, Any]:
    told = choice.fresh()
    return {**told, "text": (choice.prompt if echo else "") + told["text"], "finish_reason": choice.finish}


def _usage(house: House, choices: list[Choice], n: int) -> dict[str, int]:
    prompt = sum(len(choice.tokens) for choice in choices[::n])
    return _counted(house, prompt, sum(len(choice.written) for choice in choices), len(choices))


def _counted(house: House, prompt: int, written: int, samples: int) -> dict[str, int]:
    """The tokens of an answer, which the server's own counters take note of."""
    house.counts.tokens += written
    house.counts.samples += samples
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


async def _events(
    house: House, choices: list[Choice], asked: CompletionRequest, frame: Mapping[str, Any], ticket: Ticket
) -> AsyncIterator[str]:
    """Server-sent events: pieces of the texts as they come."""
    left = {choice.index for choice in choices}
    if asked.echo:
        for choice in choices:
            yield _event(
                frame, [{"index": choice.index, "text": choice.prompt, "logprobs": None, "finish_reason": None}]
            )
    try:
        while left:
            remaining = max(0.0, ticket.deadline - time.monotonic())
            choice = await asyncio.wait_for(choices[0].queue.get(), remaining)
            if choice.index not in left:
                continue
            ended, told = choice.ended, choice.fresh()
            if ended:
                _check(choice, ticket)
                left.discard(choice.index)
                told["finish_reason"] = choice.finish
            if told["text"] or ended or (told["logprobs"] or {}).get("tokens"):
                yield _event(frame, [told])
        usage = _usage(house, choices, asked.n)
        if asked.wants_usage():
            yield _usage_event(frame, usage)
    except (TimeoutError, HTTPException):
        yield f"data: {json.dumps({'error': {'message': 'that took too long', 'code': 504}})}\n\n"
    yield "data: [DONE]\n\n"


def _event(frame: Mapping[str, Any], choices: list[dict[str, Any]]) -> str:
    return f"data: {json.dumps({**frame, 'choices': choices})}\n\n"


def _usage_event(frame: Mapping[str, Any], usage: dict[str, int]) -> str:
    return f"data: {json.dumps({**frame, 'choices': [], 'usage': usage})}\n\n"


class _Held(StreamingResponse):
    """A stream of events that counts as at work until its last, or until nobody reads it."""

    def __init__(self, events: AsyncIterator[str], stack: AsyncExitStack, headers: Mapping[str, str]) -> None:
        super().__init__(events, headers=dict(headers), media_type="text/event-stream")
        self._stack = stack

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _at_once(
    house: House, run: Served, asked: CompletionRequest, controls: Any, seed: int, request: Request,
    frame: Mapping[str, Any],
) -> Response:  # fmt: skip
    """The same of a model whose texts come whole: one that fills masks, translates, or searches."""
    if not run.codec.readable or "prompt" not in run.model.can:
        raise ConfigError(f"{run.name} completes no texts", "ask /generate, or name a run on text with model=")
    if asked.logprobs is not None:
        raise ConfigError(f"{run.name} tells no log-probabilities here", "leave logprobs out")
    prompts = asked.prompts()
    if any(isinstance(prompt, list) for prompt in prompts):
        raise ConfigError(f"{run.name} reads prompts as text", "give strings")

    spec, fills = run.loaded.spec, getattr(controls, "mode", None) == "infill"

    def tokens_of(text: str) -> int:
        return len(run.codec.tokenizer.encode(text))

    def write() -> list[tuple[int, str, bool]]:
        texts: list[list[tuple[str, bool]]] = []
        for prompt in prompts:
            given = [] if prompt is None else [Prompt(str(prompt), "the prompt")]
            plan = run.loaded.plan(controls, asked.n, seed=seed, prompts=given, filters=run.sieve())
            texts.append([
                (text, fills or not text or spec.special("eos") in row)
                for raw in plan.batches(None)
                for text, row in zip(run.codec.text(raw), raw[:, 1:].tolist(), strict=True)
            ])  # fmt: skip
        return [(place, *each) for place, some in enumerate(texts) for each in some]

    texts = await house.work(request, write)
    told, written = [], 0
    for index, (place, text, ended) in enumerate(texts):
        prompt = str(prompts[place] or "")
        goes_on = spec.source is None and bool(prompt) and text.startswith(prompt)
        growing = Growing(len(prompt.encode()) if goes_on else 0, asked.stops())
        fresh = growing.add(text.encode("utf-8", "replace"), last=True)
        written += tokens_of(fresh)
        text = (prompt if asked.echo and goes_on else "") + fresh
        # Of a text with gaps nothing is cut off; others end by themselves, or where no token is left to write.
        reason = "stop" if ended or growing.stopped else "length"
        told.append({"index": index, "text": text, "logprobs": None, "finish_reason": reason})
    usage = _counted(house, sum(tokens_of(str(prompt or "")) for prompt in prompts), written, len(told))
    if asked.stream:
        last = [_usage_event(frame, usage)] if asked.wants_usage() else []
        events = iter([*(_event(frame, [choice]) for choice in told), *last, "data: [DONE]\n\n"])
        return StreamingResponse(events, headers=labelled(frame["aigc"]), media_type="text/event-stream")
    return JSONResponse({**frame, "choices": told, "usage": usage}, headers=labelled(frame["aigc"]))
