"""Small runs with fresh weights behind a server in a thread: the tests of serving share it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fresh_runs import fresh

from aigc_cli.api import LoadedRun, open_run
from aigc_cli.serve.app import Server, build
from aigc_cli.serve.guard import Limits
from aigc_cli.serve.house import House

SMALL = ["model.layers=1", "model.heads=2", "model.width=16"]
WORDS = "the cat sat on a mat and the dog ran to him in the sun\n"
#: The words of each run, by its name.
RUNS = {
    "text/writer": ["model=transformer", "data=text", "data.root=text.txt", "data.context=48", *SMALL],
    "text/filler": ["model=bert", "data=text", "data.root=text.txt", "data.context=48", *SMALL],
    "digits/vae": ["model=vae", "data=digits", "data.size=8", "model.network=mlp", "model.hidden=8", "model.latent=4"],
    "digits/told": ["model=gan", "data=digits", "data.size=8", "model.width=8", "model.max_width=16",
                    "model.latent=8", "model.conditional=true"],
    "digits/flow": ["model=flow", "data=digits", "data.size=8", "model.width=8"],
    "pairs/translator": ["model=seq2seq", "data=pairs", "data.source=a.txt", "data.target=b.txt",
                         "data.max_length=64", *SMALL],
    "tones/vae": ["model=vae", "data=tones", "model.network=mlp", "model.hidden=8", "model.latent=4",
                  "model.conditional=false"],
}  # fmt: skip


def fresh_runs(names: list[str]) -> list[LoadedRun]:
    """Runs with fresh weights, in outputs/ of the current folder."""
    lines = [WORDS[place % 20 :].strip() + "é" * (place % 2) for place in range(120)]
    Path("text.txt").write_text("\n".join(lines) + "\n")
    Path("a.txt").write_text("\n".join(lines) + "\n")
    Path("b.txt").write_text("\n".join(line.upper() for line in lines) + "\n")
    for name in names:
        words = RUNS[name]
        kind = ["data.tokenizer.kind=char"] if "data=text" in words or "data=pairs" in words else []
        fresh([*words, *kind, f"run_dir=outputs/{name}"])
    return [open_run(name, device="cpu") for name in names]


@contextmanager
def serving(runs: list[LoadedRun], limits: Limits | None = None, **how: str | None) -> Iterator[tuple[str, House]]:
    """The address of a server of some runs, on a free port, and its house."""
    app, house = build(runs, limits or Limits(), **{"host": "127.0.0.1", **how})  # type: ignore[arg-type]
    server = Server(uvicorn.Config(app, port=0, log_level="warning", ws="none"), house)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", house
    finally:
        server.should_exit = True
        thread.join()
