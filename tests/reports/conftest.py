"""Runs by their files alone: nothing was trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aigc_cli.config.schema import save_yaml
from aigc_cli.runs import Run

CONFIG: dict[str, Any] = {
    "model": {"name": "gan", "width": 8}, "data": {"name": "digits"}, "optimizer": {"lr": 1e-3, "betas": [0, 1]},
    "trainer": {"steps": 20, "batch_size": 16, "accumulate": 1}, "seed": 0, "outputs": "outputs", "run_dir": None,
}  # fmt: skip


def record(value: float, n: int = 100, **changes: Any) -> dict[str, Any]:
    """What an evaluation leaves."""
    return {
        "metric": "fd", "figures": {"fd[digits-cnn]": value}, "better": {"fd[digits-cnn]": "lower"},
        "spread": {"fd[digits-cnn]": 0.1}, "generated": {"n": n, "step": 20}, "real": {"n": n, "data": "digits"},
        "floor": {"figures": {"fd": 1.5}, "n": n}, "config": {"name": "fd"}, "time": "2026-01-01", **changes,
    }  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Makes a run in the current folder's outputs: its name, changes of its configuration, and an evaluation."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, score: dict[str, Any] | None = None, **changes: Any) -> Run:
        path = tmp_path / "outputs/gan-digits" / name
        (path / "samples").mkdir(parents=True)
        (path / "eval").mkdir()
        config = json.loads(json.dumps(CONFIG))
        for key, value in changes.items():
            section, _, last = key.partition("__")
            config |= {section: {**config[section], last: value}} if last else {section: value}
        save_yaml(path / "config.yaml", config)
        rows = [{"step": step, "seconds": step / 10, "generator/loss": 2 / step, "val/fd": 90.0 - step,
                 "items_per_second": 10.0, "generator/lr": 1e-3} for step in (5, 10, 15, 20)]  # fmt: skip
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (path / "command.txt").write_text("aigc train model=gan data=digits optimizer.lr=1e-3 'x.name=</script>'\n")
        (path / "env.json").write_text(json.dumps({"time": name, "threads": 1, "gpus": [], "versions": {"torch": "2"}}))
        spec = {"modality": "image", "shape": [1, 8, 8], "classes": ["0", "1"], "fingerprint": "ab" * 32}
        (path / "data.json").write_text(json.dumps(spec))
        origins = {"model": "model=gan", "optimizer.lr": "typed", "model.width": "recipe/gan_digits.yaml"}
        (path / "origins.json").write_text(json.dumps(origins))
        if score is not None:
            (path / "eval/fd.json").write_text(json.dumps(score))
        run = Run(path)
        run.set_status("complete", 20)
        return run

    return make
