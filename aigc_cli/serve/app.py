"""The application: routes, errors, and the page that is made from what the runs take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from aigc_cli import __version__
from aigc_cli.api import LoadedRun
from aigc_cli.config.folders import command_keys
from aigc_cli.errors import AigcError, ConfigError, as_user_error
from aigc_cli.modalities.base import modality
from aigc_cli.modalities.samples import LABEL
from aigc_cli.sampling.controls import named_values, usual_controls
from aigc_cli.sampling.modes import modes_of
from aigc_cli.serve import completions, generate
from aigc_cli.serve.guard import Guard, Limits, refusal
from aigc_cli.serve.house import House, Served

_PAGE = Path(__file__).with_name("page.html")
_ICON = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="3" fill="#2563eb"/></svg>'


def build(
    runs: Sequence[LoadedRun], limits: Limits, *, host: str, token: str | None = None, hosts: tuple[str, ...] = ()
) -> tuple[Guard, House]:
    """The application that serves some runs, and the house behind it."""
    house = House(runs, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        house.close()

    # Its pages of documentation would fetch scripts from elsewhere.
    app = FastAPI(title="aigc", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.include_router(completions.router(house))
    app.include_router(generate.router(house))
    _add_looks(app, house)
    _add_errors(app)
    return Guard(app, counts=house.counts, limits=limits, host=host, token=token, hosts=hosts), house


def _add_looks(app: FastAPI, house: House) -> None:
    """What there is, how it is, and the page."""
    page = _PAGE.read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(_ICON, media_type="image/svg+xml")

    @app.get("/health")
    async def health() -> Response:
        """Whether it answers; 503 while it drains."""
        status = "draining" if house.draining else "ok"
        return JSONResponse({"status": status}, status_code=503 if house.draining else 200)

    @app.get("/schema")
    async def schema() -> Response:
        """The runs, and what each takes, as JSON schema."""
        return JSONResponse({"label": LABEL, "limits": {"samples": house.limits.samples, "tokens": house.limits.tokens},
                             "runs": [_described(run) for run in house.runs.values()]})  # fmt: skip

    @app.get("/v1/models")
    async def models() -> Response:
        """The runs, as OpenAI lists models."""
        return JSONResponse({"object": "list", "data": [_model(house, run) for run in house.runs.values()]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return JSONResponse(_model(house, house.run(name)))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts, as Prometheus reads them."""
        return PlainTextResponse(_metrics(house), media_type="text/plain; version=0.0.4")


def _model(house: House, run: Served) -> dict[str, Any]:
    about = {"modality": run.loaded.spec.modality, "can": sorted(run.model.can), "step": run.loaded.step}
    return {"id": run.name, "object": "model", "created": house.began, "owned_by": "aigc", "aigc": about}


def _described(run: Served) -> dict[str, Any]:
    """What the page, or a client, has to know of a run."""
    model, spec, comments = run.model, run.loaded.spec, command_keys("sample")
    usual = usual_controls(model)
    controls = TypeAdapter(type(usual)).json_schema()["properties"]
    for word, value in named_values(usual).items():
        key = comments.get(f"controls.{word}")
        controls[word] |= {"description": "" if key is None else key.comment, "default": value}
    kind, config = modality(spec.modality), run.loaded.run.config
    classes = [name for name in spec.classes if name not in spec.untrained] if model.conditional else []
    return {
        "name": run.name, "model": config["model"]["name"], "data": config["data"]["name"], "step": run.loaded.step,
        "modality": spec.modality, "noun": kind.noun, "can": sorted(model.can), "modes": modes_of(model),
        "classes": classes, "controls": controls, "formats": list(kind.writers), "text": run.codec.readable,
        "translates": spec.source is not None, "streams": run.worker.writes,
    }  # fmt: skip


def _metrics(house: House) -> str:
    counts, workers = house.counts, [(name, run.worker) for name, run in house.runs.items()]
    lines = ["# TYPE aigc_requests_total counter"]
    for (route, status), n in sorted(counts.answers.items()):
        lines.append(f'aigc_requests_total{{route="{route}",status="{status}"}} {n}')
    lines.append("# TYPE aigc_request_seconds_total counter")
    lines += [f'aigc_request_seconds_total{{route="{route}"}} {s:.3f}' for route, s in sorted(counts.seconds.items())]
    lines.append("# TYPE aigc_batches_total counter")
    lines += [f'aigc_batches_total{{run="{name}"}} {worker.batches}' for name, worker in workers]
    lines.append("# TYPE aigc_batched_rows_total counter")
    lines += [f'aigc_batched_rows_total{{run="{name}"}} {worker.batched}' for name, worker in workers]
    totals = {"tokens_total": counts.tokens, "samples_total": counts.samples}
    lines += [line for key, n in totals.items() for line in (f"# TYPE aigc_{key} counter", f"aigc_{key} {n}")]
    return "\n".join([*lines, "# TYPE aigc_requests_at_work gauge", f"aigc_requests_at_work {counts.waiting}"]) + "\n"


def _add_errors(app: FastAPI) -> None:
    """Errors in the form that OpenAI's clients read, in one line with a hint."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        return JSONResponse(refusal(status, str(error.detail)), status, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse(refusal(400, f"{where}: {first['msg']}" if where else str(first["msg"])), 400)

    @app.exception_handler(AigcError)
    async def wrong(request: Request, error: AigcError) -> Response:
        status = 400 if isinstance(error, ConfigError) else 503
        return JSONResponse(refusal(status, error.message, error.hint), status)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        known = as_user_error(error)
        status, message = (500, "this is a bug of the server; its log says more") if known is None else (
            503, known.message
        )  # fmt: skip
        return JSONResponse(refusal(status, message, kind="server_error"), status)


class Server(uvicorn.Server):
    """Uvicorn's, which says in ``/health`` that it drains once a signal has come."""

    def __init__(self, config: uvicorn.Config, house: House) -> None:
        super().__init__(config)
        self._house = house

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Takes no more, and ends when what there is has been answered."""
        self._house.draining = True
        super().handle_exit(sig, frame)
