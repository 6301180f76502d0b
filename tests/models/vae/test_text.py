"""The VAE of text: what its bound is made of, what the latent does, what it hides in training, and how it writes."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from draws import latents_of, sampled
from fitting import fit
from toy_text import TOKENIZER, ToyText, documents, windows

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.tokenizers import BOS, EOS, PAD, SPECIALS, UNK
from aigc_cli.models.base import build_model
from aigc_cli.models.vae.text import TextVAE, TextVAEConfig
from aigc_cli.models.variational import SETTLED, Posterior
from aigc_cli.randomness import Noise
from aigc_cli.runs import Run
from aigc_cli.training.build import check_config
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer

LONGEST = 12
SPEC = DataSpec("text", (LONGEST,), vocab_size=TOKENIZER.vocab_size, specials=SPECIALS)
SMALL = {"layers": 1, "decoder_layers": 1, "heads": 2, "width": 32, "latent": 4, "memory": 2, "dropout": 0.0}
TEXTS = Batch(documents(64, LONGEST))


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return compose("train", ["model=vae", "data=text"])["model"]


def build(defaults: dict[str, Any], spec: DataSpec = SPEC, **changes: Any) -> TextVAE:
    torch.manual_seed(0)
    config = check("model", TextVAEConfig, {**defaults, **SMALL, "word_dropout": 0.0, "kl_warmup": 0, **changes})
    return TextVAE(config, spec)


def test_adapters_that_would_freeze_what_starts_at_random_are_refused(defaults: dict[str, Any]) -> None:
    lora = {"rank": 4, "alpha": 16.0}
    with pytest.raises(ConfigError, match=r"lora\.rank=4 would freeze all weights"):
        check("model", TextVAEConfig, {**defaults, "init_from": "latest", "lora": lora})


@pytest.fixture(scope="module")
def trained(defaults: dict[str, Any]) -> TextVAE:
    """A model whose latent says where a text begins and how long it is."""
    model = build(defaults, free_bits=1.0, word_dropout=0.2)
    figures = fit(model, TEXTS, 100)
    assert figures[0]["nelbo_per_token"] == pytest.approx(math.log(TOKENIZER.vocab_size), abs=0.2)
    assert figures[-1]["nelbo_per_token"] < 0.5 * figures[0]["nelbo_per_token"]
    return model


@torch.no_grad()
def scores(model: TextVAE, batch: Batch, samples: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    found = model.score(batch, Noise(seed, range(len(batch))), samples)
    assert all(value.shape == (len(batch),) and value.dtype == torch.float64 for value in found.values())
    return found


# the bound


def test_the_score_is_the_bound_and_its_terms(trained: TextVAE) -> None:
    found = scores(trained, TEXTS)
    assert list(found) == ["nelbo_per_token", "nelbo", "tokens", "kl", "reconstruction"]
    torch.testing.assert_close(found["nelbo"], found["kl"] + found["reconstruction"])
    torch.testing.assert_close(found["nelbo_per_token"], found["nelbo"] / found["tokens"])
    assert found["tokens"].tolist() == (TEXTS.content[:, 1:] != PAD).sum(1).tolist()
    torch.testing.assert_close(found["kl"], trained.posterior(TEXTS).kl().sum(1).double())


def test_more_draws_make_the_bound_tighter(trained: TextVAE) -> None:
    elbo = torch.stack([scores(trained, TEXTS, seed=seed)["nelbo"].mean() for seed in range(4)]).mean()
    few, many = (scores(trained, TEXTS, samples) for samples in (4, 60))
    assert list(many) == ["iw_bound_per_token", "iw_bound", "tokens"]
    assert elbo > few["iw_bound"].mean() > many["iw_bound"].mean()


def test_the_loss_is_its_equation(defaults: dict[str, Any]) -> None:
    """Nats per token: the reconstruction, and the KL times its weight with what each dimension is free of."""
    for changes in ({}, {"beta": 3.0}, {"free_bits": 2.0}, {"beta": 0.5, "kl_warmup": 10}):
        model = build(defaults, **{"free_bits": 0.0, **changes})
        model.phases(5)
        torch.manual_seed(1)
        losses = model("main", TEXTS)
        kl = model.posterior(TEXTS).kl().mean(0)
        weight = changes.get("beta", 1.0) * (0.5 if "kl_warmup" in changes else 1)
        paid = kl.clamp(min=changes.get("free_bits", 0.0)).sum()
        tokens = (TEXTS.content[:, 1:] != PAD).sum() / len(TEXTS)
        torch.testing.assert_close(losses["loss"], (losses["reconstruction"] + weight * paid) / tokens)
        torch.testing.assert_close(losses["nelbo_per_token"], (losses["reconstruction"] + losses["kl"]) / tokens)


def test_scores_depend_on_the_items_own_noise_and_text_alone(trained: TextVAE) -> None:
    some = TEXTS.take(torch.arange(6))
    for samples in (1, 3):
        together = trained.score(some, Noise(7, range(6)), samples)
        for row in range(6):
            own = some.content[row : row + 1, : int((some.content[row] != PAD).sum())]
            alone = trained.score(Batch(own), Noise(7, [row]), samples)
            for name, values in together.items():
                torch.testing.assert_close(values[row], alone[name][0], rtol=1e-5, atol=1e-5)


def test_free_bits_keep_the_latent_in_use(defaults: dict[str, Any]) -> None:
    free = build(defaults, beta=20.0, free_bits=1.0)
    plain = build(defaults, beta=20.0, free_bits=0.0)
    assert fit(free, TEXTS, 40)[-1]["kl"] > 1.0
    assert fit(plain, TEXTS, 40)[-1]["kl"] < 0.1


def test_words_are_hidden_in_training_alone(defaults: dict[str, Any]) -> None:
    """With all of them hidden, no token depends on those before it; in evaluation it does."""
    model = build(defaults, word_dropout=1.0)
    targets, latents = TEXTS.content[:, 1:], torch.zeros(len(TEXTS), 4)
    changed = targets.clone()
    changed[:, 0] = torch.where(targets[:, 0] == 5, 6, 5)
    with torch.no_grad():
        seen = {training: model.train(training)._nats(targets, latents)[:, 1:] for training in (True, False)}
        others = {training: model.train(training)._nats(changed, latents)[:, 1:] for training in (True, False)}
    assert torch.equal(seen[True], others[True])
    assert not torch.equal(seen[False], others[False])


def test_what_is_hidden_reads_as_unknown_and_the_beginning_never_is(defaults: dict[str, Any]) -> None:
    model = build(defaults, word_dropout=1.0)
    read = []
    model.decoder.embedding.register_forward_hook(lambda module, args, result: read.append(args[0]))
    with torch.no_grad():
        model._nats(TEXTS.content[:, 1:], torch.zeros(len(TEXTS), 4))
    assert (read[0][:, 0] == BOS).all()
    assert (read[0][:, 1:] == UNK).all()


# the latent


@pytest.mark.parametrize("way", ["memory", "offset"])
def test_the_latent_reaches_the_decoder_both_ways(defaults: dict[str, Any], way: str) -> None:
    model = build(defaults).eval()
    other = model.to_offset if way == "memory" else model.to_memory
    torch.nn.init.zeros_(other.weight)
    targets = TEXTS.content[:4, 1:]
    with torch.no_grad():
        one, another = (model._nats(targets, latents) for latents in (torch.ones(4, 4), -torch.ones(4, 4)))
    assert not torch.allclose(one, another)


def test_the_encoder_sees_all_of_a_text_but_padding(trained: TextVAE) -> None:
    short = TEXTS.content[1:2]
    last = int((short != PAD).sum()) - 2
    changed = short.clone()
    changed[0, last] = 4 if int(short[0, last]) != 4 else 5
    with torch.no_grad():
        mean = trained.encode(Batch(short))
        assert not torch.allclose(mean, trained.encode(Batch(changed)))
        torch.testing.assert_close(mean, trained.encode(Batch(short[:, : last + 2])))


def test_what_is_encoded_is_decoded(trained: TextVAE) -> None:
    with torch.no_grad():
        made = trained.decode(trained.encode(TEXTS))
    assert made.shape == TEXTS.content.shape
    assert (made == TEXTS.content).all(1).float().mean() > 0.3
    assert len({tuple(row) for row in made.tolist()}) > 10


def test_the_mixture_is_of_the_encoded_training_set(trained: TextVAE) -> None:
    trained.prepare([TEXTS], trained.controls(prior="gmm"))
    with torch.no_grad():
        drawn, encoded = latents_of(trained, Noise(0, range(2000)), prior="gmm", temperature=0.0), trained.encode(TEXTS)
    torch.testing.assert_close(drawn.mean(0), encoded.mean(0), atol=0.2, rtol=0)
    cold = latents_of(trained, Noise(0, range(2000)), prior="gmm", latent_temperature=0.1)
    assert cold.var(0).sum() < drawn.var(0).sum()
    trained.mixture = None


def test_a_learned_prior_is_where_texts_come_from_and_its_bound_holds(defaults: dict[str, Any]) -> None:
    model = build(defaults, free_bits=1.0, prior="flow", prior_layers=2, prior_hidden=8)
    figures = fit(model, TEXTS, 100)
    assert figures[-1]["nelbo_per_token"] < 0.5 * figures[0]["nelbo_per_token"]
    assert scores(model, TEXTS, 30)["iw_bound"].mean() < scores(model, TEXTS)["nelbo"].mean()
    assert model.prior is not None
    torch.nn.init.constant_(model.prior.shift, 5.0)  # so that noise is far from the latents that it stands for
    with torch.no_grad():
        noise, means = model.encode(TEXTS), model.posterior(TEXTS).mean
        torch.testing.assert_close(model.placed(noise), means, atol=1e-4, rtol=0)
        assert (noise - means).abs().mean() > 1
        made, alone = model.decode(noise), model.sample(Noise(0, range(4)), model.controls(latent_temperature=0.01))
    assert (made == TEXTS.content).all(1).float().mean() > 0.3
    model.prior = None
    with torch.no_grad():
        assert not torch.equal(alone, model.sample(Noise(0, range(4)), model.controls(latent_temperature=0.01)))


def test_curves_and_warnings(trained: TextVAE) -> None:
    with torch.no_grad():
        figures = trained.examine(TEXTS, None)
        kl = Posterior(*trained.posterior(TEXTS)).kl().mean(0)
    assert figures["active_units"] >= 1
    assert figures["kl_dim_max"].item() == pytest.approx(kl.max().item(), rel=1e-5)
    trained.phases(SETTLED)
    assert not list(trained.warnings({"main/kl": 5.0, "examine/active_units": 3.0}))
    ((name, line),) = trained.warnings({"main/kl": 0.01})
    assert name == "posterior collapse"
    assert "word_dropout" in line


# writing


def test_samples_depend_on_their_own_noise_alone(trained: TextVAE) -> None:
    for controls in ({}, {"temperature": 0.0}, {"top_k": 3}, {"beam": 3}, {"prompt": [[5, 6], [7]]}):
        together = sampled(trained, Noise(3, range(6)), **controls)
        for row in range(6):
            width = together.shape[1]
            alone = sampled(trained, Noise(3, [row]), **{**controls, **_own(controls, row)})
            assert torch.equal(together[row, : alone.shape[1]], alone[0][:width])


def _own(controls: dict[str, Any], row: int) -> dict[str, Any]:
    return {"prompt": [controls["prompt"][row % 2]]} if "prompt" in controls else {}


def test_samples_are_texts(trained: TextVAE) -> None:
    rows = sampled(trained, Noise(0, range(20)))
    assert rows.shape == (20, LONGEST)
    assert (rows[:, 0] == BOS).all()
    for row in rows.tolist():
        if EOS in row:
            assert not any(row[row.index(EOS) + 1 :])
    assert sampled(trained, Noise(0, range(2)), max_tokens=3).shape == (2, 4)


def test_temperatures_are_of_latents_and_of_tokens(trained: TextVAE) -> None:
    """Without either, there is one text; each alone gives several."""

    def distinct(**controls: float) -> int:
        return len({tuple(row) for row in sampled(trained, Noise(0, range(24)), **controls).tolist()})

    assert distinct(temperature=0.0, latent_temperature=1e-6) == 1
    assert distinct(temperature=0.0) > 3
    assert distinct(latent_temperature=1e-6) > 3


def test_a_prompt_begins_the_text(trained: TextVAE) -> None:
    rows = sampled(trained, Noise(0, range(4)), prompt=[[5, 6], [BOS, 7]])
    assert rows[::2, :3].tolist() == [[BOS, 5, 6]] * 2
    assert rows[1::2, :2].tolist() == [[BOS, 7]] * 2


def test_prompts_may_be_of_any_length_but_none(trained: TextVAE) -> None:
    prompt = [[4] * 30, [5]]
    together = sampled(trained, Noise(0, range(2)), prompt=prompt, max_tokens=20)
    alone = sampled(trained, Noise(0, [1]), prompt=prompt[1:], max_tokens=20)
    assert together[0, 1:31].tolist() == prompt[0]
    assert torch.equal(together[1, : alone.shape[1]], alone[0])
    with pytest.raises(ConfigError, match="a prompt is empty"):
        sampled(trained, Noise(0, [0]), prompt=[[]])


# data


def test_windows_of_a_text_are_served_too(defaults: dict[str, Any]) -> None:
    """Their first token, which nothing before it predicts, is neither scored nor seen."""
    data = ToyText(windows(32, 9))
    model = build(defaults, data.spec)
    figures = fit(model, data.batch, 40)
    assert figures[-1]["loss"] < 0.5 * figures[0]["loss"]
    found = scores(model, data.batch)
    assert found["tokens"].tolist() == [8.0] * 32
    changed = copy.deepcopy(data.batch)
    changed.content[:, 0] = 4
    assert torch.equal(scores(model, changed)["nelbo"], found["nelbo"])
    assert sampled(model, Noise(0, range(3))).shape == (3, 9)


def test_only_texts(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="model=vae_text cannot model text from text data"):
        build(defaults, DataSpec("text", (LONGEST,), vocab_size=12, source=DataSpec("text", (LONGEST,))))


# training


def trainer(folder: Path, steps: int) -> Trainer:
    words = ["trainer.device=cpu", "trainer.batch_size=16", f"trainer.steps={steps}", "trainer.checkpoint_every=3"]
    small = [f"model.{key}={value}" for key, value in {**SMALL, "dropout": 0.2, "kl_warmup": 4}.items()]
    config = compose("train", ["model=vae", "data=text", *small, *words])
    checked = check_config(config)
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    data = ToyText(TEXTS.content)
    return Trainer(
        model=build_model(config["model"], data.spec), loader=Loader(data, batch_size=16, seed=0, device="cpu"),
        optimizer=checked.optimizer, config=checked.trainer, seed=0, run=Run(folder), device=torch.device("cpu"),
    )  # fmt: skip


def test_a_run_in_two_parts_equals_the_whole_bit_for_bit(tmp_path: Path) -> None:
    """Its warm-up, its latents' noise and its hidden words go by the step alone."""
    trainer(tmp_path / "whole", 7).fit(Hooks())
    trainer(tmp_path / "parts", 3).fit(Hooks())
    second = trainer(tmp_path / "parts", 7)
    assert second.restore()
    assert second.state.step == 3
    second.fit(Hooks())
    whole, parts = (CheckpointFolder(Run(tmp_path / name).checkpoints).load(7) for name in ("whole", "parts"))
    assert whole.tensors["model"].keys() == parts.tensors["model"].keys()
    for file, group in whole.tensors.items():
        for name, tensor in group.items():
            assert torch.equal(tensor, parts.tensors[file][name]), (file, name)
