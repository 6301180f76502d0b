"""The figures that people ask for by name lead to the metric that gives them."""

import pytest

from aigc_cli.config.compose import compose
from aigc_cli.config.grammar import FIGURES
from aigc_cli.registry import find, names


@pytest.mark.parametrize(("figure", "metric"), FIGURES.items())
def test_a_figure_is_one_of_its_metrics(figure: str, metric: str) -> None:
    assert figure in find("metric", metric).build.figures  # type: ignore[attr-defined]
    assert figure not in names("metric")
    assert list(compose("eval", [f"metric={figure}"])["metric"]) == [metric]


def test_every_metric_says_which_way_is_better() -> None:
    for name in names("metric"):
        figures = find("metric", name).build.figures  # type: ignore[attr-defined]
        assert figures
        assert set(figures.values()) <= {"lower", "higher", ""}
