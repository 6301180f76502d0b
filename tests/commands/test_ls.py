import json
from pathlib import Path

import pytest

from aigc_cli.cli import main
from aigc_cli.commands.ls_runs import age, headline
from aigc_cli.config.schema import save_yaml
from aigc_cli.config.words import LISTS
from aigc_cli.runs import Run


def test_models_with_their_first_comment(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("gan ") and "adversarial" in line for line in lines)


def test_presets_are_models_too(capsys: pytest.CaptureFixture[str]) -> None:
    """They share a component, and are named on the command line like any other."""
    assert main(["ls", "models", "--json"]) == 0
    listed = {row["name"] for row in json.loads(capsys.readouterr().out)}
    assert {"dcgan", "sngan", "wgan_gp", "biggan", "r3gan_small"} <= listed
    assert main(["train", "model=biggn"]) == 2
    assert "did you mean biggan?" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "member"), [("models", "gan"), ("data", "digits"), ("metrics", "fd")])
def test_json(name: str, member: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", name, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    row = next(row for row in rows if row["name"] == member)
    assert row["description"]
    assert Path(row["file"]).is_file()


def test_every_packaged_option_says_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["ls", *(name for name in LISTS if name not in ("networks", "losses", "schedules")), "--json"]) == 0
    for rows in json.loads(capsys.readouterr().out).values():
        assert all(row["description"] for row in rows)


def test_the_users_own_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/model").mkdir(parents=True)
    (tmp_path / "configs/model/mine.yaml").write_text("# @package _global_\n# A model of my own\nname: mine\n")
    assert main(["ls", "models"]) == 0
    assert any(line.split(maxsplit=1) == ["mine", "A model of my own"] for line in capsys.readouterr().out.splitlines())


def test_runs(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"step": 5, "generator/loss": 0.5, "generator/lr": 1e-4, "seconds": 1.0}]
    (tiny_run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    broken = tiny_run.path.parent / "broken"
    broken.mkdir()
    (broken / "config.yaml").write_text("- not\n- a mapping\n")
    assert main(["ls", "runs"]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if tiny_run.name in line)
    assert "complete" in line
    assert f"5/{tiny_run.config['trainer']['steps']}" in line
    assert "generator/loss 0.5" in line
    assert "broken" in next(line for line in out.splitlines() if "gan-digits/broken" in line)
    assert main(["ls", "runs", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == tiny_run.name)
    assert (row["model"], row["data"], row["status"], row["step"]) == ("gan", "digits", "complete", 5)
    assert row["figures"]["generator/loss"] == 0.5
    assert row["age"] >= 0


def test_runs_elsewhere_and_nowhere(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["ls", "runs"]) == 0
    assert "aigc train" in capsys.readouterr().out
    assert main(["ls", "runs", f"outputs={tmp_path / 'outputs'}"]) == 0
    assert tiny_run.name in capsys.readouterr().out
    assert main(["ls", "runs", "modle=gan", f"outputs={tmp_path / 'outputs'}"]) == 2
    assert "model" in capsys.readouterr().err
    assert main(["ls", "models", "model=gan"]) == 2
    assert "aigc ls runs model=gan" in capsys.readouterr().err


def test_headline_prefers_what_is_held_out() -> None:
    assert headline(["step", "a/loss", "val/fd", "val/recall"]) == ["val/fd", "val/recall"]
    assert headline(["step", "a/loss", "b/loss", "lr"]) == ["a/loss", "b/loss"]


def test_age() -> None:
    assert [age(seconds) for seconds in (0.5, 61, 7300, 200_000)] == ["0 s", "1 min", "2 h", "2 d"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("optimizers", "sgd      Stochastic gradient descent, with momentum (Sutskever et al., 2013)"),
        ("networks", "model.network=resnet   gan, vae  residual, Miyato et al. 2018"),
        ("losses", "model.likelihood=bernoulli             hvae, vae      black and white"),
        ("schedules", "optimizer.schedule=cosine    to final_lr_fraction"),
    ],
)
def test_every_choice_can_be_listed(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", name]) == 0
    assert line in capsys.readouterr().out.splitlines()


def test_choices_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "losses", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    row = next(row for row in rows if (row["key"], row["name"]) == ("model.loss", "hinge"))
    assert row["of"] == ["gan", "gan_text"]
    assert "Lim and Ye" in row["description"]


def test_recipes_say_when_they_apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/recipe").mkdir(parents=True)
    head = "# @package _global_\n# when: model=gan items<5000\n# Few pictures: shifted, so\n# that\n"
    (tmp_path / "configs/recipe/mine.yaml").write_text(f"{head}seed: 0\n")
    assert main(["ls", "recipes", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == "mine")
    assert (row["when"], row["description"]) == ("model=gan items<5000", "Few pictures")
    assert main(["ls", "recipes"]) == 0
    assert any("model=gan items<5000" in line for line in capsys.readouterr().out.splitlines())


def test_runs_of_the_same_kind_show_the_words_in_which_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, (model, lr, betas) in enumerate([("gan", 1e-3, [0, 1]), ("gan", 2e-3, [0, 2]), ("vae", 5.0, [0, 1])]):
        config = {"model": {"name": model}, "data": {"name": "digits"}, "optimizer": {"lr": lr, "betas": betas}}
        save_yaml_of(tmp_path / f"outputs/{model}-digits/{number}", {**config, "trainer": {"steps": number}})
    assert main(["ls", "runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("optimizer.lr=0.001 optimizer.betas=[0, 1]" in line for line in lines if "gan-digits/0" in line)
    assert any("optimizer.lr=0.002" in line for line in lines if "gan-digits/1" in line)
    assert not any("optimizer" in line for line in lines if "vae-digits" in line)
    assert main(["ls", "runs", "--json"]) == 0
    rows = {row["name"]: row["differs"] for row in json.loads(capsys.readouterr().out)}
    assert rows["gan-digits/1"] == {"optimizer.lr": 2e-3, "optimizer.betas": [0, 2]}
    assert rows["vae-digits/2"] == {}


def test_a_run_that_stopped_before_its_first_row_shows_what_its_checkpoint_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"model": {"name": "vae"}, "data": {"name": "digits"}, "trainer": {"steps": 100}}
    for name, tally in (("good", [{"names": ["main/loss"], "sums": [60.0], "count": 20}]), ("torn", [{"names": 3}])):
        run = tmp_path / f"outputs/vae-digits/{name}"
        save_yaml_of(run, config)
        (run / "checkpoints/step-20").mkdir(parents=True)
        (run / "checkpoints/step-20/state.json").write_text(json.dumps({"tally": tally}))
    assert main(["ls", "runs", "--json"]) == 0
    rows = {row["name"]: row["figures"] for row in json.loads(capsys.readouterr().out)}
    assert rows == {"vae-digits/good": {"main/loss": 3.0}, "vae-digits/torn": {}}


def save_yaml_of(folder: Path, config: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    save_yaml(folder / "config.yaml", config)
