"""Loggers: what each library wrote is what ``metrics.jsonl`` holds, under one id; and none can end a training.

Each test of a library skips where that is not installed; a logger of ours is always there.
"""

from __future__ import annotations

import json
import math
import re
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
from PIL import Image

from aigc_cli import registry
from aigc_cli.errors import ConfigError
from aigc_cli.registry import Component
from aigc_cli.runs import Run, read_rows
from aigc_cli.training.journal import Journal
from aigc_cli.training.loggers.base import IDS, Start, check_loggers

CONFIG = {"model": {"name": "vae", "width": 8}, "data": {"name": "digits"}, "seed": 0}
Curves = dict[tuple[int, str], float]
#: What libraries of others warn of is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


class Memory:
    """A logger that remembers, and raises where it is told to."""

    module: ClassVar[str] = "json"
    rewinds: ClassVar[bool] = False
    seen: ClassVar[list[tuple[Any, ...]]] = []
    raises: ClassVar[str] = ""

    def __init__(self, start: Start) -> None:
        self.id, self.where = start.id, "here"
        self._note("start", start.id, start.known)

    def _note(self, what: str, *values: Any) -> None:
        print("* what a library prints")
        Memory.seen.append((what, *values))
        if Memory.raises == what:
            raise RuntimeError("no\nnetwork")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._note("scalars", step, dict(values))

    def sample(self, step: int, name: str, path: Path) -> None:
        self._note("sample", step, name, path.suffix)

    def close(self, status: str) -> None:
        self._note("close", status)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load("logger")
    monkeypatch.setitem(registry._components, ("logger", "memory"), Component("logger", "memory", Memory, object))
    monkeypatch.setattr(Memory, "seen", [])
    monkeypatch.setattr(Memory, "raises", "")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "outputs" / "vae-digits" / "first")
    (run.path / "samples").mkdir(parents=True)
    (run.path / "config.yaml").write_text(json.dumps(CONFIG))
    return run


def train(run: Run, steps: range, loggers: list[str], *, to: int | None = None, status: str = "complete") -> None:
    """What a training does with its journal, from the step before `steps`; it saved last after step `to`."""
    journal = Journal(run, steps[0] - 1, loggers)
    for step in steps:
        journal.write(step, {"main/loss": 1 / step}, {"seconds": float(step)})
        journal.write(step, {"val/fd[digits-cnn]": 10.0 / step})
        if step == 2:
            previews(run.path / "samples")
            journal.samples(2)
    run.set_status(status, steps[-1])
    journal.close()


def previews(folder: Path) -> None:
    pictures = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 200)]
    pictures[0].save(folder / "step-2.png")
    pictures[0].save(folder / "step-2.gif", save_all=True, append_images=pictures[1:])
    (folder / "step-2-infilled.txt").write_text("what <is> it?\n")
    soundfile.write(folder / "step-2.wav", np.zeros(800, np.float32), 8000)
    pictures[0].save(folder / "step-20.png")


def written(run: Run) -> Curves:
    rows = read_rows(run.path / "metrics.jsonl")
    return {(row["step"], name): value for row in rows for name, value in row.items() if name != "step"}


# ours


def test_rows_samples_and_the_end_reach_a_logger(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    train(run, range(1, 3), ["memory"], status="stopped")
    assert [each[0] for each in Memory.seen] == ["start", *["scalars"] * 4, *["sample"] * 4, "close"]
    assert Memory.seen[1] == ("scalars", 1, {"main/loss": 1.0, "seconds": 1.0})
    files = [("samples-infilled", ".txt"), ("samples", ".gif"), ("samples", ".png"), ("samples", ".wav")]
    assert sorted(each[2:] for each in Memory.seen if each[0] == "sample") == sorted(files)
    assert Memory.seen[-1] == ("close", "stopped")
    out, err = capsys.readouterr()
    assert (out, "logger:      memory, here" in err) == ("", True)


def test_a_resumed_run_goes_on_under_its_id_and_repeats_nothing(run: Run) -> None:
    train(run, range(1, 6), ["memory"])
    train(run, range(3, 8), ["memory"])  # it was killed after its checkpoint of step 2
    starts = [each for each in Memory.seen if each[0] == "start"]
    assert starts[0][1] == starts[1][1] == json.loads((run.path / IDS).read_text())["memory"]
    assert [each[2] for each in starts] == [False, True]
    assert [each[1] for each in Memory.seen if each[0] == "scalars"] == [s for s in range(1, 8) for _ in range(2)]


def test_one_that_joins_later_is_given_what_was_before(run: Run) -> None:
    train(run, range(1, 3), [])
    train(run, range(3, 5), ["memory"])
    assert [each[1] for each in Memory.seen if each[0] == "scalars"] == [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("what", ["start", "scalars", "sample", "close"])
def test_one_that_raises_is_said_once_and_left_out(
    what: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Memory, "raises", what)
    train(run, range(1, 4), ["memory"])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("memory failed and is left out from now on: no network") == 1
    assert sum(each[0] == what for each in Memory.seen) == 1
    assert written(run)[3, "main/loss"] == 1 / 3


def test_only_the_main_process_logs(run: Run) -> None:
    train(Run(run.path, writes=False), range(1, 3), ["memory"])
    assert not Memory.seen


@pytest.mark.parametrize(("name", "says"), [("wandbb", "wandb"), ("memory", "aigc-cli\\[memory\\]")])
def test_one_that_cannot_be_is_refused_with_what_to_do(name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "module", "no_such_package")
    with pytest.raises(ConfigError) as caught:
        check_loggers([name])
    assert says.replace("\\", "") in str(caught.value)


# the libraries'


def of_tensorboard(run: Run, _: Path) -> tuple[Curves, set[str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    tags = board.Tags()
    curves = {(event.step, name): event.value for name in tags["scalars"] for event in board.Scalars(name)}
    return curves, {*tags["images"], *tags["audio"], *tags["tensors"]}


def records_of(path: Path) -> Iterator[Any]:
    """The records of a W&B file: those of LevelDB's log, in blocks of 32 kB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        part += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(part)
            part = b""
            yield record


def of_wandb(run: Run, _: Path) -> tuple[Curves, set[str]]:
    import wandb

    wandb.teardown()  # the process that writes
    curves: Curves = {}
    media: set[str] = set()
    files = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    assert {file.stem for file in files} == {f"run-{json.loads((run.path / IDS).read_text())['wandb']}"}
    for file in files:
        for record in records_of(file):
            row = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            step = row.pop("_step", None)
            media |= {name.partition(".")[0] for name in row if name.startswith("samples")}
            curves |= {(step, name): row[name] for name in row if name[0] != "_" and not name.startswith("samples")}
    return curves, media


def of_mlflow(run: Run, _: Path) -> tuple[Curves, set[str]]:
    from mlflow.tracking import MlflowClient

    client: Any = MlflowClient(f"file:{run.path.parent.parent / 'mlruns'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "vae-digits"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.data.params["model.width"]) == ("FINISHED", "8")
    names = {"val/fd_digits-cnn": "val/fd[digits-cnn]"}
    curves = {
        (point.step, names.get(name, name)): point.value
        for name in found.data.metrics for point in client.get_metric_history(found.info.run_id, name)
    }  # fmt: skip
    files = [*client.list_artifacts(found.info.run_id, "samples"), *client.list_artifacts(found.info.run_id, "images")]
    return curves, {Path(file.path).name for file in files}


def of_trackio(run: Run, _: Path) -> tuple[Curves, set[str]]:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("vae-digits")
    logs = SQLiteStorage.get_logs("vae-digits", name)
    curves = {
        (row["step"], key): value
        for row in logs for key, value in row.items() if isinstance(value, (int, float)) and key != "step"
    }  # fmt: skip
    shown = {key: value for row in logs for key, value in row.items() if key.startswith("samples")}
    kinds = {"png": "image", "gif": "image", "wav": "audio", "txt": "html"}  # its page plays no GIF, and joins lines
    assert {key: value["_type"] for key, value in shown.items()} == {key: f"trackio.{kinds[key[-3:]]}" for key in shown}
    assert "at step 2" in shown["samples.png"]["caption"]
    return curves, {*shown}


READERS: dict[str, Callable[[Run, Path], tuple[Curves, set[str]]]] = {
    "tensorboard": of_tensorboard, "wandb": of_wandb, "mlflow": of_mlflow, "trackio": of_trackio
}  # fmt: skip


@pytest.fixture
def mlflow_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="the extra aigc-cli[mlflow] is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.mark.usefixtures("mlflow_in_files")
def test_mlflow_logs_into_outputs_wherever_the_run_lies(run: Run, tmp_path: Path) -> None:
    outputs = tmp_path / "all #1"
    far = Run(tmp_path / "disk" / "mine")
    (far.path / "samples").mkdir(parents=True)
    (far.path / "config.yaml").write_text(json.dumps({**CONFIG, "outputs": str(outputs)}))
    train(far, range(1, 3), ["mlflow"])
    assert [*outputs.glob("mlruns/*/*/metrics/main/loss")]
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.usefixtures("mlflow_in_files")
@pytest.mark.parametrize("together", [True, False])
def test_runs_that_begin_together_are_in_one_experiment(
    together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    from aigc_cli.training.loggers.mlflow import MLflow

    starts = [Start(tmp_path / f"vae-digits/{name}", name, CONFIG, 0, name, known=False) for name in "ab"]
    look, make = MlflowClient.get_experiment_by_name, MlflowClient.create_experiment

    def slowly(self: Any, name: str) -> Any:
        found = look(self, name)
        time.sleep(0.3)
        return found

    def twice(self: Any, name: str) -> Any:
        make(self, name)  # another machine is faster
        return make(self, name)

    if together:
        monkeypatch.setattr(MlflowClient, "get_experiment_by_name", slowly)
    else:
        monkeypatch.setattr(MlflowClient, "create_experiment", twice)
    with ThreadPoolExecutor(2 if together else 1) as pool:
        loggers = list(pool.map(MLflow, starts))
    (experiment,) = [each for each in loggers[0]._client.search_experiments() if each.name == "vae-digits"]
    assert len(loggers[0]._client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.parametrize("name", READERS)
def test_what_a_library_wrote_is_what_the_run_holds(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "trackio":  # it reads its folder where it is imported first
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip(name, reason=f"the extra aigc-cli[{name}] is not installed")
    for variable in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    train(run, range(1, 6), [name])
    train(run, range(3, 8), [name])  # it was killed after its checkpoint of step 2
    out, err = capsys.readouterr()
    assert (out, "failed and is left out" in err) == ("", False), err
    if name == "wandb":  # both parts of a resumed run lie where it says
        folders = re.findall("`wandb sync (.*?)`", err)
        assert len([*Path(folders[1]).glob("offline-run-*")]) == 2
    curves, media = READERS[name](run, tmp_path)
    expected = written(run)
    assert len(expected) == 21
    assert curves.keys() == expected.keys()
    assert all(math.isclose(curves[key], value, rel_tol=1e-6) for key, value in expected.items())
    assert any(tag.startswith("samples") for tag in media) or any("step-2" in tag for tag in media), media
