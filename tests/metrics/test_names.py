"""The scores that people ask for by name lead to the metric that gives them, as its YAML file declares."""

import pytest

from aigc_cli.config.compose import compose
from aigc_cli.config.folders import declared, options
from aigc_cli.registry import find, names

GIVEN = [(score, metric) for metric, path in options("metric").items() for score in declared(path, "@gives").split(",")]


@pytest.mark.parametrize(("score", "metric"), [(score, metric) for score, metric in GIVEN if score])
def test_a_score_is_one_of_its_metrics(score: str, metric: str) -> None:
    figures = find("metric", metric).build.figures  # type: ignore[attr-defined]
    assert score in figures or any(name.startswith(f"{score}_per_") for name in figures)
    assert score not in names("metric")
    assert list(compose("eval", [f"metric={score}"])["metric"]) == [metric]


def test_every_metric_says_which_way_is_better() -> None:
    for name in names("metric"):
        figures = find("metric", name).build.figures  # type: ignore[attr-defined]
        assert figures
        assert set(figures.values()) <= {"lower", "higher", "near", ""}
