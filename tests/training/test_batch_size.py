"""How large a batch is: what the data holds, and what memory has room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy import toy_config

from aigc_cli.commands.train import run_training
from aigc_cli.config.schema import Options, identity
from aigc_cli.runs import find_run, read_rows
from aigc_cli.training.batch_size import BatchTooLarge, fitting_data, smaller_batch
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.distributed import Processes


def config(size: int, accumulate: int = 1, **data: Any) -> dict[str, Any]:
    return {"trainer": {"batch_size": size, "accumulate": accumulate, "auto_batch": True}, "data": data}


@pytest.mark.parametrize(
    ("size", "accumulate", "smaller"), [(64, 1, (32, 2)), (2, 3, (1, 6)), (15, 2, (5, 6)), (7, 1, (1, 7)), (1, 4, None)]
)
def test_a_smaller_batch_is_as_many_items_a_step(size: int, accumulate: int, smaller: tuple[int, int] | None) -> None:
    found = smaller_batch(config(size, accumulate))
    assert (None if found is None else (found["batch_size"], found["accumulate"])) == smaller


def test_a_batch_of_tokens_is_left_alone() -> None:
    assert smaller_batch(config(64, batch_tokens=4096)) is None


@pytest.mark.parametrize(
    ("size", "items", "processes", "fits"),
    [(8, 9, 1, 8), (9, 9, 1, 9), (100_000, 9, 1, 9), (100_000, 9, 2, 8), (12, 2, 3, 6), (3, 2, 3, 3), (8, 1, 1, 2)],
)
def test_a_batch_holds_no_item_twice_but_for_two_to_each_process(
    size: int, items: int, processes: int, fits: int, capsys: Any
) -> None:
    given = config(size)
    found = fitting_data(given, items, Processes(world_size=processes))
    assert found == config(fits)
    assert (f"more than the {items} items" in capsys.readouterr().err) == (fits < size)
    assert fitting_data(config(size, batch_tokens=64), items, Processes()) == config(size, batch_tokens=64)


def test_a_run_whose_batch_was_larger_than_its_data_resumes_with_what_fitted(
    registered_toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = toy_config()
    made["trainer"].update(steps=2, batch_size=100_000, sample_every=None, examine_every=None, device="cpu")
    run = run_training(made, Options()).run
    assert run.config["trainer"]["batch_size"] == 1258
    run_training(made, Options(resume=str(run.path), overrides=("trainer.steps=3",)))
    assert (run.step, run.config["trainer"]["batch_size"]) == (3, 1258)


def test_a_run_from_before_there_was_such_a_bound_resumes_as_it_was(
    registered_toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = toy_config()
    made["trainer"].update(batch_size=2000, sample_every=None, examine_every=None, device="cpu")
    ended = []
    with monkeypatch.context() as patch:
        patch.setattr("aigc_cli.commands.train.fitting_data", lambda config, *_: config)
        for steps in (2, 3):
            made["trainer"]["steps"] = steps
            ended.append(run_training(made, Options()).run)
    run_training(made, Options(resume=str(ended[0].path), overrides=("trainer.steps=3",)))
    assert find_run(str(ended[0].path)).config["trainer"]["batch_size"] == 2000
    tensors = [CheckpointFolder(run.checkpoints).load(3).tensors["model"] for run in ended]
    assert all(torch.equal(tensor, tensors[1][name]) for name, tensor in tensors[0].items())


def test_identity_is_of_what_a_step_sees() -> None:
    assert identity(config(64)) == identity(config(16, 4)) != identity(config(32))


@pytest.fixture
def narrow(registered_toy: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A small run whose model has memory for two items at once, and from step 3 on for one."""
    from toy import Toy

    forward = Toy.forward

    def narrowed(self: Any, phase: str, batch: Any) -> Any:
        torch.empty(1 << 60 if len(batch) > (2 if self.steps < 3 else 1) else 1, dtype=torch.uint8)
        return forward(self, phase, batch)

    def phases(self: Any, step: int) -> Any:
        self.steps = step
        return super(Toy, self).phases(step)

    monkeypatch.setattr(Toy, "forward", narrowed)
    monkeypatch.setattr(Toy, "phases", phases)
    monkeypatch.chdir(tmp_path)
    made = toy_config()
    made["trainer"].update(
        steps=6, batch_size=8, checkpoint_every=2, sample_every=None, examine_every=None, log_every=1, device="cpu"
    )
    return made


def test_the_batch_is_named(narrow: dict[str, Any]) -> None:
    with pytest.raises(BatchTooLarge, match=r"out of memory on cpu with trainer\.batch_size=8") as caught:
        run_training(narrow, Options())
    assert "trainer.batch_size=4 trainer.accumulate=2" in caught.value.hint
    assert "trainer.auto_batch=true" in caught.value.hint
    assert find_run("latest").status() == "failed"


def test_an_automatic_batch_is_halved_until_it_fits(narrow: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    narrow["trainer"]["auto_batch"] = True
    result = run_training(narrow, Options())
    assert result.status == "complete"
    saved = result.run.config["trainer"]
    assert (saved["batch_size"], saved["accumulate"]) == (1, 8)
    assert (result.run.path / "identity").read_text().strip() == identity(narrow)
    said = [line for line in capsys.readouterr().err.splitlines() if "continuing with" in line]
    assert [line.split("continuing with ")[1].split(",")[0] for line in said] == [
        "trainer.batch_size=4 trainer.accumulate=2",
        "trainer.batch_size=2 trainer.accumulate=4",
        "trainer.batch_size=1 trainer.accumulate=8",
    ]
    assert [row["step"] for row in read_rows(result.run.path / "metrics.jsonl") if "main/loss" in row] == [*range(1, 7)]


def test_a_batch_that_was_cut_and_shrinks_is_still_the_one_that_was_asked_for(narrow: dict[str, Any]) -> None:
    narrow["trainer"].update(auto_batch=True, batch_size=5000, steps=1)
    run = run_training(narrow, Options()).run
    assert (run.config["trainer"]["batch_size"], run.config["trainer"]["accumulate"]) == (1, 1258)
    assert (run.path / "identity").read_text().strip() == identity(narrow)  # by which the same sweep finds it again


def test_a_batch_of_one_that_does_not_fit_ends(narrow: dict[str, Any]) -> None:
    narrow["trainer"].update(auto_batch=True, batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toy.Toy.forward", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
        with pytest.raises(BatchTooLarge, match=r"trainer\.batch_size=1"):
            run_training(narrow, Options())
