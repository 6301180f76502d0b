"""Metrics of what was made beside what it should have been. Of text: ``bleu`` and ``chrf`` as sacrebleu computes them,
``rouge`` as rouge-score does, ``continuation`` and ``reconstruction_bleu``. Of an image and its reconstruction:
``reconstruction`` (mean squared error, PSNR, SSIM) and ``lpips``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import fmean
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.extractors.pretrained import load_weights, misfit, short_path, weight_folders
from aigc_cli.metrics.text import Distinct, TextMetric, WordsConfig
from aigc_cli.metrics.words import Cut, Tokenizer, sacrebleu_of, spoken
from aigc_cli.registry import register

_SSIM_SIDE = 11  # of its Gaussian window
_LEAST_ERROR = 1e-10  # 100 dB; a PSNR of infinity cannot be written down
LPIPS_FILE = "alexnet-owt-7be5be79.pth"
_LPIPS_URL = f"https://download.pytorch.org/models/{LPIPS_FILE}"
_LPIPS_SIDE = 32  # below which AlexNet has nothing left to pool


@dataclass(config=STRICT, frozen=True, kw_only=True)
class TokenizedConfig(PlainConfig):
    """How BLEU cuts words."""

    tokenize: Tokenizer


@dataclass(config=STRICT, frozen=True, kw_only=True)
class BLEUConfig(TokenizedConfig):
    """Whether case counts, too."""

    lowercase: bool


@register("metric", "bleu", BLEUConfig)
class CorpusBLEU(TextMetric):
    """``bleu``: Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, 2002, in the form that
    makes scores comparable (Post, A Call for Clarity in Reporting BLEU Scores, 2018), over the whole corpus.

    ``tokenised_bleu`` is the same of lower-cased text: the nearest thing to what papers report that score lower-cased
    tokens, which are mostly cut by Moses's rules, and not by sacrebleu's.
    """

    usual_for: ClassVar[Mapping[str, int]] = {"pairs": 1}
    figures: ClassVar[Figures] = {"bleu": "higher", "tokenised_bleu": "higher"}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], as asked for and lower-cased."""
        tokenizer = self.bleu(real, self.config.tokenize)
        metrics = [sacrebleu_of(tokenizer, lowercase) for lowercase in (self.config.lowercase, True)]
        scores = [metric.corpus_score(list(fake), [list(real)]).score for metric in metrics]
        own, tokenised = (metric.get_signature() for metric in metrics)
        self.signature = f"{own}; tokenised_bleu: {tokenised}"
        return dict(zip(self.figures, scores, strict=True))


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ChrFConfig(PlainConfig):
    """chrF, or with words chrF++."""

    word_order: Annotated[int, Field(ge=0, le=4)]


@register("metric", "chrf", ChrFConfig)
class ChrF(TextMetric):
    """``chrf``: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015; chrF++ with word_order=2."""

    usual_for: ClassVar[Mapping[str, int]] = {"pairs": 2}
    figures: ClassVar[Figures] = {"chrf": "higher"}

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """chrF in [0, 100]."""
        from sacrebleu.metrics.chrf import CHRF

        metric = CHRF(word_order=self.config.word_order)
        score = metric.corpus_score(list(fake), [list(real)]).score
        self.signature = str(metric.get_signature())
        return {"chrf": score}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ROUGEConfig(WordsConfig):
    """Whether English endings count."""

    stemmer: bool


class _Words:
    """rouge-score's own tokenizer drops all that is not a-z and 0-9; this one the same of ASCII, and it keeps the words
    of every script."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut

    def tokenize(self, text: str) -> list[str]:
        return spoken(text, self.cut)


@register("metric", "rouge", ROUGEConfig)
class ROUGE(TextMetric):
    """``rouge``: mean F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, in [0, 1].

    Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004. With ``stemmer=true`` rouge-score cuts and stems
    English words itself; without it words are those of every script.
    """

    figures: ClassVar[Figures] = dict.fromkeys(("rouge1", "rouge2", "rougeL"), "higher")

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """Means over the items."""
        from rouge_score.rouge_scorer import RougeScorer

        self.cut(real)  # says how
        own = None if self.config.stemmer else _Words(self.config.tokenize)
        scorer = RougeScorer(list(self.figures), use_stemmer=self.config.stemmer, tokenizer=own)
        scores = [scorer.score(target, item) for item, target in zip(fake, real, strict=True)]
        if self.config.stemmer:
            self.tokenizer, self.why = "rouge-score's, stemmed", ""
        else:
            self.tokenizer += ", without punctuation, lower case"
        self.signature = f"rouge-score {version('rouge-score')}, tokenizer: {self.tokenizer}"
        return {name: fmean(score[name].fmeasure for score in scores) for name in self.figures}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ContinuationConfig(TokenizedConfig):
    """Where a passage is cut, too."""

    prompt: Annotated[float, Field(gt=0, lt=1)]


@register("metric", "continuation", ContinuationConfig)
class Continuation(TextMetric):
    """``continuation``: BLEU, ROUGE and distinct-2 of texts against the true continuations, shown together.

    There are many ways to go on, so the first two are low for everyone, and a copy of the prompt may win: they say
    something beside the scores of such a copy, and of text that has nothing to do with the prompt.
    """

    made_by = "continue"
    figures: ClassVar[Figures] = {
        **dict.fromkeys(("continuation_bleu", "continuation_rouge1", "continuation_rougeL"), "higher"),
        "continuation_distinct2": "near",
    }

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        rouge = ROUGE(ROUGEConfig(name="rouge", tokenize="auto", stemmer=False))
        distinct = Distinct(WordsConfig(name="distinct", tokenize="auto"))
        bleu = CorpusBLEU(BLEUConfig(name="bleu", tokenize=config.tokenize, lowercase=False))
        self._parts: tuple[TextMetric, ...] = (bleu, rouge, distinct)

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], the others in [0, 1]."""
        found: dict[str, float] = {}
        for part in self._parts:
            found |= part.measured(fake, real)
        self.signature = "; ".join(part.signature for part in self._parts if part.signature)
        self.tokenizer = "; ".join(part.tokenizer for part in self._parts)
        self.why = "; ".join(part.why for part in self._parts[:2] if part.why)
        return {name: found[name.removeprefix("continuation_")] for name in self.figures}

    def options(self) -> dict[str, Any]:
        """Where passages are cut."""
        return {"share": self.config.prompt}


@register("metric", "reconstruction_bleu", TokenizedConfig)
class ReconstructionBLEU(TextMetric):
    """``reconstruction_bleu``: BLEU of texts' reconstructions against the texts themselves, and the share of texts that
    come back as they were."""

    made_by = "reconstruct"
    usual_for: ClassVar[Mapping[str, int]] = {"text": 5}
    needs = frozenset({"encode", "decode"})
    figures: ClassVar[Figures] = dict.fromkeys(("reconstruction_bleu", "reconstructed_exactly"), "higher")

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        self._bleu = CorpusBLEU(BLEUConfig(name="bleu", tokenize=config.tokenize, lowercase=False))

    def measured(self, fake: Sequence[str], real: Sequence[str]) -> dict[str, float]:
        """BLEU in [0, 100], and a share in [0, 1]."""
        same = sum(item == text for item, text in zip(fake, real, strict=True)) / len(fake)
        bleu = self._bleu.measured(fake, real)["bleu"]
        self.tokenizer, self.why = self._bleu.tokenizer, self._bleu.why
        self.signature = self._bleu.signature.partition(";")[0]
        return dict(zip(self.figures, (bleu, same), strict=True))


# images


class PairMetric(Metric):
    """A mean over items of what is measured of each and its reconstruction, both raw uint8 (n, C, H, W)."""

    takes: ClassVar[Takes] = {"pairs": ("content",)}
    made_by = "reconstruct"
    needs = frozenset({"encode", "decode"})
    total: Tensor
    count: Tensor

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        self.add_state("total", default=torch.zeros(len(self.figures), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, stream: Stream, made: Tensor, images: Tensor) -> None:
        """Adds what the model made of images, and the images."""
        self.total = self.total + torch.stack([each.double().sum() for each in self.measured(images, made)])
        self.count = self.count + len(images)

    @abstractmethod
    def measured(self, images: Tensor, made: Tensor) -> list[Tensor]:
        """What is averaged, (n,) each, in the order of :attr:`figures`."""

    def compute(self) -> dict[str, Tensor]:
        """The scores, float64 scalars by name."""
        return dict(zip(self.figures, self.total / self.count, strict=True))

    def facts(self) -> dict[str, Any]:
        """On what scale the values are."""
        return {"scale": "uint8 as [0, 1]"}


@register("metric", "reconstruction", PlainConfig)
class Reconstruction(PairMetric):
    """``reconstruction``: mean squared error over pixels in [0, 1], the PSNR of that mean in dB, and the mean SSIM.

    SSIM: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, with its window
    of 11x11; images smaller than that have none.
    """

    figures: ClassVar[Figures] = {"mse": "lower", "psnr": "higher", "ssim": "higher"}

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        self._has_ssim = True

    def measured(self, images: Tensor, made: Tensor) -> list[Tensor]:
        """Squared error, the same again for the PSNR, and SSIM of each image."""
        made = made.to(images.device)
        error = (images.double() - made.double()).square().flatten(1).mean(dim=1) / 255**2
        x, y = images.float() / 255, made.float() / 255
        self._has_ssim = self._has_ssim and min(x.shape[-2:]) >= _SSIM_SIDE
        if not self._has_ssim:
            return [error, error, torch.zeros_like(error)]
        similar: Any = structural_similarity_index_measure(y, x, data_range=1.0, reduction="none")
        return [error, error, similar]

    def compute(self) -> dict[str, Tensor]:
        """The scores, without an SSIM where there is none."""
        values = super().compute()
        values["psnr"] = -10 * values["psnr"].clamp_min(_LEAST_ERROR).log10()
        if not self._has_ssim:
            del values["ssim"]
        return values

    def notes(self) -> list[str]:
        """Says so where there is no SSIM."""
        return [] if self._has_ssim else [f"ssim needs images of at least {_SSIM_SIDE}x{_SSIM_SIDE}"]


@register("metric", "lpips", PlainConfig)
class LPIPS(PairMetric):
    """``lpips``: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018.

    AlexNet with the linear layers of version 0.1, which torchmetrics brings along; AlexNet's own weights must be there.
    """

    figures: ClassVar[Figures] = {"lpips": "lower"}

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        path = next((folder / LPIPS_FILE for folder in weight_folders() if (folder / LPIPS_FILE).is_file()), None)
        place = short_path(weight_folders()[0])
        hint = f"put {LPIPS_FILE} (SHA-256 begins with 7be5be79, from {_LPIPS_URL}) into {place}; "
        hint += "`aigc eval --metric reconstruction` needs no such file"
        if path is None:
            raise DataError("the AlexNet weights of lpips are not here", hint)
        self.checksum, state = load_weights(path, hint, named_by_sum=True)
        self._network = _lpips(state, hint)

    def measured(self, images: Tensor, made: Tensor) -> list[Tensor]:
        """The distance of each pair; grey images are repeated to RGB."""
        if min(images.shape[-2:]) < _LPIPS_SIDE:
            raise ConfigError(f"lpips needs images of at least {_LPIPS_SIDE}x{_LPIPS_SIDE}", "leave it out")
        x, y = (part.expand(-1, 3, -1, -1).float() / 127.5 - 1 for part in (images, made.to(images.device)))
        with torch.inference_mode():
            return [self._network.to(x.device)(x, y).flatten()]

    def facts(self) -> dict[str, Any]:
        """The weights' sum, too."""
        return {"network": "alexnet, LPIPS 0.1", "sha256": self.checksum, "scale": "uint8 as [-1, 1]"}


def _lpips(state: dict[str, Tensor], hint: str) -> nn.Module:
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(net="alex", pnet_rand=True)  # random for now: it would load, or fetch, a file of its own choice
    slices = [child for child in network.net.children() if isinstance(child, nn.Sequential)]
    try:
        for name, layer in (pair for part in slices for pair in part.named_children()):
            own = {key: state[f"features.{name}.{key}"] for key in layer.state_dict()}
            layer.load_state_dict(own)
    except (KeyError, RuntimeError) as error:
        raise misfit("AlexNet", error, hint) from None
    return network.eval()
