"""``/generate`` and its kin: samples of any run, through the writers of its modality, as files or within JSON."""

from __future__ import annotations

import base64
import mimetypes
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.arrays import AUTO, find_writer
from aigc_cli.modalities.base import modality
from aigc_cli.modalities.credentials import check_signable
from aigc_cli.modalities.prompts import Prompt
from aigc_cli.modalities.unreadable import Unreadable, watched
from aigc_cli.sampling.generate import Plan
from aigc_cli.serve.completions import Text
from aigc_cli.serve.house import House, Served, labelled, seed_of
from aigc_cli.serve.tickets import mine

#: The types of files, those that Python does not know too; not the system's, so that they are everywhere the same.
_TYPES = mimetypes.MimeTypes()
for _kind, _suffix in (("audio/wav", ".wav"), ("audio/flac", ".flac"), ("audio/ogg", ".ogg"), ("image/webp", ".webp")):
    _TYPES.add_type(_kind, _suffix)
#: One upload is decoded at a time: a small file may become many pixels, and Pillow's warnings are the whole process's.
_READING = threading.Lock()
_DECODED = 64 << 20  # bytes that an upload may become: 16 million pixels, or six minutes of sound at 44.1 kHz
#: Controls that name files, of models whose content is not text: nobody elsewhere names files of this machine.
_FILES = ("prompt", "to")


class GenerateRequest(BaseModel):
    """What samples are asked for with; further keys are the controls of the model, such as ``class``."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    format: str = AUTO
    #: ``json`` has each sample and what is known of it; ``file`` is the file itself of one, or the picture of several.
    response: Literal["json", "file"] = "json"


class InfillRequest(GenerateRequest):
    """A text with gaps, two or more underscores each."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=64)] | None = None


class TranslateRequest(GenerateRequest):
    """One or more texts to translate."""

    text: Text | Annotated[list[Text], Field(min_length=1, max_length=64)]


class Made(NamedTuple):
    """Samples as they are told."""

    samples: list[dict[str, Any]]
    overview: list[dict[str, Any]]
    about: dict[str, Any]


def router(house: House) -> APIRouter:
    """The routes."""
    routes = APIRouter()

    @routes.post("/generate")
    async def generate(asked: GenerateRequest, request: Request) -> Response:
        """Samples of a run: pictures, sound, text."""
        run = house.run(asked.model)
        words = _words(asked)
        texts = [str(words.pop("prompt"))] if run.codec.readable and words.get("prompt") else []
        if named := [word for word in _FILES if not run.codec.readable and words.get(word) is not None]:
            raise ConfigError(f"{named[0]} names a file, and none of this server is read", "send it to /reconstruct")
        return await _answer(house, run, asked, words, texts, request)

    @routes.post("/infill")
    async def infill(asked: InfillRequest, request: Request) -> Response:
        """A text with its gaps filled; of a model of codes held-out items with a region filled."""
        run = house.run(asked.model)
        if "infill" not in run.model.can:
            raise ConfigError(f"{run.name} fills no gaps", "name a run of model=bert with model=")
        texts = _listed(asked.prompt)
        if texts and not run.codec.readable:
            raise ConfigError("prompt names a file, and none of this server is read", "leave it out")
        return await _answer(house, run, asked, {**_words(asked), "mode": "infill"}, texts, request)

    @routes.post("/translate")
    async def translate(asked: TranslateRequest, request: Request) -> Response:
        """Texts translated."""
        run = house.run(asked.model)
        if run.loaded.spec.source is None:
            raise ConfigError(f"{run.name} does not translate", "name a run of model=seq2seq with model=")
        return await _answer(house, run, asked, _words(asked), _listed(asked.text), request)

    @routes.post("/reconstruct")
    async def reconstruct(
        request: Request, model: str | None = None, format: str = AUTO,
        seed: Annotated[int | None, Query(ge=0)] = None, response: Literal["json", "file"] = "json",
    ) -> Response:  # fmt: skip
        """What a model makes of the file that is the body of the request, beside that."""
        run = house.run(model)
        if not {"encode", "decode"} <= run.model.can:
            raise ConfigError(f"{run.name} cannot reconstruct", "name a run of a VAE with model=")
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        suffix = _TYPES.guess_extension(kind)
        if suffix is None:
            raise HTTPException(415, "send the file itself with its Content-Type, such as image/png or audio/wav")
        body = await request.body()
        if not body:
            raise ConfigError("the body is empty", "send the file itself")
        known = {"class": request.query_params["class"]} if "class" in request.query_params else {}
        asked = GenerateRequest(model=model, seed=seed, format=format, response=response)
        words = {**known, **({"mode": "reconstruct"} if hasattr(run.model.controls(), "mode") else {})}
        return await _answer(house, run, asked, words, [], request, upload=(body, suffix))

    return routes


def _words(asked: GenerateRequest) -> dict[str, Any]:
    return {word: value for word, value in (asked.model_extra or {}).items() if value is not None}


def _listed(texts: str | list[str] | None) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts or ())


async def _answer(
    house: House, run: Served, asked: GenerateRequest, words: Mapping[str, Any], texts: list[str], request: Request,
    upload: tuple[bytes, str] | None = None,
) -> Response:  # fmt: skip
    """Draws what is asked for, and tells it."""
    controls, seed = house.checked(run, words), seed_of(asked.seed)
    format, writer = find_writer(run.loaded.spec.modality, asked.format)
    usual = 1 if texts or upload else writer.usual
    n = None if upload else house.count(asked.n, usual, len(texts))
    made = await house.work(request, lambda: _made(house, run, controls, n, seed, format, texts, upload))
    headers = labelled(made.about)
    if asked.response == "file":
        files = made.samples if len(made.samples) == 1 else made.overview
        if len(files) != 1 or "data" not in files[0]:
            raise ConfigError("response=file is one file", "ask for one sample, or for response=json")
        return Response(base64.b64decode(files[0]["data"]), media_type=files[0]["media_type"], headers=headers)
    return JSONResponse({"samples": made.samples, "overview": made.overview, "aigc": made.about}, headers=headers)


def _made(
    house: House, run: Served, controls: Any, n: int | None, seed: int, format: str, texts: list[str],
    upload: tuple[bytes, str] | None,
) -> Made:  # fmt: skip
    """The samples, in a thread of the request."""
    with tempfile.TemporaryDirectory(prefix="aigc-") as place:
        prompts = [Prompt(text, f"prompt {number}") for number, text in enumerate(texts)]
        if upload is not None:
            body, suffix = upload
            file = Path(place) / f"upload{suffix}"
            file.write_bytes(body)
            prompts = [Prompt(_read(run, file), "the upload")]
        plan = run.loaded.plan(controls, n, seed=seed, prompts=prompts, filters=run.sieve())
        arrangement = plan.arrangement
        if arrangement.n > 4 * house.limits.samples:
            raise ConfigError(f"these would be {arrangement.n} samples", "ask for a smaller n, or fewer frames")
        if upload is not None:  # where it lay here is nobody's business
            facts = {key: value for key, value in arrangement.facts.items() if key not in _FILES}
            plan = replace(plan, arrangement=replace(arrangement, facts=facts))
        return _told(house, run, plan, controls, seed, format, Path(place))


def _read(run: Served, file: Path) -> str:
    """The name of an upload, or its text where that is what the model reads; refused where it cannot be read."""
    if run.codec.readable:
        try:
            return file.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise ConfigError("the upload is not text in UTF-8", "save it as UTF-8") from None
    try:
        with _READING, watched(_allowed):
            content = modality(run.loaded.spec.modality).parse(str(file), run.codec).content
    except (ConfigError, DataError) as error:
        raise ConfigError(f"the upload cannot be used: {error.message.replace(str(file), 'it')}", error.hint) from None
    if tuple(content.shape[1:]) != tuple(run.loaded.spec.raw):
        raise ConfigError("the upload has another shape than the data of the run", "bring it to that size")
    return str(file)


def _allowed(size: int) -> None:
    mine().check()
    if size > _DECODED:
        raise Unreadable(f"it has more than {_DECODED >> 20} MB once it is decoded")


def _told(house: House, run: Served, plan: Plan, controls: Any, seed: int, format: str, place: Path) -> Made:
    arrangement, codec = plan.arrangement, run.codec
    provenance = run.chosen(run.loaded.provenance(controls, seed=seed, format=format, source=plan.source))
    about = provenance.of_set(arrangement)
    folder = place / "samples"
    folder.mkdir()
    texts: list[str] = []
    ticket = mine()
    with find_writer(run.loaded.spec.modality, format)[1](folder, arrangement, provenance, codec) as files:
        for raw in plan.batches(None):
            ticket.check()
            files.write(raw)
            texts += codec.text(raw) or []
        names, overview = files.finish()
    if house.signer is not None:
        check_signable(format)
        house.signer.sign_set(folder, provenance, arrangement, names, overview)
    house.counts.samples += arrangement.n
    samples: list[dict[str, Any]] = []
    for index in range(arrangement.n):
        label = {"label": about["label"]} if arrangement.generated(index) else {}
        one: dict[str, Any] = {"index": index, **label, **arrangement.about(index)}
        if texts:
            one["text"] = texts[index]
        elif len(names) == arrangement.n:
            one |= _file(folder / names[index])
        samples.append(one)
    if not texts and len(names) != arrangement.n:  # all in one file
        samples = [_file(folder / name) for name in names]
    return Made(samples, [] if texts else [_file(folder / name) for name in overview], about)


def _file(path: Path) -> dict[str, Any]:
    """A file within JSON."""
    kind = _TYPES.guess_type(path.name)[0] or "application/octet-stream"
    return {"name": path.name, "media_type": kind, "data": base64.b64encode(path.read_bytes()).decode()}
