"""What was made beside what it should have been: text as sacrebleu and rouge-score have it, images as torchmetrics."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.image import StructuralSimilarityIndexMeasure
from toy_metrics import text_metric, text_scores

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.reconstructions import LPIPS, LPIPS_FILE, Reconstruction
from aigc_cli.metrics.references import ROUGE

HYPOTHESES = ["the cat sat on the mat .", "a dog barks at the moon", "日本語 の 文 です", "naïve café, über alles!", ""]
REFERENCES = [
    "the cat sat on a mat .",
    "the dog barked at the full moon",
    "日本語 の 短い 文 です",
    "naive café über alles",
    "x",
]


@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "none"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_bleu_is_sacrebleus(tokenize: str, lowercase: bool) -> None:
    from sacrebleu.metrics import BLEU

    wanted = BLEU(tokenize=tokenize, lowercase=lowercase).corpus_score(HYPOTHESES, [REFERENCES])
    assert (
        text_scores("bleu", HYPOTHESES, REFERENCES, tokenize=tokenize, lowercase=lowercase)["bleu"] == wanted.score > 5
    )


def test_bleu_carries_its_signature() -> None:
    built = text_metric("bleu")
    built.update("pairs", HYPOTHESES, REFERENCES)
    built.compute()
    for part in ("nrefs:1", "tok:13a", "smooth:exp", "version:2"):
        assert part in built.facts()["signature"]


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_sacrebleus(word_order: int) -> None:
    from sacrebleu.metrics import CHRF

    wanted = CHRF(word_order=word_order).corpus_score(HYPOTHESES, [REFERENCES]).score
    assert text_scores("chrf", HYPOTHESES, REFERENCES, word_order=word_order)["chrf"] == wanted > 5


ASCII = ["The cat sat, on the mat.", "it's a_b (c-d) 3.14!", "", "A dog?! barks \t at 12,000 moons ..."]
TARGETS = ["the cat sat on the mat!", "its A B: c d 3 14", "x", "the dogs bark at the moon"]


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_of_ascii_is_rouge_scores_own(stemmer: bool) -> None:
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(list(ROUGE.figures), use_stemmer=stemmer)
    scores = [scorer.score(target, item) for item, target in zip(ASCII, TARGETS, strict=True)]
    assert scores[0]["rouge1"].fmeasure == scores[0]["rouge2"].fmeasure == 1
    got = text_scores("rouge", ASCII, TARGETS, stemmer=stemmer)
    for name in ROUGE.figures:
        assert got[name] == pytest.approx(np.mean([score[name].fmeasure for score in scores]), abs=1e-12)


CHINESE = ["我喜欢吃苹果", "今天天气很好"], ["我喜欢吃香蕉", "今天天气不好"]


def test_rouge_of_scripts_without_spaces_is_of_characters() -> None:
    got = text_scores("rouge", *CHINESE)
    assert got["rouge1"] == pytest.approx((4 / 6 + 5 / 6) / 2)
    assert got["rouge2"] == pytest.approx((3 / 5 + 3 / 5) / 2)
    assert text_scores("rouge", *CHINESE, stemmer=True)["rouge1"] == 0  # rouge-score's own tokenizer
    assert text_scores("rouge", *CHINESE, tokenize="space")["rouge1"] == 0
    assert text_scores("rouge", ["हिन्दी में"], ["हिन्दी का"])["rouge1"] == 0.5  # a word each, with its marks


def test_bleu_is_cut_by_the_script_of_the_references_and_says_so() -> None:
    from sacrebleu.metrics import BLEU

    metric = text_metric("bleu")
    metric.update("pairs", *CHINESE)
    assert float(metric.compute()["bleu"]) == BLEU(tokenize="zh").corpus_score(CHINESE[0], [CHINESE[1]]).score > 20
    assert metric.facts()["tokenizer"] == "zh"
    assert "tok:zh" in metric.facts()["signature"]
    assert metric.notes() == ["BLEU cuts text with sacrebleu's zh tokenizer: the text is Han"]
    asked = text_metric("bleu", tokenize="13a")
    asked.update("pairs", *CHINESE)
    asked.compute()
    assert (asked.facts()["tokenizer"], asked.notes()) == ("13a", [])


def test_a_tokenizer_that_is_not_installed_is_told_how_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None, raising=False)
    with pytest.raises(ConfigError, match="ja-mecab") as caught:
        text_scores("bleu", ["これ"], ["これ"], tokenize="ja-mecab")
    assert "pip install sacrebleu[ja]" in caught.value.hint


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge"])
def test_sides_that_do_not_pair_up_give_no_number(name: str) -> None:
    with pytest.raises(DataError, match="do not pair up"):
        text_scores(name, HYPOTHESES, REFERENCES[:-1])


@pytest.mark.parametrize("name", ["bleu", "chrf", "rouge", "distinct", "repetition", "self_bleu", "copied"])
@pytest.mark.parametrize("lines", [[], ["", " "]])
def test_no_text_gives_no_number(name: str, lines: list[str]) -> None:
    with pytest.raises(DataError, match="no text"):
        text_scores(name, lines, lines)


def images(n: int, seed: int, shape: tuple[int, ...] = (3, 16, 16)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8))


def measured(x: torch.Tensor, y: torch.Tensor, batch: int = 4) -> dict[str, float]:
    metric = Reconstruction(PlainConfig(name="reconstruction"))
    for originals, made in zip(x.split(batch), y.split(batch), strict=True):
        metric.update("pairs", made, originals)
    return {name: float(value) for name, value in metric.compute().items()}


def test_the_formulas() -> None:
    x, y = images(10, 0), images(10, 1)
    error = float(((x.double() - y.double()) / 255).square().mean())
    got = measured(x, y)
    assert got["mse"] == pytest.approx(error, rel=1e-9)
    assert got["psnr"] == pytest.approx(-10 * math.log10(error), rel=1e-9)
    wanted = StructuralSimilarityIndexMeasure(data_range=1.0)(y.float() / 255, x.float() / 255)
    assert got["ssim"] == pytest.approx(float(wanted), abs=1e-5)
    assert measured(x, y, batch=10) == pytest.approx(got, abs=1e-6)


def test_the_best_end_of_the_scale_is_a_number() -> None:
    x = images(4, 0)
    assert measured(x, x) == {"mse": 0, "psnr": pytest.approx(100), "ssim": pytest.approx(1)}


def test_small_images_have_no_ssim() -> None:
    x = images(4, 0, (1, 8, 8))
    assert set(measured(x, x)) == {"mse", "psnr"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    return tmp_path / "cache" / "weights" / LPIPS_FILE


def test_lpips_without_its_weights_says_where_to_put_them(cache: Path) -> None:
    with pytest.raises(DataError, match="AlexNet weights") as caught:
        LPIPS(PlainConfig(name="lpips"))
    assert LPIPS_FILE in caught.value.hint
    assert str(cache.parent) in caught.value.hint


def test_lpips_refuses_a_file_of_another_sum(cache: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, cache)
    with pytest.raises(DataError, match="corrupt"):
        LPIPS(PlainConfig(name="lpips"))


def test_lpips_is_torchmetrics_own_on_the_same_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image.lpips import _LPIPS
    from torchvision.models import alexnet

    from aigc_cli.metrics import reconstructions

    torch.manual_seed(0)
    state = alexnet(weights=None).state_dict()
    monkeypatch.setattr(reconstructions, "load_weights", lambda path, hint, **_: ("0" * 64, state))
    cache.touch()
    metric = LPIPS(PlainConfig(name="lpips"))
    x, y = images(3, 0, (3, 32, 32)), images(3, 1, (3, 32, 32))
    metric.update("pairs", y, x)
    own = _LPIPS(net="alex", pnet_rand=True)
    for part in (child for child in own.net.children() if isinstance(child, torch.nn.Sequential)):
        for name, layer in part.named_children():
            layer.load_state_dict({key: state[f"features.{name}.{key}"] for key in layer.state_dict()})
    wanted = own.eval()(x.float() / 127.5 - 1, y.float() / 127.5 - 1).mean()
    assert float(metric.compute()["lpips"]) == pytest.approx(float(wanted), rel=1e-6)
    assert float(wanted) > 1e-4
    with pytest.raises(ConfigError, match="32x32"):
        metric.update("pairs", images(2, 0), images(2, 1))
