"""The run directory: create, lock, find, open.

``outputs/<model>-<data>/<stamp>/`` holds the whole truth of a run. A lock that dies with its process keeps a second
trainer out, and ``outputs/latest`` points at the newest.
"""

from __future__ import annotations

import fcntl
import glob
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aigc_cli import registry
from aigc_cli.config.schema import identity, load_yaml, save_yaml
from aigc_cli.config.words import parse
from aigc_cli.environment import environment
from aigc_cli.errors import ConfigError, DataError, ResourceError, say, suggest, unreadable
from aigc_cli.files import path_of, read_json, resource_errors, some_of, write_atomically, write_json
from aigc_cli.locks import holding
from aigc_cli.modalities.base import DataSpec
from aigc_cli.modalities.specs import read_spec

OUTPUTS = Path("outputs")
Opener = Callable[[Path], "Run"]
#: The file among the runs that names those which lie elsewhere.
PLACES = ".places"
#: How the reason begins for which a run is complete before its last step.
STOPPED_EARLY = "stopped early"
_BITS = 64  # of an integer from a file, at most
#: How a run that is there goes on in another place.
IN_A_COPY = "by copying the run there: `aigc train --resume COPY`"


class Run:
    """A run directory; `writes` is false in all but the main one of several processes that train together."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._place: os.stat_result | None = None  # since it was locked

    @property
    def name(self) -> str:
        """What it is called on the command line: ``<model>-<data>/<stamp>``."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def named(self) -> str:
        """What a user types here to name it, quoted: its name where ``outputs`` holds it, else its directory."""
        usual = OUTPUTS / self.name
        return shlex.quote(self.name if usual.is_dir() and usual.samefile(self.path) else str(self.path))

    @property
    def word(self) -> str:
        """That, with the plugins that were named too, which the next command needs as well."""
        return self.named + registry.plugin_words()

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.path / "checkpoints"

    @property
    def has_checkpoint(self) -> bool:
        """Whether it can be sampled."""
        return any(self.checkpoints.glob("step-*"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its resolved configuration; a :class:`DataError` where that cannot be read."""
        path = self.path / "config.yaml"
        config = load_yaml(path)
        for section in ("model", "data"):
            if not isinstance(config.get(section), dict) or not isinstance(config[section].get("name"), str):
                raise DataError(f"{path} names no {section}", "restore the file, or train the run again")
        return config

    @cached_property
    def spec(self) -> DataSpec:
        """What its model knows of its data."""
        path = self.path / "data.json"
        try:
            return read_spec(read_json(path))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise unreadable(path, error, "restore the file, or train the run again") from None

    def save_config(
        self,
        config: dict[str, Any],
        spec: DataSpec,
        files: Mapping[str, str] = MappingProxyType({}),
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the configuration, its identity, what the model may know about the data, and a codec's `files`.

        The identity is that of the configuration which was `asked` for, where the run's own had to differ from it: a
        sweep that asks the same again finds its runs.
        """
        if not self.writes:
            return
        for name, content in files.items():
            write_atomically(self.path / name, content)
        write_json(self.path / "data.json", asdict(spec))
        (self.path / "identity").unlink(missing_ok=True)  # a kill leaves it without one, not with another's
        save_yaml(self.path / "config.yaml", config)
        write_atomically(self.path / "identity", identity(config if asked is None else asked) + "\n")
        if not (self.path / "status.json").exists():
            write_json(self.path / "status.json", _status("running", 0))
        self.__dict__.pop("config", None)
        self.__dict__.pop("spec", None)

    def record_command(self) -> None:
        """Adds the command line to ``command.txt`` and the machine it ran on to ``env.json``."""
        with (self.path / "command.txt").open("a") as file:
            file.write(shlex.join(["aigc", *sys.argv[1:]]) + "\n")
        write_json(self.path / "env.json", environment())
        self._note_place()

    def _note_place(self) -> None:
        """Names a run that lies elsewhere beside those of ``outputs``, for whoever lists them."""
        root = Path(self.config.get("outputs") or OUTPUTS).absolute()
        path = self.path.absolute()
        if path.parent.parent == root or not root.is_dir():
            return
        with suppress(OSError):  # no training ends for the sake of a list
            places = root / PLACES
            line = f"{path}\n".encode(errors="surrogateescape")
            if not places.exists() or line not in places.read_bytes().splitlines(keepends=True):
                with places.open("ab") as file:
                    file.write(line)

    def plugins(self) -> list[str]:
        """The plugins that its commands named."""
        with suppress(OSError, ValueError, ConfigError):  # a file that was edited tells nothing
            lines = (self.path / "command.txt").read_text().splitlines()
            return [module for line in lines for module in parse(shlex.split(line)[1:]).plugin]
        return []

    # status

    def set_status(self, status: str, step: int, why: str = "") -> None:
        """Records how far the run is: "running", "complete", "stopped" or "failed", and `why` that is."""
        if self.writes:
            self.check_place()
            with resource_errors(self.path, IN_A_COPY):
                write_json(self.path / "status.json", _status(status, step, why))

    def _status(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            saved = read_json(self.path / "status.json")
            if isinstance(saved, dict):
                return saved
        return {"status": "stopped", "step": 0, "time": 0.0}

    def recorded_status(self) -> str:
        """As its process recorded it last, whether that is there or not."""
        return str(self._status().get("status"))

    def status(self) -> str:
        """As recorded, but a run whose process is gone is "stopped"."""
        status = self.recorded_status()
        return "stopped" if status == "running" and not self._locked() else status

    @property
    def step(self) -> int:
        """The training steps done when its status was last recorded."""
        step = self._status().get("step", 0)
        return step if isinstance(step, int) else 0

    @property
    def why(self) -> str:
        """What it failed of, or ended early for; "" where it did not, or nobody knows."""
        return str(self._status().get("why", ""))

    @property
    def stopped_early(self) -> bool:
        """Whether it is complete since its held-out score became no better (``trainer.early_stop``)."""
        return self.recorded_status() == "complete" and self.why.startswith(STOPPED_EARLY)

    def figures(self) -> dict[str, float]:
        """See :func:`last_values`."""
        return last_values(read_rows(self.path / "metrics.jsonl"))

    # the lock

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other trainers out; the kernel lets go of the lock when the process dies, however it dies.

        Raises:
            ConfigError: another process holds it.
        """
        if not self.writes:
            yield
            return

        def taken(who: str) -> ConfigError:
            hint = "wait for it, stop it, or start a run of your own without --resume and run_dir="
            return ConfigError(f"{self.path} is being trained by another process ({who})", hint)

        with ExitStack() as stack:
            with resource_errors(self.path, IN_A_COPY):
                stack.enter_context(holding(self.path / "lock", taken, stays=True))
            self._place = self.path.stat()
            yield

    def check_place(self) -> None:
        """Refuses to write where the run no longer is, by a :class:`ResourceError`: its folder was moved or deleted
        since it was locked, and one of its name would not be the run."""
        place = self._place
        if place is not None and not (self.path.is_dir() and os.path.samestat(place, self.path.stat())):
            what = f"the folder of the run, {self.path}, is no longer there: it was moved or deleted while it trained"
            hint = "`aigc train --resume` with its new path resumes from its last checkpoint"
            raise ResourceError(what, hint)

    def _locked(self) -> bool:
        try:
            with (self.path / "lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except OSError as error:
            return isinstance(error, BlockingIOError)


def _status(status: str, step: int, why: str = "") -> dict[str, Any]:
    return {"status": status, "step": step, "time": time.time(), **({"why": why} if why else {})}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a line torn by a kill is passed over, and so is what no curve can show."""
    rows = []
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            with suppress(ValueError, RecursionError):
                row = json.loads(line)
                if isinstance(row, dict) and type(row.get("step")) is int and is_number(row["step"]):
                    rows.append({key: value for key, value in row.items() if is_number(value)})
    return rows


def last_values(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The last finite value of every curve, but for bookkeeping such as the learning rate."""
    return {k: v for row in rows for k, v in row.items() if "/" in k and not k.endswith("/lr") and math.isfinite(v)}


def is_number(value: Any) -> bool:
    """Whether a value from a file is a number, finite or not, that a float holds."""
    return type(value) is float or (type(value) is int and value.bit_length() < _BITS)


def open_run(path: Path) -> Run:
    """The run in a directory; a :class:`ConfigError` where that holds none."""
    if not (path / "config.yaml").is_file():
        newest = [f"run={run.word}" for run in reversed([*list_runs(path), *list_runs(path.parent)])
                  if path in run.path.parents]  # fmt: skip
        hint = f"it holds runs, so name one: {some_of(newest)}" if newest else "`aigc ls runs` lists those in outputs/"
        raise ConfigError(f"{path} is not a run: it holds no config.yaml", hint)
    run = Run(path.resolve())
    registry.of_runs.append(run.plugins)
    return run


def find_run(word: str, root: Path = OUTPUTS, *, trained: bool = True, exported: Opener | None = None) -> Run:
    """The run that `word` names: a directory, ``latest`` (if `trained`, of those with a checkpoint), a stamp, or
    ``<model>-<data>/<stamp>``, or what `exported` opens of ``aigc export``; a :class:`ConfigError` without one."""
    if word == "latest":
        if not (root / "latest").is_dir():
            raise ConfigError(f"there is no run in {root}/ yet", "train one with `aigc train`, or name a run with run=")
        newest = open_run(root / "latest")
        if trained and not newest.has_checkpoint and (others := [run for run in list_runs(root) if run.has_checkpoint]):
            say(f"{newest.name} ({newest.status()}) has no checkpoint; {others[-1].name} is the latest that has one")
            return open_run(others[-1].path)
        return newest
    stamps = root.glob(f"*/{glob.escape(word.strip('/')) or '-'}")
    named = (path for path in elsewhere(root) if word in (path.name, Run(path).name))
    for path in (path_of(word), root / word, *sorted(stamps), *named):
        places = [path, path.parent] if path.exists() else []  # a word that names nothing is no file of a folder
        if path.suffix in (".onnx", ".pt2") or any((place / "export.json").is_file() for place in places):
            if exported is not None:
                return exported(path)
            raise ConfigError(f"{path} is not a run: aigc export wrote it", "name the run itself")
        if path.is_dir():
            return open_run(path)
    known = [run.name for run in list_runs(root)]
    hint = suggest(word, [*known, "latest"]) if known else "train one with `aigc train`, or name a run's directory"
    raise ConfigError(f"there is no run {word!r}", hint)


def elsewhere(root: Path) -> Iterator[Path]:
    """Where ``run_dir=`` put runs beside those under `root`; some may be gone."""
    with suppress(OSError):
        for line in (root / PLACES).read_bytes().splitlines():
            if line.startswith(b"/"):
                yield Path(os.fsdecode(line))
    if (latest := root / "latest").is_dir():  # of before there was such a file
        yield latest.resolve()


def list_runs(root: Path = OUTPUTS) -> list[Run]:
    """All runs under `root`, the oldest first."""
    places = [path.parent for path in root.glob("*/*/config.yaml")]  # one with a dot is being made
    # What lies in a run, such as its tokenizer's folder, or in an exported one, is not another; `latest` is a run too.
    inner = {path for path in places if any((path.parent / name).exists() for name in ("config.yaml", "export.json"))}
    found = [path for path in places if not path.name.startswith(".") and path not in inner]
    ages = {}
    for path in found:
        with suppress(OSError):  # deleted meanwhile
            ages[path] = (path / "config.yaml").stat().st_mtime
    return [Run(path) for path in sorted(ages, key=ages.__getitem__)]


def find_by_identity(config: dict[str, Any]) -> Run | None:
    """The newest run under ``outputs`` with the same resolved configuration, of any status; None without one."""
    wanted = identity(config)
    for run in reversed(list_runs(Path(config["outputs"]))):
        with suppress(OSError):
            if (run.path / "identity").read_text().strip() == wanted:
                return run
    return None
