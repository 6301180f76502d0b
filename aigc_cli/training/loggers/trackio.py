"""Trackio: a database on this machine, in the folder of ``TRACKIO_DIR``, for ``trackio show``."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from aigc_cli.registry import register
from aigc_cli.training.loggers.base import Start


@register("logger", "trackio")
class Trackio:
    """A run goes there by its name, which therefore ends with its id."""

    module: ClassVar[str] = "trackio"
    rewinds: ClassVar[bool] = False

    def __init__(self, start: Start) -> None:
        import trackio

        self.id, self._trackio = start.id, trackio
        name = f"{start.name.replace('/', '_')}-{start.id}"
        self._run: Any = trackio.init(
            project=start.project, name=name, config=dict(start.config), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        self.where = f"run {name}: `trackio show --project {start.project}`"

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a row."""
        self._run.log(dict(values), step=step)

    def sample(self, step: int, name: str, path: Path) -> None:
        """Logs a picture, clip, sound or text."""
        about = f"{name} at step {step}"  # its page cuts the step off
        if path.suffix == ".txt":
            # Its Markdown knows no blocks of code, in which a text stays as it is.
            shown = f"<pre style='white-space:pre-wrap'>{html.escape(path.read_text())}</pre>"
            content: Any = self._trackio.Html(shown, caption=about)
        elif path.suffix in (".png", ".gif", ".wav"):  # a GIF is no video to a browser
            kind = self._trackio.Audio if path.suffix == ".wav" else self._trackio.Image
            content = kind(str(path), caption=about)
        else:
            return
        self._run.log({f"{name}{path.suffix}": content}, step=step)

    def close(self, status: str) -> None:
        """Waits until all is written."""
        self._run.finish()
        self._trackio.context_vars.current_run.set(None)  # else it ends once more with the process, and says so
