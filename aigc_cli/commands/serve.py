"""``aigc serve``: runs behind an HTTP server, for OpenAI's clients and others, with a page."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.api import open_run
from aigc_cli.config.schema import STRICT, Options, check
from aigc_cli.errors import ConfigError, tell
from aigc_cli.files import path_of
from aigc_cli.modalities.arrays import find_writer
from aigc_cli.modalities.credentials import Signer, check_signable
from aigc_cli.sampling.filters import Filtered, Filters

_TOKEN = "AIGC_TOKEN"
_DRAIN_S = 30


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ServeConfig:
    """The keys of ``configs/serve.yaml``."""

    run: str
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=0, le=65535)]
    token: Annotated[str, Field(min_length=8)] | None
    hosts: str | None
    max_samples: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=1)]
    max_bytes: Annotated[int, Field(ge=1024)]
    queue: Annotated[int, Field(ge=1, le=1024)]
    timeout: Annotated[float, Field(gt=0)]
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    device: str
    watermark: str | None = None
    sign: str | None = None
    filter: str | None = None
    filtered: Filtered = "redraw"


def main(config: dict[str, Any], options: Options) -> int:
    """Serves as `config` says until a signal ends it; the exit code."""
    settings: ServeConfig = check("", ServeConfig, config)
    token = settings.token or os.environ.get(_TOKEN) or None
    if not _is_local(settings.host) and token is None:
        what = f"host={settings.host} lets other machines ask this server"
        raise ConfigError(what, f"add token=, a secret of 8 characters or more that they must send, or set {_TOKEN}")
    try:
        import uvicorn

        from aigc_cli.serve.app import Server, build
        from aigc_cli.serve.guard import Limits
    except ModuleNotFoundError as error:
        what = f"aigc serve needs {error.name}, which is not installed"
        raise ConfigError(what, 'install it with pip install "aigc-cli[serve]"') from None
    words = list(dict.fromkeys(word.strip() for word in settings.run.split(",") if word.strip()))
    if not words:
        raise ConfigError("run= names no run", "name one, or several with commas between")
    with _bound(settings.host, settings.port) as listening:  # before what takes long
        runs = [
            open_run(word, step=settings.step, device=settings.device, watermark=settings.watermark) for word in words
        ]
        paths: dict[str, Path] = {}
        for run in runs:
            if paths.setdefault(run.name, run.run.path) != run.run.path:
                what = f"{paths[run.name]} and {run.run.path} are both called {run.name}, by which clients name a run"
                raise ConfigError(what, "serve each by its own command, with another port=")
        limits = Limits(samples=settings.max_samples, tokens=settings.max_tokens, bytes=settings.max_bytes,
                        queue=settings.queue, seconds=settings.timeout)  # fmt: skip
        hosts = tuple(name.strip() for name in (settings.hosts or "").split(",") if name.strip())
        signer = None if settings.sign is None else Signer(path_of(settings.sign))
        for run in runs if signer is not None else ():
            check_signable(find_writer(run.spec.modality)[0])
        app, house = build(runs, limits, host=settings.host, token=token, hosts=hosts)
        house.signer = signer
        for served in house.runs.values() if settings.filter is not None else ():
            served.filters = Filters.of(settings.filter or "", settings.filtered, served.loaded.spec)
        for run in runs:
            tell(f"serving {run.name}, step {run.step}, on {run.restored.device}")
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        tell(f"listening on http://{shown}:{listening.getsockname()[1]}; Ctrl-C ends it")
        server = Server(uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, date_header=False, timeout_keep_alive=15,
            timeout_graceful_shutdown=_DRAIN_S, limit_concurrency=settings.queue + 256, ws="none", lifespan="on",
        ), house)  # fmt: skip
        server.run(sockets=[listening])
    return 0


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens; a :class:`ConfigError` where the place is taken, or is none of this machine."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # at once: until one does, another may bind to the same place
    except OSError as error:
        listening.close()
        what = f"host={host} port={port} cannot be listened on: {error.strerror or error}"
        raise ConfigError(what, "choose another port=, or port=0 for any that is free") from None
    return listening
