"""``aigc train``: what it shows while a model trains and at its end, and that what resumes is bit for bit the same."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import TRAIN_TOY
from toy_text import text_words

from aigc_cli import registry
from aigc_cli.cli import main
from aigc_cli.commands import train as command
from aigc_cli.config.schema import Options
from aigc_cli.runs import Run, find_run
from aigc_cli.training.build import check_config
from aigc_cli.training.checkpoint import CheckpointFolder, State
from aigc_cli.training.distributed import Processes
from aigc_cli.training.restore import changed_config, warn_of_jump

TOY = [*TRAIN_TOY, "trainer.steps=2"]


def test_the_end_of_training_names_what_to_look_at_and_to_type(
    toy_here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(TOY) == 0
    run = find_run("latest")
    lines = capsys.readouterr().out.splitlines()
    folder = run.path.relative_to(Path.cwd().resolve())
    assert lines[1:4] == [
        f"samples:     {folder}/samples/step-2.png",
        f"             {folder}/samples/step-2-reconstructions.png",
        f"curves:      {folder}/curves.png",
    ]
    assert lines[-1] == "next:        aigc sample    or    aigc sample mode=reconstruct    or    aigc eval"
    assert main([*TOY, "model.conditional=true", "trainer.sample_every=null"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("checkpoint:")
    assert "    or    aigc sample class=0    or    " in lines[-1]


@pytest.mark.parametrize("at", ["build_all", "trainer_of"])
def test_ctrl_c_before_the_first_step_says_what_there_is(
    at: str, toy_here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, at, interrupted)
        assert main(TOY) == 130
    said = capsys.readouterr().err
    assert "stopped before a step was done: nothing new was saved" in said
    if at == "build_all":
        assert "there is no run of it\n  the same command starts it again\n" in said
        assert not Path("outputs").exists()
    else:
        run = find_run("latest")
        assert f"saved in outputs/{run.name}\n  `aigc train --resume {run.name}` starts it again\n" in said
        assert main(["train", "--resume", run.name]) == 0


def test_what_to_type_next_names_the_plugins(
    toy_here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy_here / "mine.py").write_text("")
    monkeypatch.syspath_prepend(str(toy_here))
    monkeypatch.setattr(registry, "_plugins", {})
    plugin = ["--plugin", "mine"]
    assert main([*TOY, *plugin, "run_dir=here"]) == 0
    following = capsys.readouterr().out.splitlines()[-1].removeprefix("next:").split("    or    ")
    assert all(line.endswith(" --plugin mine") for line in following)
    assert main(["sample", "n=2", *plugin]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "next: aigc eval --plugin mine"
    assert main([*TOY, *plugin, "run_dir=here"]) == 2
    assert "here --plugin mine`" in capsys.readouterr().err
    assert main(["train", "--resume", "here", *plugin]) == 0
    to_continue = capsys.readouterr().out.splitlines()[-1]
    assert to_continue.endswith("here --plugin mine trainer.steps=4")
    assert main(shlex.split(to_continue.partition("aigc ")[2])) == 0


@pytest.mark.parametrize("command", ["sample", "eval"])
def test_a_run_that_failed_says_so_and_names_one_to_take(
    command: str, tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["data.size=8", "model.width=8", "model.max_width=8", "model.latent=4", "model.augment=[]"]
    assert main(["train", *small, "optimizer.lr=1e38", "trainer.steps=1", "trainer.batch_size=4"]) == 4
    capsys.readouterr()
    failed = find_run("latest", trained=False)
    assert main([command, f"run={failed.name}"]) == 2
    said = capsys.readouterr().err
    assert re.search(r"has no checkpoint: it failed at step \d: .* not finite", said)
    assert f"train again, or name the newest run that has one: {tiny_run.name}\n" in said


def test_a_run_that_was_stopped_before_its_first_checkpoint_can_be_resumed(
    tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(tiny_run.checkpoints)
    tiny_run.set_status("running", 2)  # by a process that is gone
    assert main(["sample"]) == 2
    said = capsys.readouterr().err
    assert "has no checkpoint: it ended at step 2\n" in said
    assert said.endswith(f"resume it with `aigc train --resume {tiny_run.name}`\n")


def test_only_the_main_process_looks_at_the_status_of_a_run(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """To look takes the lock for a moment, in which the main process would find the run locked."""

    class Second(Processes):
        def from_main(self, act: object) -> bool:
            return True  # it is complete

    @contextmanager
    def join(device: object) -> Iterator[Processes]:
        yield Second(rank=1, world_size=2)

    monkeypatch.setattr(command, "join", join)
    monkeypatch.setattr(Run, "status", pytest.fail)
    result = command.train(tiny_run.config, Options(resume=str(tiny_run.path)), None)
    assert (result.run.path, result.status) == (tiny_run.path, "skipped")


# models of text

STEPS = 6
EVERY = ["trainer.sample_every=3", "trainer.checkpoint_every=99", "trainer.samples=4"]


def train(folder: Path, model: str, steps: int) -> Run:
    assert main(["train", *text_words(folder, model, "bpe"), *EVERY, f"trainer.steps={steps}"]) == 0
    return find_run("latest")


@pytest.mark.parametrize(
    ("model", "files", "beginning", "following"),
    [
        ("transformer", ["step-6.txt"], "", 'aigc sample prompt="The "    or    aigc eval'),
        ("seq2seq", ["step-6.txt"], ", 4 items of the val split, translated", "aigc sample    or    aigc eval"),
        (
            "bert",
            ["step-6.txt", "step-6-infilled.txt"],
            "",
            'aigc sample prompt="The "    or    aigc sample mode=infill prompt="The ____ of"    or    aigc eval',
        ),
    ],
)
def test_a_run_in_two_parts_shows_and_ends_as_the_whole(
    model: str, files: list[str], beginning: str, following: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The parts meet in the middle of an epoch, and previews come from the same noise and items each time."""
    monkeypatch.chdir(tmp_path)
    whole = train(tmp_path, model, STEPS)
    said = capsys.readouterr().out.splitlines()
    folder = whole.path.relative_to(Path.cwd().resolve())
    assert said[1 : 1 + len(files)] == [
        f"{'' if place else 'samples:':<13}{folder}/samples/{name}" for place, name in enumerate(files)
    ]
    assert said[-1] == f"next:        {following}"
    parts = train(tmp_path, model, STEPS - 2)
    assert main(["train", "--resume", parts.name, f"trainer.steps={STEPS}"]) == 0
    first, second = (CheckpointFolder(run.checkpoints).load(STEPS).tensors for run in (whole, parts))
    assert first.keys() == second.keys() == {"model", "ema", "optimizer"}
    for file, tensors in first.items():
        assert all(torch.equal(tensor, second[file][name]) for name, tensor in tensors.items()), file
    for name in files:
        text = (whole.path / "samples" / name).read_text()
        assert text == (parts.path / "samples" / name).read_text()
        assert text.startswith(f"AI-generated, step 6{beginning}")
        assert len(re.findall(r"^--- \d ---$", text, flags=re.MULTILINE)) == (2 if "infilled" in name else 4)
    for line in following.split("    or    ")[:-1]:
        assert main([*shlex.split(line)[1:], "n=1", "max_tokens=4"]) == 0


def test_a_vocabulary_without_the_letters_is_given_no_such_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["trainer.steps=1", "trainer.sample_every=null"]
    assert main(["train", *text_words(tmp_path, "bert"), *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("checkpoint:")
    assert said[-1] == "next:        aigc sample    or    aigc sample mode=infill    or    aigc eval"


def test_the_sources_that_are_looked_at_stay_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(tmp_path, "seq2seq", 3)
    assert main(["train", "--resume", run.name, "trainer.steps=6"]) == 0
    shown = [(run.path / "samples" / f"step-{step}.txt").read_text().splitlines() for step in (3, 6)]
    fixed = [[line for line in lines if line.startswith(("source:", "reference:"))] for lines in shown]
    assert fixed[0] == fixed[1]
    assert len(fixed[0]) == 8
    sources, references = fixed[0][::2], fixed[0][1::2]
    for source, reference in zip(sources, references, strict=True):
        assert reference.split(None, 1)[1] == source.split(None, 1)[1].upper()


def test_fewer_steps_than_are_done_are_refused_and_the_run_stays_as_it_was(
    toy_here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TOY, "trainer.steps=4"]) == 0
    run = find_run("latest")
    for status in ("complete", "stopped"):
        run.set_status(status, 4)
        before = (run.path / "status.json").read_text()
        assert main(["train", "--resume", "trainer.steps=3"]) == 2
        said = capsys.readouterr().err
        assert f"resuming {run.name} ({status}, 4 steps done)" in said
        assert "has been trained for 4 steps already, which trainer.steps=3 would take back" in said
        assert (run.path / "status.json").read_text() == before
    assert main(["train", "--resume", "trainer.steps=4"]) == 0


def test_a_learning_rate_that_jumps_when_a_run_is_extended_is_said(
    toy_here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TOY, "trainer.steps=4", "optimizer.schedule=cosine", "optimizer.lr=1e-3"]) == 0
    run = find_run("latest")
    shutil.copytree(run.path, "copy")
    capsys.readouterr()
    assert main(["train", "--resume", "trainer.steps=8"]) == 0
    said = capsys.readouterr().err
    assert "the learning rate jumps from 0.00015 to 0.0005: optimizer.schedule=cosine is now for 8 steps" in said
    told = said.split("to keep the rate where it was, add ")[1].splitlines()[0].split()
    assert main(["train", "--resume", "copy", "trainer.steps=8", *told]) == 0
    assert "jumps" not in capsys.readouterr().err
    assert Run(Path("copy")).config["optimizer"]["lr"] == 0.00015


def test_a_rate_that_grows_in_its_own_warm_up_is_no_jump(toy_here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, "optimizer.warmup_steps=100"]) == 0
    run = find_run("latest")
    settings = check_config(run.config)
    capsys.readouterr()
    warn_of_jump(run, settings.optimizer, settings.trainer, State(updates=1))
    assert not capsys.readouterr().err
    warn_of_jump(run, replace(settings.optimizer, lr=1.0), settings.trainer, State(updates=1))
    assert "the learning rate jumps" in capsys.readouterr().err


def test_a_run_of_before_there_were_looks_by_time_can_be_given_them(toy_here: Path) -> None:
    assert main(TOY) == 0
    saved = find_run("latest").config
    del saved["trainer"]["minutes"], saved["trainer"]["first_look"]
    assert changed_config(saved, ["trainer.first_look=5"])["trainer"]["first_look"] == 5
    assert changed_config(saved, [])["trainer"]["first_look"] == 30


def test_one_of_several_processes_says_what_resumes(
    toy_here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(TOY) == 0
    for rank in (0, 1):
        capsys.readouterr()
        monkeypatch.setattr(command, "launched", lambda rank=rank: Processes(rank, 2))
        assert main(["train", "--resume"]) == 0
        assert ("resuming " in capsys.readouterr().err) == (rank == 0)


def test_a_run_trains_for_minutes_or_for_steps(toy_here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, "trainer.minutes=1"]) == 2  # both were typed
    assert "trainer.steps=2 and trainer.minutes=1 are two lengths for one run" in capsys.readouterr().err
    assert main([*TOY[:-1], "trainer.minutes=1e-5"]) == 0  # the steps of the defaults give way
    out, said = capsys.readouterr()
    assert "training:    1e-05 minutes, in steps of 8 items" in said
    run = find_run("latest")
    assert run.step == 1
    steps = run.config["trainer"]["steps"]
    assert f"end:         1% of the {steps:,} steps of a full run: rougher results\n" in out
    assert out.splitlines()[-1].endswith(f"    or    aigc train --resume {run.name} trainer.minutes=1")
    assert main(["train", "--resume"]) == 0
    assert "to continue: aigc train --resume " in (out := capsys.readouterr().out)
    assert "trainer.minutes=1\n" in out  # which has time for all
    assert main(["train", "--resume", "trainer.minutes=1e-6"]) == 2
    assert main(["train", "--resume", "trainer.steps=3"]) == 0
    assert find_run("latest").step == 3


def test_a_run_that_stopped_early_says_so_names_its_best_checkpoint_and_how_to_train_on(
    toy_here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = ["trainer.validate_every=1", "trainer.early_stop=1", "trainer.early_stop_delta=1e9"]
    assert main([*TOY[:-1], "trainer.steps=9", *waits]) == 0
    run = find_run("latest")
    assert (run.step, run.status()) == (2, "complete")
    out = capsys.readouterr().out.splitlines()
    assert "end:         stopped early at step 2: 1 validation without a held-out score" in "\n".join(out)
    assert out[-1].startswith("next:        aigc sample step=best    or    ")
    for words in ([], ["trainer.steps=12"]):
        assert main(["train", "--resume", *words]) == 0
        out = capsys.readouterr().out
        assert "is complete: it has done 2 steps; stopped early" in out
    assert main(shlex.split(out.splitlines()[-1].partition("aigc ")[2])) == 0
    assert (find_run("latest").step, find_run("latest").why) == (9, "")


def test_the_latest_run_is_one_that_can_be_sampled(toy_here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(TOY) == 0
    first = find_run("latest")
    assert main([*TOY, "seed=1"]) == 0
    newest = find_run("latest")
    assert newest.name != first.name
    shutil.rmtree(newest.checkpoints)
    capsys.readouterr()
    assert find_run("latest").name == first.name
    said = capsys.readouterr().err
    assert f"{newest.name} (complete) has no checkpoint; {first.name} is the latest that has one" in said
    assert find_run("latest", trained=False).name == newest.name
