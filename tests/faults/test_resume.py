"""Where a run may be stopped, and what may differ when it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from children import aigc, hashes, resume, steps, train
from families import words_of
from streamed import STREAMED, paint

BATCH = 8
ITEMS = 1258  # of the digits' training split


def stopped_at(run: Path, words: list[str], *stops: int) -> None:
    """Trains `run`, stopped after some steps by their being all there was to do, and on to `words`' own end."""
    begin, *rest = stops
    train(run, *words, f"trainer.steps={begin}")
    for stop in rest:
        resume(run, f"trainer.steps={stop}")


@pytest.mark.parametrize(
    ("words", "stops"),
    [
        ((), (5, 12)),  # in the middle of an epoch
        (("trainer.batch_size=74",), (17, 20)),  # 17 steps of 74 are an epoch
        (("trainer.accumulate=3",), (5, 12)),
        ((), (3, 5, 12)),  # twice in an epoch
    ],
    ids=["mid-epoch", "epoch's end", "accumulation", "twice"],
)
def test_a_run_goes_on_from_anywhere(tmp_path: Path, words: tuple[str, ...], stops: tuple[int, ...]) -> None:
    assert ITEMS == 17 * 74
    common = [*words_of("vae", tmp_path), "trainer.checkpoint_every=1000", *words]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(whole, *common, f"trainer.steps={stops[-1]}")
    stopped_at(parts, common, *stops)
    assert steps(parts) == [stops[-2], stops[-1]] if len(stops) < 3 else [*stops]
    assert hashes(parts) == hashes(whole)


def test_other_data_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    pictures = paint(tmp_path / "pictures")
    train(tmp_path / "run", *STREAMED, "trainer.steps=2")
    next(pictures.iterdir()).unlink()
    code, said = aigc("train", "--resume", "run", "trainer.steps=4", folder=tmp_path)
    assert code == 2, said
    assert "the data of" in said
    assert "fingerprint: " in said


def test_a_configuration_that_was_edited_is_told(tmp_path: Path) -> None:
    """What a run keeps is refused, and what may change is said; how far it goes is nobody's surprise."""
    run = tmp_path / "run"
    train(run, *words_of("vae", tmp_path), "trainer.steps=2")
    config = run / "config.yaml"
    as_it_was = config.read_text()
    rate = next(line for line in as_it_was.splitlines() if line.strip().startswith("lr:"))

    def edited(before: str, after: str) -> tuple[int, str]:
        assert before in as_it_was
        config.write_text(as_it_was.replace(before, after, 1))
        return aigc("train", "--resume", "run", "trainer.steps=4", folder=tmp_path)

    for key, before, after in (("seed", "0", "5"), ("hidden", "16", "24")):
        code, said = edited(f"{key}: {before}\n", f"{key}: {after}\n")
        assert code == 2, said
        assert "config.yaml is not what" in said
        assert f"{key}: {before} -> {after}" in said
    code, said = edited(rate, f"{rate}5")
    assert code == 0, said
    assert "the configuration has changed: optimizer.lr: " in said
