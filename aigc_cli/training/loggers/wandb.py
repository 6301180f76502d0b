"""Weights & Biases: to its server where a key is there, else into the run's folder, for ``wandb sync``."""

from __future__ import annotations

import html
import netrc
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from aigc_cli.registry import register
from aigc_cli.training.loggers.base import Start


@register("logger", "wandb")
class WandB:
    """W&B drops what is logged for a step before its last, and joins the rows of one step."""

    module: ClassVar[str] = "wandb"
    rewinds: ClassVar[bool] = False

    def __init__(self, start: Start) -> None:
        import wandb

        self.id, self._wandb = start.id, wandb
        mode: Any = None if "WANDB_MODE" in os.environ or _has_key() else "offline"
        quiet = wandb.Settings(silent=True, console="off")
        project = os.environ.get("WANDB_PROJECT") or start.project
        resume: Any = "allow" if start.known and mode is None else None
        self._run: Any = wandb.init(
            project=project, id=start.id, name=start.name, config=dict(start.config), dir=str(start.folder),
            mode=mode, resume=resume, settings=quiet,
        )  # fmt: skip
        folder = Path(self._run.dir).parent.parent  # a resumed run has several within it, which go together
        self.where = f"not logged in: `wandb sync {folder}` uploads it" if self._run.offline else str(self._run.url)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a row."""
        self._run.log(dict(values), step=step)

    def sample(self, step: int, name: str, path: Path) -> None:
        """Logs a picture, clip, sound or text."""
        if path.suffix == ".txt":
            content = self._wandb.Html(f"<pre>{html.escape(path.read_text())}</pre>", inject=False)
        elif path.suffix in (".png", ".gif", ".wav"):
            kind = {".png": self._wandb.Image, ".gif": self._wandb.Video, ".wav": self._wandb.Audio}[path.suffix]
            content = kind(str(path), **({"format": "gif"} if path.suffix == ".gif" else {}))
        else:
            return
        self._run.log({f"{name}{path.suffix}": content}, step=step)

    def close(self, status: str) -> None:
        """Waits until all is sent, or written."""
        self._run.finish(exit_code=int(status == "failed"))


def _has_key() -> bool:
    """Whether W&B would ask nobody for a key: there may be nobody."""
    if "WANDB_API_KEY" in os.environ:
        return True
    with suppress(OSError, netrc.NetrcParseError, RuntimeError):
        host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
        return host in netrc.netrc(os.environ.get("NETRC")).hosts
    return False
