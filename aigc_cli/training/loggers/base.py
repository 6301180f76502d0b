"""Where a run is logged beside its own files: the small contract of a logger, and how one that fails is left out.

The run directory has everything already, so that no logger is needed to read a run, and none may end its training.
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from aigc_cli.errors import ConfigError, DataError, tell, warn
from aigc_cli.files import read_json, write_json
from aigc_cli.registry import find
from aigc_cli.runs import Run

#: Keeps the id of the run at each logger, which a resumed run logs to again.
IDS = "loggers.json"


@dataclass(frozen=True)
class Start:
    """What a logger is told of a run."""

    folder: Path
    name: str  # <model>-<data>/<stamp>
    config: Mapping[str, Any]
    step: int  # that it resumes from
    id: str  # the same for as long as the run lives
    known: bool  # whether it was logged under that id before

    @property
    def project(self) -> str:
        """What runs are filed under: ``<model>-<data>``."""
        return f"{self.config['model']['name']}-{self.config['data']['name']}"


class Logger(Protocol):
    """One of a run. It is built from a :class:`Start`; whatever it raises is said once, and training goes on."""

    #: The module that it needs, of the extra that has the logger's name.
    module: ClassVar[str]
    #: Whether it takes back what was logged of later steps than that which a run resumes from.
    rewinds: ClassVar[bool]
    id: str
    #: Where a person finds the run.
    where: str

    def __init__(self, start: Start) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the row of a step; there may be several."""

    def sample(self, step: int, name: str, path: Path) -> None:
        """Logs a file of samples by its kind: ``.png``, ``.gif``, ``.wav``, or ``.txt``; others are passed over."""

    def close(self, status: str) -> None:
        """Ends the run as "complete", "stopped" or "failed"."""


def check_loggers(names: Sequence[str]) -> None:
    """Raises a :class:`ConfigError` for a logger that does not exist, or whose package is missing."""
    for name in names:
        module = find("logger", name).build.module  # type: ignore[attr-defined]
        if find_spec(module) is None:
            what = f"trainer.logger={name} needs the package {module}, which is not installed"
            raise ConfigError(what, f"pip install 'aigc-cli[{name}]'")


class Loggers:
    """Those of one run, in its main process. `rows` are those of its ``metrics.jsonl`` up to the step that it resumes
    from, and `last` is the last step that it had logged by then: as a run repeats itself, those are not logged twice.
    """

    def __init__(self, names: Sequence[str], run: Run, step: int, rows: Sequence[Mapping[str, Any]], last: int) -> None:
        self.run, self._last = run, last
        self._open: dict[str, Logger] = {}
        self._known: set[str] = set()  # those that have the steps until the last
        ids = _read_ids(run.path) if names else {}
        for name in dict.fromkeys(names):
            with self._guarded(name):
                known = isinstance(ids.get(name), str)
                chosen = ids[name] if known else uuid.uuid4().hex[:8]
                logger: Logger = find("logger", name).build(Start(run.path, run.name, run.config, step, chosen, known))
                self._open[name] = logger
                write_json(run.path / IDS, ids := {**ids, name: logger.id})
                tell(f"logger:      {name}, {logger.where}")
                if known and not logger.rewinds:
                    self._known.add(name)
                for row in () if known else rows:
                    logger.scalars(row["step"], {key: value for key, value in row.items() if key != "step"})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a row to all of them."""
        self._each(step, lambda logger: logger.scalars(step, values))

    def samples(self, step: int) -> None:
        """Logs what a preview of `step` has written."""
        for path in sorted((self.run.path / "samples").glob(f"step-{step}[.-]*")) if self._open else ():
            name = "samples" + path.stem.removeprefix(f"step-{step}")
            self._each(step, lambda logger, path=path, name=name: logger.sample(step, name, path))  # type: ignore[misc]

    def close(self, status: str) -> None:
        """Ends the run at all of them."""
        while self._open:
            name, logger = self._open.popitem()
            with self._guarded(name):
                logger.close(status)

    def _each(self, step: int, act: Callable[[Logger], None]) -> None:
        for name, logger in [*self._open.items()]:
            if step > self._last or name not in self._known:
                with self._guarded(name):
                    act(logger)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """What goes wrong in the context is said, and that logger left out from then on."""
        try:
            with redirect_stdout(io.StringIO()):  # stdout is ours: --json prints one object there
                yield
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            warn(f"{name} failed and is left out from now on: {reason}; metrics.jsonl of the run has everything")
            if (failed := self._open.pop(name, None)) is not None:
                with suppress(Exception), redirect_stdout(io.StringIO()):
                    failed.close("failed")


def _read_ids(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, DataError):
        saved = read_json(folder / IDS)
        if isinstance(saved, dict):
            return saved
    return {}
