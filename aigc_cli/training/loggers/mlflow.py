"""MLflow: to the server of ``MLFLOW_TRACKING_URI``, else into the folder ``mlruns`` of ``outputs``."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from aigc_cli.config.schema import leaves
from aigc_cli.registry import register
from aigc_cli.runs import OUTPUTS
from aigc_cli.training.loggers.base import Start

#: Parameters that a server takes at once, and characters of one.
_AT_ONCE, _LONGEST = 100, 6000
_ENDS = {"complete": "FINISHED", "stopped": "KILLED"}


@register("logger", "mlflow")
class MLflow:
    """The run of its server, whose id that gives; names have another bracket there (``val/fd_digits-cnn``)."""

    module: ClassVar[str] = "mlflow"
    rewinds: ClassVar[bool] = False

    def __init__(self, start: Start) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (_outputs(start) / "mlruns").absolute().as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow would rather have a database
        from mlflow.tracking import MlflowClient

        self.where = uri
        with _alone(_outputs(start)):  # it makes a folder that is not there
            self._client: Any = MlflowClient(tracking_uri=uri)
        if start.known:
            self.id = start.id
            self._client.update_run(self.id, status="RUNNING")
            return
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or start.project
        with _alone(_outputs(start)):
            experiment = self._experiment(project)
        self.id = self._client.create_run(experiment, run_name=start.name).info.run_id
        self._put_params(leaves(start.config))

    def _experiment(self, project: str) -> str:
        """The experiment of that name, which is made where there is none."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(project)
        if found is None:
            try:
                return str(self._client.create_experiment(project))
            except MlflowException:  # another run has made it on the server meanwhile
                found = self._client.get_experiment_by_name(project)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _put_params(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(_name(key), str(value)[:_LONGEST]) for key, value in values.items()]
        for first in range(0, len(params), _AT_ONCE):
            self._client.log_batch(self.id, params=params[first : first + _AT_ONCE])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Logs a row."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_name(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def sample(self, step: int, name: str, path: Path) -> None:
        """Logs a picture with its step, and any other file as it is."""
        if path.suffix == ".png":
            with Image.open(path) as picture:
                self._client.log_image(self.id, picture.convert("RGB"), key=name, step=step)
        else:
            self._client.log_artifact(self.id, str(path), "samples")

    def close(self, status: str) -> None:
        """Ends it with its status."""
        self._client.set_terminated(self.id, _ENDS.get(status, "FAILED"))


@contextmanager
def _alone(outputs: Path) -> Iterator[None]:
    """No other run of these `outputs` makes an experiment meanwhile: in a folder there can be two of one name."""
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs / ".mlruns.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _outputs(start: Start) -> Path:
    """Where the run lies among others, from wherever it is resumed; of one that ``run_dir=`` put elsewhere, which may
    be at the root of a disk, the folder that its configuration names."""
    usual = start.folder.parent.name == start.project
    return start.folder.parent.parent if usual else Path(start.config.get("outputs") or OUTPUTS)


def _name(name: str) -> str:
    """A name of the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]+", "_", name).strip("_")
