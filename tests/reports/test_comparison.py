import json
import re
from collections.abc import Callable

import pytest
from reports.conftest import record

from aigc_cli.cli import main
from aigc_cli.config.origins import origin_of, origins
from aigc_cli.config.schema import Options
from aigc_cli.reports.comparison import configuration, scores
from aigc_cli.reports.facts import Facts, facts_of
from aigc_cli.reports.page import report
from aigc_cli.runs import Run, find_run

Make = Callable[..., Run]


def test_three_keys_that_differ_are_those_three_with_where_they_came_from(make: Make) -> None:
    runs = [Facts(make("a")), Facts(make("b", model__width=16, optimizer__lr=2e-3, seed=1, run_dir="b"))]
    assert [tuple(each) for each in configuration(runs)] == [
        ("model.width", [8, 16], ["recipe/gan_digits.yaml"] * 2),
        ("optimizer.lr", [1e-3, 2e-3], ["typed"] * 2),
        ("seed", [0, 1], ["default"] * 2),
    ]


def test_lists_differ_as_a_whole_and_keys_that_one_lacks_are_named(make: Make) -> None:
    runs = [Facts(make("a")), Facts(make("b", optimizer__betas=[0, 2], model__loss="hinge"))]
    assert [(each.key, each.values) for each in configuration(runs)] == [
        ("optimizer.betas", [[0, 1], [0, 2]]), ("model.loss", [None, "hinge"])
    ]  # fmt: skip


def test_runs_of_before_origins_were_kept_know_what_was_typed(make: Make) -> None:
    run = make("a")
    (run.path / "origins.json").unlink()
    facts = Facts(run)
    assert [facts.origin(key) for key in ("optimizer.lr", "model.width", "seed")] == [
        "typed", "model=gan", "default or recipe"
    ]  # fmt: skip


def test_a_new_run_keeps_where_its_values_came_from() -> None:
    title = "GAN on digits, from recipe/gan_digits.yaml"
    found = origins(Options(overrides=("model=dcgan", "optimizer.lr=1"), recipe=(title,)))
    assert origin_of("optimizer.lr", found) == "typed"
    assert origin_of("model.norm", found) in ("model=dcgan", "recipe/gan_digits.yaml")
    assert origin_of("trainer.workers", found) == "default"
    assert "recipe/gan_digits.yaml" in found.values()


def test_scores_show_their_spread_and_are_refused_under_other_conditions(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", record(8.0)), make("b", record(5.0)), make("c", record(5.0, n=200))
    assert main(["compare", "gan-digits/a", "gan-digits/b"]) == 0
    out = capsys.readouterr().out
    assert "8 ± 0.1" in out
    assert "beyond chance" in out
    assert "configuration: the same" in out
    assert "-3" in out
    assert main(["compare", "a", "c"]) == 0
    out = capsys.readouterr().out
    assert "fd of gan-digits/a and of gan-digits/c do not compare" in out
    assert "-3" not in out


def test_two_of_five_runs_that_share_an_evaluation_are_compared_by_it(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**record(3.0), "metric": "kd", "figures": {"kd": 0.5}, "config": {"name": "kd"}}
    scored = [None, record(8.0), other, record(5.0), record(4.0, n=200)]
    for name, score in zip("abcde", scored, strict=True):
        make(name, score)
    assert main(["compare", *"abcde"]) == 0
    out = capsys.readouterr().out
    assert "scores of gan-digits/b and gan-digits/d\n" in out
    assert re.search(r"fd\[digits-cnn\] +gan-digits/d - gan-digits/b +-3 ", out)
    assert "fd of gan-digits/b and of gan-digits/e do not compare" in out
    assert "share no evaluation" not in out
    assert main(["compare", *"abcde", "--json"]) == 0
    groups = json.loads(capsys.readouterr().out)["scores"]["groups"]
    assert [[run["name"] for run in group] for group in groups] == [["gan-digits/b", "gan-digits/d"]]
    assert "Scores of gan-digits/b and gan-digits/d</h3>" in report(facts_of([find_run(name) for name in "abcde"]))[0]
    assert main(["compare", "a", "b"]) == 0
    assert "share no evaluation" in capsys.readouterr().out


def test_those_that_a_first_run_keeps_apart_are_compared_with_one_another(make: Make) -> None:
    runs = facts_of([make("a", record(1.0, n=50)), make("b", record(2.0)), make("c", record(3.0))])
    found = scores(runs)
    assert [[name for name, _ in group] for group in found.groups] == [["gan-digits/b", "gan-digits/c"]]
    assert len(found.refused) == 1


def test_json(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("a"), make("b", seed=1)
    assert main(["compare", "a", "b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"] == [{"key": "seed", "values": [0, 1], "origins": ["default", "default"]}]
    assert found["metrics"] == {"step": 20, "values": {"generator/loss": [0.1, 0.1], "val/fd": [70.0, 70.0]}}
    assert found["cost"][0]["items"] == 320
    assert found["environment"] == []


def test_a_run_that_ended_in_nan_is_compared_by_that(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    with (make("a").path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "val/fd": NaN}\n')
    make("b")
    assert main(["compare", "a", "b"]) == 0
    assert re.search(r"val/fd +nan +70", capsys.readouterr().out)
    assert main(["compare", "a", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["values"]["val/fd"] == [None, 70.0]


def test_one_run_is_not_compared(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("a")
    assert main(["compare", "a", "gan-digits/a"]) == 2
    assert "needs two runs" in capsys.readouterr().err
    assert main(["compare", "a", "b"]) == 2
    assert main(["compare", "a", "a", "color=red"]) == 2
