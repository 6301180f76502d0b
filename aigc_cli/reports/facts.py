"""What a report and a comparison know of a run: read from its files once, so that the run itself may go afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from aigc_cli.config.origins import DEFAULT, ORIGINS, of_command, origin_of
from aigc_cli.config.schema import leaves, walk
from aigc_cli.files import read_json
from aigc_cli.files import shown as file_shown
from aigc_cli.reports.media import inside
from aigc_cli.run_index import disk_use, notes_of, records_of
from aigc_cli.runs import Run, read_rows

#: Where a run lies and how a sweep looks at it say nothing of what it computes.
_APART = ("run_dir", "outputs", "sweep")
#: Numbers beside the steps of a row, which are no curves.
_BESIDE = ("step", "epoch", "seconds")
#: How the names of scores begin that are of held-out data.
HELD_OUT = ("val/", "examine/held_out/")

Point = tuple[int, float]


def facts_of(runs: Collection[Run]) -> list[Facts]:
    """What is known of runs, each by a name that no other of them has."""
    named = Counter(run.name for run in runs)
    return [Facts(run, named[run.name] > 1) for run in runs]


@dataclass(frozen=True)
class Facts:
    """A run, by its files."""

    run: Run
    apart: bool = False  # whether another run beside it has its name

    @cached_property
    def name(self) -> str:
        """As on the command line."""
        return str(file_shown(self.run.path)) if self.apart else self.run.name

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its configuration, flat; raises DataError where that cannot be read."""
        values = leaves(self.run.config)
        return {key: value for key, value in values.items() if key.partition(".")[0] not in _APART}

    @cached_property
    def commands(self) -> list[str]:
        """The command lines that trained it, in order."""
        return self._lines("command.txt")

    @cached_property
    def _origins(self) -> dict[str, str]:
        saved = self._json(ORIGINS) or of_command(next(iter(self.commands), ""))
        return {key: str(value) for key, value in saved.items()}

    def origin(self, key: str) -> str:
        """Where a value came from; runs of before that was kept know typed words alone."""
        kept = (self.run.path / ORIGINS).is_file()
        return origin_of(key, self._origins, DEFAULT if kept else "default or recipe")

    @cached_property
    def _environment(self) -> dict[str, Any]:
        return self._json("env.json")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device and git, flat."""
        found = dict(walk(self._environment))
        return {key: value for key, value in found.items() if not isinstance(value, Mapping)}

    @cached_property
    def data(self) -> dict[str, Any]:
        """What the model knows of its data: shape, classes, fingerprint."""
        found = self._json("data.json")
        return {key: value for key, value in found.items() if value not in (None, [], "")}

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of its metrics."""
        return read_rows(self.run.path / "metrics.jsonl")

    @cached_property
    def curves(self) -> dict[str, list[Point]]:
        """The points of each curve, by its name, those that are NaN or infinite among them."""
        found: dict[str, list[Point]] = {}
        for row in self.rows:
            for key, value in row.items():
                if key not in _BESIDE:
                    found.setdefault(key, []).append((row["step"], float(value)))
        return found

    @cached_property
    def warnings(self) -> list[str]:
        """The warnings of its training."""
        return self._lines("warnings.txt")

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """Its evaluations, the oldest first."""
        return records_of(self.run.path)

    @cached_property
    def notes(self) -> dict[str, Any]:
        """The note and the tags that a person gave it."""
        return notes_of(self.run.path)

    @cached_property
    def seconds(self) -> float:
        """How long it trained."""
        return max((float(row.get("seconds") or 0) for row in self.rows), default=0.0)

    @cached_property
    def cost(self) -> dict[str, Any]:
        """What the training took: steps, items, seconds, speed, disk, and on which device."""
        trainer = self.run.config.get("trainer", {})
        speeds = [row["items_per_second"] for row in self.rows if row.get("items_per_second")]
        gpus, threads = self._environment.get("gpus"), self._environment.get("threads")
        threads_said = f"CPU, {threads} thread{'' if threads == 1 else 's'}" if threads else "unknown"
        items = self.run.step * trainer.get("batch_size", 0) * trainer.get("accumulate", 1)
        return {
            "steps": self.run.step, "items": items, "seconds": self.seconds,
            "items_per_second": median(speeds) if speeds else None, "disk": disk_use(self.run.path),
            "device": ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else threads_said,
        }  # fmt: skip

    @cached_property
    def sums(self) -> dict[str, str]:
        """The SHA-256 of the files of its newest checkpoint, by ``step-N/FILE``."""
        folders = [path for path in self.run.checkpoints.glob("step-*") if path.name[5:].isdecimal()]
        for folder in sorted(folders, key=lambda path: -int(path.name[5:])):
            with suppress(OSError, ValueError):
                saved = read_json(folder / "manifest.json")
                if isinstance(saved, dict):
                    return {f"{folder.name}/{file}": str(value) for file, value in saved.items()}
        return {}

    @cached_property
    def previews(self) -> dict[str, dict[int, Path]]:
        """The previews of samples of fixed seeds, by kind, such as ``.png`` or ``-reconstructions.wav``, and step."""
        found: dict[str, dict[int, Path]] = {}
        for path in sorted((self.run.path / "samples").glob("step-*")):
            digits = path.stem.removeprefix("step-").partition("-")[0]
            if digits.isdecimal():
                found.setdefault(path.name.removeprefix(f"step-{digits}"), {})[int(digits)] = path
        return {kind: dict(sorted(steps.items())) for kind, steps in found.items()}

    def _lines(self, name: str) -> list[str]:
        path = self.run.path / name
        with suppress(OSError):
            return path.read_text(errors="replace").splitlines() if inside(path, self.run.path) else []
        return []

    def _json(self, name: str) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            path = self.run.path / name
            saved = read_json(path) if inside(path, self.run.path) else None
            if isinstance(saved, dict):
                return saved
        return {}
