import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aigc_cli.config.completion import SCRIPTS, answer
from aigc_cli.config.words import COMMANDS, LISTS


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    run = tmp_path / "outputs" / "gan-digits" / "2026-01-31"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("aigc tr", ["train "]),
        ("aigc train --mu", ["--multirun "]),
        ("aigc eval --me", ["--metric "]),
        ("aigc eval co", ["compare "]),
        ("aigc data p", ["prepare ", "preview="]),
        ("aigc sample --me", []),
        ("aigc ls ", sorted(f"{name} " for name in LISTS)),
        ("aigc ls r", ["recipes ", "runs "]),
        ("aigc train --help model.los", ["model.loss "]),
        ("aigc completion ", ["bash "]),
        ("aigc train --cfg j", ["job "]),
        ("aigc train model=ga", ["model=gan ", "model=gan_text "]),
        ("aigc train -m optimizer=adam,sg", ["optimizer=adam,sgd "]),
        ("aigc train mod", ["model.", "model="]),
        ("aigc train optimizer.we", ["optimizer.weight_decay="]),
        ("aigc train optimizer=sgd optimizer.mom", ["optimizer.momentum="]),
        ("aigc train optimizer.generator.l", ["optimizer.generator.lr="]),
        ("aigc train broken=word trainer.accu", ["trainer.accumulate="]),
        ("aigc sample ru", ["run="]),
        ("aigc sample run=gan", ["run=gan-digits/2026-01-31 "]),
        ("aigc train --resume ", ["gan-digits/2026-01-31 ", "latest "]),
        ("aigc eval --metric fid,pr", ["fid,prdc "]),
        ("aigc eval metric=fi", ["metric=fid "]),
        ("aigc train hydra/launcher=ba", ["hydra/launcher=basic "]),
        ("/usr/bin/aigc train 'open", []),
    ],
)
def test_answers(line: str, expected: list[str]) -> None:
    assert answer(line) == expected


def test_commands_come_first() -> None:
    assert answer("aigc ") == [f"{command} " for command in sorted(COMMANDS)]


def test_the_users_own_options_complete(here: Path) -> None:
    (here / "configs" / "model").mkdir(parents=True)
    (here / "configs" / "model" / "mine.yaml").write_text("# Mine\nname: mine\nwidth: 3\n")
    assert answer("aigc train model=mi") == ["model=mine "]
    assert answer("aigc train model=mine model.w") == ["model.width="]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_in_a_real_bash(here: Path) -> None:
    program = here / "aigc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m aigc_cli "$@"\n')
    program.chmod(0o755)
    ask = """
    ask() {
        COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDS=(./aigc) COMPREPLY=()
        _aigc_complete
        printf '%s|' "${COMPREPLY[@]}"
        echo
    }
    ask "./aigc tr"
    ask "./aigc train optimizer=sg"
    ask "./aigc train optimizer.generator."
    """
    done = subprocess.run(["bash", "-c", SCRIPTS["bash"] + ask], capture_output=True, text=True, check=True, cwd=here)
    assert done.stdout.splitlines() == [
        "train |",
        "sgd |",
        "optimizer.generator.lr=|optimizer.generator.weight_decay=|",
    ]
    assert done.stderr == ""
