"""What ``aigc export`` wrote, read in the place of the run that it was taken from."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import checksum, read_json
from aigc_cli.runs import Run

#: Of an exported folder: what describes it, and the folder of what it keeps of its run (configuration, codec).
RECORD, KEPT = "export.json", "run"
#: The formats that can stand for a run; why others cannot, and what can be done with them.
READABLE = {"onnx": "onnxruntime", "safetensors": ""}
_OTHERS = {
    "torch_export": "torch.export.load in a program of your own runs it",
    "huggingface": "`aigc train model.init_from=hf:DIR` starts from it",
    "web": "open its index.html in a browser",
}
_HINT = "export the run again, or restore the folder from a copy"


class ExportedRun(Run):
    """An exported folder. Its configuration and its codec are those of the run, and so is its name; what is made of it
    lands in its folder ``run``."""

    def __init__(self, folder: Path, record: Mapping[str, Any]) -> None:
        super().__init__(folder / KEPT, writes=False)
        self.folder, self.record = folder, record

    @property
    def name(self) -> str:
        """That of the run which was exported."""
        return str(self.record["run"])

    @property
    def named(self) -> str:
        """The folder, quoted."""
        return shlex.quote(str(self.folder))

    @property
    def step(self) -> int:
        """That of the checkpoint which was exported."""
        return int(self.record["step"])

    @property
    def has_checkpoint(self) -> bool:
        """It has one, in another form."""
        return True

    @property
    def weights(self) -> str:
        """Which weights it has, such as ``onnx fp32``."""
        return f"{self.record['format']} {self.record['dtype']}"

    @property
    def can(self) -> frozenset[str]:
        """What its files can do of :attr:`aigc_cli.models.base.Model.can`."""
        return frozenset(self.record["can"])

    @property
    def files(self) -> dict[str, Path]:
        """Its graphs, by the names of the parts of the model."""
        return {Path(name).stem: self.folder / name for name in self.record.get("files", {})}

    def recorded_status(self) -> str:
        """It is not trained any more."""
        return "exported"


def open_exported(path: Path) -> ExportedRun:
    """The exported folder that `path` is, or is in, with all its files as they were written.

    Raises:
        ConfigError: nothing says what it is; it is of a format that runs elsewhere alone.
        DataError: a file is missing, or is not what was written.
    """
    folder = _folder(path)
    if folder is None:
        what = f"{path}: there is no {RECORD} beside it" if path.exists() else f"there is nothing at {path}"
        raise ConfigError(what, "name a file in a folder that `aigc export` wrote, or the folder")
    record = _verified(folder)
    if record["format"] not in READABLE:
        what = f"{folder} was exported as {record['format']}, which cannot stand for a run"
        raise ConfigError(what, f"{_OTHERS.get(record['format'], 'export it')}; format=onnx and safetensors can")
    if "can" not in record or not (folder / KEPT).is_dir():
        raise ConfigError(f"{folder} was exported by an earlier version, which kept less of the run", "export it again")
    return ExportedRun(folder.resolve(), record)


def _folder(path: Path) -> Path | None:
    if not path.exists():
        return None
    places = [path, path.parent] if path.name == KEPT else [path] if path.is_dir() else [path.parent]
    return next((place for place in places if (place / RECORD).is_file()), None)


def _verified(folder: Path) -> Mapping[str, Any]:
    """The record of an exported folder, whose files have the sums that it says."""
    try:
        record = read_json(folder / RECORD)
        for key, kind in (("format", str), ("dtype", str), ("run", str), ("step", int), ("model_checksum", str),
                          ("sha256", dict)):  # fmt: skip
            if not isinstance(record[key], kind):
                raise ValueError(f"{RECORD} has no {key}")
        sums: dict[str, Any] = record["sha256"]
        if unknown := [name for name in record.get("files", {}) if name not in sums]:
            raise ValueError(f"{RECORD} has no sum of {unknown[0]}")
        for name, wanted in sums.items():
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{name} lies outside of the folder")
            if checksum(path) != wanted:
                raise ValueError(f"{name} does not match its sum in {RECORD}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{Path(error.filename).name} is missing" if isinstance(error, FileNotFoundError) else error
        why = f"{RECORD} has no {error.args[0]}" if isinstance(error, KeyError) else why
        raise DataError(f"{folder} cannot be trusted: {why}", _HINT) from None
    return dict(record)
