"""``aigc eval`` of runs of text: what they predict, fill in, translate and write."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from text_runs import fresh_run, write_pairs, write_text
from toy_text import text_run

from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options, check
from aigc_cli.metrics.asked import EvalConfig, with_usual_metrics
from aigc_cli.runs import find_run


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The runs ``decoder``, ``bert``, ``guesser`` (of masks), ``autoencoder`` (of lines) and ``translator``, with the
    files of their data."""
    folder = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(folder)
    text = write_text(folder)
    fresh_run(["model=transformer", *text], "decoder")
    fresh_run(["model=bert", *text], "bert")
    fresh_run(["model=bert", "model.objective=mlm", *text], "guesser")
    (folder / "lines").mkdir()
    latents = ["data.items=documents", "data.lines=true", "model.latent=4", "run_dir=autoencoder"]
    text_run(folder / "lines", "vae_text", "char", *latents)
    fresh_run(["model=seq2seq", *write_pairs(folder)], "translator")
    yield folder
    os.chdir(before)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    code = main(["eval", *words, "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    return {record["metric"]: record for record in json.loads(said.out)["results"]}


def test_no_words_measure_what_suits_a_text(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    records = told(capsys, "run=decoder", "n=12", "metric.self_bleu.items=5")  # words of a metric that nobody named
    assert records["self_bleu"]["config"]["items"] == 5
    assert list(records) == ["likelihood", "distinct", "self_bleu", "repetition", "copied"]
    for record in records.values():
        assert record["generated"]["step"] == 3
        assert len(record["generated"]["checkpoint"]) == 64
        assert (record["real"]["data"], record["real"]["split"], record["real"]["context"]) == ("text", "test", 16)
        assert len(record["real"]["fingerprint"]) == len(record["real"]["tokenizer"]) == 64
    assert records["distinct"]["generated"]["n"] == 12
    assert records["copied"]["beside"]["held-out text"]["figures"]["longest_copied_run"] > 1
    assert {path.name.split("-")[0] for path in (runs / "decoder" / "eval").iterdir()} == set(records)


def test_words_for_a_usual_metric_need_no_metric_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    records = told(capsys, "run=decoder", "n=4", "metric.likelihood.samples=2")
    assert records["likelihood"]["config"]["samples"] == 2
    assert len(records) == 5


def test_bounds_are_told_as_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    exact = told(capsys, "run=decoder", "--metric", "bits_per_byte")["likelihood"]
    bound = told(capsys, "run=bert", "--metric", "perplexity")["likelihood"]
    assert exact["bounds"] is None
    assert set(exact["figures"]) == set(bound["figures"]) == set(bound["bounds"])
    assert set(bound["bounds"].values()) == {"<="}
    assert exact["real"] == bound["real"]
    guessed = told(capsys, "run=guesser", "--metric", "likelihood")["likelihood"]
    assert set(guessed["figures"]) == {"masked_nll", "masked_accuracy"}
    assert guessed["bounds"] is None
    assert main(["eval", "run=bert", "--metric", "likelihood"]) == 0
    said = capsys.readouterr().out
    assert "characters of the test split of text as predicted by" in said
    assert "<= " in said
    assert "windows of 16 tokens" in said


def test_splits_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    usual = told(capsys, "run=decoder", "--metric", "likelihood")["likelihood"]
    val = told(capsys, "run=decoder", "--metric", "likelihood", "split=val")["likelihood"]
    assert val["real"]["split"] == "val"
    assert val["real"]["fingerprint"] != usual["real"]["fingerprint"]
    fewer = told(capsys, "run=decoder", "--metric", "likelihood", "n=2")["likelihood"]
    assert fewer["real"]["targets"] == 32


def test_every_model_is_given_the_same_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    found = [told(capsys, f"run={name}", "--metric", "infill")["infill"] for name in ("decoder", "bert", "guesser")]
    assert set(found[0]["figures"]) == {"infill_15", "infill_30", "infill_50"}
    for record in found[1:]:
        assert record["facts"]["masks"] == found[0]["facts"]["masks"]
        assert record["beside"] == found[0]["beside"]
    assert "before it" in found[0]["facts"]["signature"]
    assert "around it" in found[1]["facts"]["signature"]
    assert found[1]["generated"]["controls"]["sampler"] == "confidence"
    other = told(capsys, "run=bert", "--metric", "infill", "metric.infill.seed=1")["infill"]
    assert other["facts"]["masks"] != found[0]["facts"]["masks"]


@pytest.mark.parametrize("run", ["decoder", "bert"])
def test_continuations_stand_beside_a_copy_and_a_stranger(capsys: pytest.CaptureFixture[str], run: str) -> None:
    records = told(capsys, f"run={run}", "--metric", "continuation,chrf", "n=10")
    for record in records.values():
        assert set(record["beside"]) == {"prompt copied", "random training text"}
        assert record["generated"]["n"] == record["real"]["n"] <= 10
        assert all(score["n"] == record["generated"]["n"] for score in record["beside"].values())
        assert record["generated"]["prompt"] == 0.5
    assert "tok:13a" in records["continuation"]["facts"]["signature"]


def test_an_autoencoder_is_measured_by_what_it_gives_back(capsys: pytest.CaptureFixture[str]) -> None:
    records = told(capsys, "run=autoencoder", "n=6")
    assert {"likelihood", "reconstruction_bleu", "active_units"} < set(records)
    record = records["reconstruction_bleu"]
    assert set(record["figures"]) == {"reconstruction_bleu", "reconstructed_exactly"}
    assert set(record["beside"]) == {"reconstruction of another"}
    assert (record["generated"]["reconstructed"], record["generated"]["n"]) == ("test", 6)
    assert record["real"] == records["likelihood"]["real"] == records["active_units"]["real"]
    assert records["active_units"]["figures"]["active_units"] in range(5)
    by_mode = told(capsys, "run=autoencoder", "n=6", "--metric", "bleu,distinct", "mode=reconstruct")
    assert by_mode["bleu"]["figures"]["bleu"] == record["figures"]["reconstruction_bleu"]
    assert by_mode["distinct"]["generated"]["reconstructed"] == "test"
    assert main(["eval", "run=autoencoder", "n=6", "--metric", "bleu", "mode=reconstruct", "temperature=0.5"]) == 0
    assert "warning: temperature=" in capsys.readouterr().err
    assert (
        "reconstructed" not in told(capsys, "run=autoencoder", "n=6", "--metric", "distinct")["distinct"]["generated"]
    )


def test_translations_are_scored_by_sacrebleu(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run=translator", "--metric", "bleu,chrf,likelihood", "temperature=1", "max_tokens=20"]
    records = told(capsys, *words)
    assert records["bleu"]["generated"]["n"] == records["bleu"]["real"]["n"] == 30
    assert records["bleu"]["generated"]["controls"]["max_tokens"] == 20
    assert set(records["bleu"]["beside"]) == {"source copied", "random training target"}
    assert records["bleu"]["figures"]["tokenised_bleu"] >= records["bleu"]["figures"]["bleu"]
    assert "nrefs:1|case:lc" in records["bleu"]["facts"]["signature"]
    sources, targets = (Path(f"test.{side}").read_text().splitlines() for side in ("en", "de"))
    from sacrebleu.metrics import BLEU, CHRF

    copied = {name: records[name]["beside"]["source copied"]["figures"] for name in ("bleu", "chrf")}
    assert copied["bleu"]["bleu"] == BLEU().corpus_score(sources, [targets]).score
    assert copied["chrf"]["chrf"] == CHRF().corpus_score(sources, [targets]).score
    assert records["likelihood"]["figures"]["nll_per_token"] > 0
    assert told(capsys, *words, "batch_size=7")["bleu"]["figures"] == records["bleu"]["figures"]


def test_several_seeds_show_their_spread(capsys: pytest.CaptureFixture[str]) -> None:
    record = told(capsys, "run=translator", "--metric", "chrf", "temperature=1", "seeds=2", "n=8")["chrf"]
    assert len(record["each"]) == 2
    assert record["spread"]["chrf"] > 0
    assert record["generated"]["seeds"] == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["run=decoder", "--metric", "fd"], "fd does not measure texts"),
        (["run=decoder", "--metric", "psnr,distinct"], "reconstruction does not measure texts"),
        (["run=translator", "--metric", "infill"], "infill is for texts that stand alone"),
        (["run=translator", "--metric", "bleu,continuation"], "continuation is for texts that stand alone"),
        (["run=decoder", "beem=2"], "did you mean beam"),
        (["run=decoder", "--metric", "likelihood", "prompt=the"], "prompt="),
        (["run=decoder", "--metric", "likelihood", "n=99999"], "texts in the test split"),
        (["run=decoder", "data.contxt=8"], "context"),
        (["run=decoder", "data.context=32"], "data.context="),
        (["run=decoder", "data=digits"], "leave data= out"),
        (["run=decoder", "n=0"], "n=0"),
        (["run=decoder", "--metric", "reconstruction_bleu"], "cannot reconstruct"),
        (["run=decoder", "--metric", "active_units"], "model=transformer has no posterior"),
        (["run=translator", "--metric", "reconstruction_bleu"], "reconstruction_bleu is for texts that stand alone"),
        (["run=decoder", "--metric", "bleu", "real=refs.txt"], "name what is measured with fake="),
        (["run=decoder", "--metric", "likelihood", "held_out=x"], "held_out=x has no effect"),
        (["run=autoencoder", "--metric", "bleu", "mode=interpolate"], "cannot be evaluated"),
        (["run=autoencoder", "--metric", "continuation", "mode=reconstruct"], "leave one of them out"),
    ],
    ids=str,
)
def test_wrong_words(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    message = capsys.readouterr().err
    assert named in message
    assert len(message.strip().splitlines()) <= 3


def test_runs_of_text_compare_on_what_counts_no_tokens(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    fresh_run(["model=transformer", *write_text(runs)[:2], "data.tokenizer.kind=byte", "data.context=12"], "bytes")
    words = ["eval", "compare", "--metric", "likelihood"]
    capsys.readouterr()
    assert main([*words, "run=decoder,bert", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["differences"]
    assert {row["figure"] for row in rows} == {"nll_per_token", "nll_per_character", "perplexity", "bits_per_byte"}
    assert main([*words, "run=decoder,bytes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["differences"]
    assert {row["figure"] for row in rows} == {"nll_per_character", "bits_per_byte"}
    assert main([*words, "run=decoder,bert", "out=elsewhere"]) == 0
    assert len(list((runs / "elsewhere").iterdir())) == 2
    assert main([*words, "run=decoder,guesser"]) == 2
    assert main(["eval", "compare", "--metric", "infill", "run=decoder,bytes"]) == 2
    assert "do not compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "idle", "heard"),
    [
        (["run=decoder", "--metric", "likelihood", "temperature=0.5", "top_k=2"], ["temperature", "top_k"], []),
        (["run=decoder", "--metric", "infill", "top_k=5"], ["top_k"], []),
        (["run=decoder", "--metric", "likelihood", "seeds=2"], ["seeds"], []),
        (["run=bert", "--metric", "infill", "max_tokens=3", "steps=2"], ["max_tokens"], ["steps"]),
        (["run=bert", "--metric", "infill,distinct", "max_tokens=3", "steps=2"], [], ["max_tokens", "steps"]),
        (["run=autoencoder", "--metric", "reconstruction_bleu", "temperature=0.5"], ["temperature"], []),
        (["run=autoencoder", "--metric", "active_units,distinct", "temperature=0.5"], [], ["temperature"]),
    ],
)
def test_controls_that_no_metric_hears_are_told_of(
    capsys: pytest.CaptureFixture[str], words: list[str], idle: list[str], heard: list[str]
) -> None:
    assert main(["eval", *words, "n=4"]) == 0
    said = capsys.readouterr().err
    for name in idle:
        assert f"aigc: warning: {name}= " in said
    for name in heard:
        assert f"warning: {name}=" not in said


def test_characters_that_the_run_has_no_tokens_for_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    Path("strange.txt").write_text("Ω the Ж\n" * 40)
    words = ["data=text", "data.root=strange.txt", "data.context=16", "data.val_fraction=0", "data.test_fraction=0.5"]
    assert main(["eval", "run=decoder", "--metric", "likelihood", *words]) == 0
    said = capsys.readouterr().err
    assert "40 of 159 characters of the test split are not in the vocabulary" in said


def test_records_of_either_command_compare_whatever_the_idle_dtype(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--metric", "likelihood", "n=4", "dtype=bfloat16"]
    assert main(["eval", "run=decoder", *words, "out=alone"]) == 0
    assert "dtype= has no effect here" in capsys.readouterr().err
    assert main(["eval", "compare", "run=decoder,bert", *words[:3], "out=together"]) == 0
    (alone,), together = (sorted(Path(folder).iterdir()) for folder in ("alone", "together"))
    for path in (alone, *together):
        assert json.loads(path.read_text())["dtype"] is None
        assert main(["eval", "compare", f"run={alone},./{path}"]) == 0


def test_runs_that_compare_are_measured_by_what_suits_all() -> None:
    asked = check("", EvalConfig, {**compose("eval", []), "data": {}})
    runs = [find_run(name) for name in ("autoencoder", "decoder")]
    both, decoder = ({*with_usual_metrics(asked, Options(()), some).metric} for some in (runs, runs[1:]))
    assert both == decoder == {"likelihood", "copied", "distinct", "repetition", "self_bleu"}
    assert with_usual_metrics(asked, Options(()), runs[:1]).metric.keys() - both == {
        "reconstruction_bleu",
        "active_units",
    }


def test_a_model_that_writes_nothing_gets_no_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run=translator", "--metric", "bleu", "max_tokens=1"]) == 3
    assert "are empty" in capsys.readouterr().err


def test_a_model_that_writes_nothing_keeps_the_likelihood(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aigc_cli.metrics.text_subject.TextSubject._text", lambda self, row: "")
    words = ["run=decoder", "n=4", "out=mute"]
    assert main(["eval", *words]) == 0
    said = capsys.readouterr()
    assert "perplexity" in said.out
    assert "warning: all texts of the run are empty" in said.err
    assert main(["eval", *words, "--metric", "likelihood,distinct", "--json"]) == 3
    said = capsys.readouterr()
    assert [record["metric"] for record in json.loads(said.out)["results"]] == ["likelihood"]
    assert "all texts of the run are empty" in said.err
    assert main(["eval", *words, "--metric", "distinct"]) == 3
    assert capsys.readouterr().out == ""


def test_nll_is_the_likelihood(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(told(capsys, "run=decoder", "--metric", "nll", "out=nll")) == ["likelihood"]


def test_n_of_two_tokenizers_takes_other_parts_of_the_text(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ["model=transformer", *write_text(runs), "data.tokenizer.kind=bpe", "data.tokenizer.vocab_size=280"]
    fresh_run(other, "bpe")
    words = ["eval", "compare", "run=decoder,bpe", "--metric", "likelihood"]
    assert main([*words, "n=3"]) == 2
    message = capsys.readouterr().err
    assert "they cut text into other tokens, and n= takes other parts of it for each" in message
    assert "leave n= out" in message
    assert main(words) == 0
    assert "bits_per_byte" in capsys.readouterr().out


def test_what_near_is_of_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run=decoder", "n=4", "--metric", "distinct", "out=near"]) == 0
    assert "near the held-out value is better" in capsys.readouterr().out


def test_samples_of_ours_are_measured_without_their_headings(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "run=decoder", "n=5", "out=written", "seed=1"]) == 0
    for path in ("written/samples.txt", "written/samples.jsonl", "written"):
        record = told(capsys, f"fake={path}", "--metric", "distinct")["distinct"]
        assert record["generated"]["n"] == 5
    Path("written/samples.jsonl").unlink()
    assert main(["eval", "fake=written/samples.txt", "--metric", "distinct"]) == 3
    assert "samples under headings" in capsys.readouterr().err
    Path("samples.txt").write_text("one line of a person\n")
    assert told(capsys, "fake=samples.txt", "--metric", "distinct")["distinct"]["generated"]["n"] == 1
