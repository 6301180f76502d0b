"""Memory that runs out, is kept, and is given back; and a batch that it has no room for."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import toy_config

from aigc_cli.commands.train import run_training
from aigc_cli.config.schema import Options, identity
from aigc_cli.runs import find_run, read_rows
from aigc_cli.training.distributed import Processes
from aigc_cli.training.memory import (
    BatchTooLarge,
    fitting_data,
    is_out_of_memory,
    keep_freed_memory,
    release_freed_memory,
    smaller_batch,
)


def test_out_of_memory_in_whatever_words() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(RuntimeError("can't start new thread"))
    assert not is_out_of_memory(RuntimeError("a shape is wrong"))


def resident() -> int:
    """The pages of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="another C library than glibc")
def test_what_tensors_freed_is_kept_until_it_is_released() -> None:
    keep_freed_memory()
    some = [torch.ones(1 << 24, dtype=torch.uint8) for _ in range(8)]
    pages = len(some) * some[0].numel() // os.sysconf("SC_PAGE_SIZE")
    some.clear()
    before = resident()
    release_freed_memory()
    assert before - resident() > pages // 2


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
    [(8, 9, 1, 8), (9, 9, 1, 9), (100_000, 9, 1, 9), (100_000, 9, 2, 8), (12, 2, 3, 3), (3, 2, 3, 3)],
)
def test_a_batch_holds_no_item_twice(size: int, items: int, processes: int, fits: int, capsys: Any) -> None:
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


def test_a_batch_of_one_that_does_not_fit_ends(narrow: dict[str, Any]) -> None:
    narrow["trainer"].update(auto_batch=True, batch_size=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toy.Toy.forward", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
        with pytest.raises(BatchTooLarge, match=r"trainer\.batch_size=1"):
            run_training(narrow, Options())
