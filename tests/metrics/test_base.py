"""What every metric says of itself, and which are usual for what."""

from typing import Any

from aigc_cli import registry
from aigc_cli.metrics.base import Metric, usual_metrics


def test_metrics_are_usual_for_what_a_model_makes_and_can() -> None:
    assert usual_metrics("image", False, {"sample"}) == ["fd", "prdc"]
    assert usual_metrics("signal", False, {"sample", "encode"}) == ["fd", "prdc"]
    text = ["distinct", "self_bleu", "repetition", "copied"]
    assert usual_metrics("text", False, {"sample", "score"}) == ["likelihood", *text]
    able = {"sample", "score", "encode", "decode", "posterior"}
    assert usual_metrics("text", False, able) == ["likelihood", *text, "reconstruction_bleu", "active_units"]
    assert usual_metrics("text", True, {"sample", "score"}) == ["likelihood", "bleu", "chrf"]


def test_every_metric_says_what_it_takes() -> None:
    for name in registry.names("metric"):
        kind: Any = registry.find("metric", name).build
        assert issubclass(kind, Metric)
        assert kind.takes
        assert set(kind.takes) <= {"real", "fake", "held_out", "pairs", "items"}
        assert not {"items", "pairs"} & set(kind.takes) or len(kind.takes) == 1
