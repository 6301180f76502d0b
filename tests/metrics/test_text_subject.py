"""Reconstructions of texts, measured: what comes back whole, what does not, and what the text itself is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from toy_metrics import subject_of, texts_of
from toy_text import TOKENIZER, ToyText, documents, windows

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.references import ReconstructionBLEU, TokenizedConfig
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.text import TextCodec, Texts
from aigc_cli.modalities.tokenizers import EOS
from aigc_cli.models.latent import LatentModel
from aigc_cli.models.transformer import DecoderLanguageModel


class Keeps(LatentModel):
    """Keeps tokens as they are for a latent, but for those of items that begin with an "a"."""

    layouts = frozenset({"tokens"})
    can = frozenset({"encode", "decode"})

    def encode(self, batch: Batch) -> Tensor:
        return batch.content.double()

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        tokens = latents.long()[:, 1:]
        lost = tokens[:, :1] == TOKENIZER.encode("a")[0].item()
        return torch.where(lost, EOS, tokens)


def remade(dataset: ToyText, start: int) -> Any:
    dataset.codec = TextCodec(TOKENIZER, start)
    return texts_of(Keeps(dataset.spec), dataset, "reconstruct", 7)


def test_texts_stand_beside_themselves_in_order() -> None:
    dataset = ToyText(documents(30, 9))
    written = remade(dataset, start=1)
    texts = dataset.codec.text(dataset.batch.content)
    assert written.texts("source") == texts
    assert written.texts() == ["" if text.startswith("a") else text for text in texts]
    assert written.beside["reconstruction of another"].texts() == [*written.texts()[1:], written.texts()[0]]


def test_the_first_token_of_a_window_is_no_part_of_it() -> None:
    dataset = ToyText(windows(20, 6))
    written = remade(dataset, start=EOS)
    assert written.texts("source") == [TOKENIZER.decode(row[1:]) for row in dataset.batch.content.tolist()]


def test_scores_are_sacrebleus_and_the_share_of_texts_that_came_back() -> None:
    from sacrebleu.metrics import BLEU

    texts, made = (
        ["a cat sat on the mat", "the dog ran to him", "it is"],
        ["a cat sat on a mat", "the dog ran to him", ""],
    )
    evaluation = Evaluation({"reconstruction_bleu": {"name": "reconstruction_bleu", "tokenize": "auto"}})
    (result,) = evaluation.of(Texts(made, sources=texts), "pairs")
    wanted = {"reconstruction_bleu": BLEU().corpus_score(made, [texts]).score, "reconstructed_exactly": 1 / 3}
    assert result.generated.figures == pytest.approx(wanted)
    assert result.facts["signature"].count("nrefs:1") == 1
    whole = ReconstructionBLEU(TokenizedConfig(name="reconstruction_bleu", tokenize="auto")).measured(texts, texts)
    assert whole == pytest.approx({"reconstruction_bleu": 100, "reconstructed_exactly": 1})


def test_a_model_without_latents_says_so() -> None:
    dataset = ToyText(documents(5, 9))
    model = DecoderLanguageModel.__new__(DecoderLanguageModel)
    with pytest.raises(ConfigError, match="cannot reconstruct"):
        subject_of(model, dataset).source("reconstruction_bleu")
