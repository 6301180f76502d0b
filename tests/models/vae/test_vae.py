"""The VAE: what its networks accept, what it minimises, what it says of held-out data and where it draws from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from draws import latents_of, sampled
from fitting import fit
from torch import Tensor

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.models.vae.config import VAEConfig
from aigc_cli.models.vae.networks import NETWORKS
from aigc_cli.models.vae.vae import VAE
from aigc_cli.models.variational import SETTLED, Posterior
from aigc_cli.nn.likelihoods import LIKELIHOODS
from aigc_cli.nn.mixture import LatentMixture
from aigc_cli.randomness import Noise

SMALL = {"latent": 4, "latent_side": 0, "hidden": 16, "width": 4, "max_width": 8, "blocks": 1, "components": 2}
CLASSES = ("dark", "light")


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    """The keys of model=vae without a recipe."""
    return compose("train", ["model=vae", "data=mnist", "recipe=null"])["model"]


def build(
    defaults: dict[str, Any], shape: tuple[int, ...] = (1, 8, 8), *, classes: tuple[str, ...] = (), **changes: Any
) -> VAE:
    torch.manual_seed(0)
    config = check("model", VAEConfig, {**defaults, **SMALL, **changes})
    return VAE(config, DataSpec("image", shape, classes))


def images(n: int, shape: tuple[int, ...] = (1, 8, 8)) -> Batch:
    """Images of one grey each, with a label of whether it is light."""
    generator = torch.Generator().manual_seed(1)
    grey = torch.rand(n, *[1] * len(shape), generator=generator) * 1.6 - 0.8
    content = (grey + 0.1 * torch.randn(n, *shape, generator=generator)).clamp(-1, 1)
    return Batch((content * 127.5).round() / 127.5, (grey.flatten() > 0).long())


def adam(model: VAE) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), 3e-3)


@torch.no_grad()
def score(model: VAE, batch: Batch, samples: int = 1) -> dict[str, float]:
    figures = model.score(batch, Noise(0, range(len(batch))), samples)
    assert all(value.shape == (len(batch),) for value in figures.values())
    return {name: value.mean().item() for name, value in figures.items()}


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
@pytest.mark.parametrize(
    ("network", "shape", "latent_side"),
    [
        *[("conv", (1, size, size), 0) for size in (8, 12, 28, 64)],
        *[("resnet", (3, size, size), 0) for size in (16, 32)],
        ("conv", (3, 32, 32), 8),
        ("resnet", (1, 28, 28), 7),
        ("resnet", (3, 128, 128), 16),
        ("conv", (1, 16, 24), 0),
        ("resnet", (2, 32, 16), 8),
        ("mlp", (3, 5, 7), 0),
        ("auto", (1, 64), 0),
        ("mlp", (2, 4, 6, 6), 0),
    ],
)
def test_every_network_serves_every_likelihood(
    defaults: dict[str, Any], network: str, shape: tuple[int, ...], latent_side: int, likelihood: str
) -> None:
    model = build(defaults, shape, network=network, likelihood=likelihood, latent_side=latent_side)
    batch = images(2, shape)
    (figures,) = fit(model, batch, 1, adam(model))
    assert all(math.isfinite(value) for value in figures.values())
    dimensions = 4 * math.prod(side * latent_side // min(shape[1:]) or 1 for side in shape[1:])
    with torch.no_grad():
        assert model.decode(latents_of(model, Noise(0, range(2)))).shape == (2, *shape)
        latents = model.encode(batch)
        assert latents.shape == (2, dimensions)
        assert model.decode(latents).abs().max() <= 1
    assert list(score(model, batch)) == ["nelbo", "bits_per_dim", "kl", "reconstruction"]


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((1, 8, 8), "conv"),
        ((1, 28, 28), "conv"),
        ((3, 128, 128), "conv"),
        ((1, 16, 24), "conv"),
        ((1, 30, 30), "mlp"),
        ((3, 6, 9), "mlp"),
    ],
)
def test_auto_goes_by_the_shape(defaults: dict[str, Any], shape: tuple[int, int, int], network: str) -> None:
    automatic, named = build(defaults, shape, network="auto"), build(defaults, shape, network=network)
    assert automatic.state_dict().keys() == named.state_dict().keys()


@pytest.mark.parametrize(
    ("changes", "shape", "complaint", "hint"),
    [
        ({"network": "conv"}, (1, 30, 30), "halves down to 4 to 7.*30x30", "model.network=mlp"),
        ({"network": "resnet"}, (1, 16, 30), "16x30", "data.size="),
        ({"network": "conv"}, (3, 256, 256), "8 to 128", "data.size="),
        ({"network": "conv"}, (3, 4, 4), "4x4", "model.network=mlp"),
        ({"network": "auto"}, (3, 100, 50), "no network.*100x50", "data.size="),
        ({"network": "conv", "latent_side": 5}, (1, 32, 32), "no map of that side", "16, 8, 4"),
        ({"network": "auto", "latent_side": 4}, (1, 30, 30), "halves down", "data.size="),
        ({"network": "conv"}, (1, 64), "for maps.*the shape 1x64", "model.network=mlp"),
        ({"network": "auto", "latent_side": 4}, (1, 64), "for maps.*the shape 1x64", "model.latent_side=0"),
        ({"network": "auto"}, (1, 6000), "no network of model=vae suits items of 6000", "model.network=mlp"),
        ({"conditional": True}, (1, 8, 8), "needs labels", "model.conditional=false"),
    ],
)
def test_shapes_and_data_it_cannot_serve(
    defaults: dict[str, Any], changes: dict[str, Any], shape: tuple[int, ...], complaint: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as error:
        build(defaults, shape, **changes)
    assert hint in error.value.hint


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"network": "mlp", "hidden": 0}, "needs hidden units"),
        ({"network": "mlp", "latent_side": 4}, "latent_side must be 0"),
        ({"importance_samples": 2, "free_bits": 0.1}, "free_bits works with the ELBO alone"),
        ({"beta": -1.0}, "beta"),
        ({"likelihood": "poisson"}, "likelihood"),
    ],
)
def test_wrong_keys_and_contradictions(defaults: dict[str, Any], changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        build(defaults, **changes)


def test_only_images(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="model=vae cannot model text data"):
        VAE(check("model", VAEConfig, defaults), DataSpec("text", (64,), vocab_size=9))


@pytest.mark.parametrize("likelihood", sorted(LIKELIHOODS))
@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"conv3d"}))
def test_it_learns_and_the_importance_weighted_bound_is_tighter(
    defaults: dict[str, Any], network: str, likelihood: str
) -> None:
    model, batch = build(defaults, network=network, likelihood=likelihood), images(32)
    figures = fit(model, batch, 60, adam(model))
    assert figures[-1]["loss"] < 0.9 * figures[0]["loss"]
    elbo, bound = score(model, batch), score(model, batch, samples=100)
    assert list(bound) == ["iw_bound", "bits_per_dim"]
    assert bound["iw_bound"] <= elbo["nelbo"]
    assert elbo["nelbo"] == pytest.approx(elbo["kl"] + elbo["reconstruction"], rel=1e-5)
    assert elbo["bits_per_dim"] == pytest.approx(elbo["nelbo"] / 64 / math.log(2), rel=1e-5)


def test_the_loss_is_its_equation(defaults: dict[str, Any]) -> None:
    """Nats per dimension: the reconstruction, and the KL times its weight with what each dimension is free of."""
    for changes in ({}, {"beta": 3.0}, {"free_bits": 2.0}, {"beta": 0.5, "kl_warmup": 10}):
        model, batch = build(defaults, **changes), images(16)
        model.phases(5)
        torch.manual_seed(1)
        losses = model("main", batch)
        kl = Posterior(*model.encoder(batch.content)).kl().mean(0)
        weight = changes.get("beta", 1.0) * (0.5 if "kl_warmup" in changes else 1)
        paid = kl.clamp(min=changes.get("free_bits", 0.0)).sum()
        torch.testing.assert_close(losses["loss"], (losses["reconstruction"] + weight * paid) / 64)
        torch.testing.assert_close(losses["kl"], kl.sum().detach())
        bits = (losses["reconstruction"] + losses["kl"]) / 64 / math.log(2)
        torch.testing.assert_close(losses["bits_per_dim"], bits)


def test_warm_up_is_linear_and_ends(defaults: dict[str, Any]) -> None:
    model = build(defaults, beta=2.0, kl_warmup=10)
    weights = []
    for step in (0, 5, 10, 99):
        model.phases(step)
        weights.append(model.kl_weight)
    assert weights == [0, 1, 2, 2]


def test_beta_and_free_bits_move_the_information_of_the_latent(defaults: dict[str, Any]) -> None:
    batch = images(32)
    kl = {}
    for name, changes in {"plain": {}, "high": {"beta": 20.0}, "free": {"beta": 20.0, "free_bits": 1.0}}.items():
        model = build(defaults, network="mlp", likelihood="gaussian_fixed", **changes)
        kl[name] = fit(model, batch, 250, adam(model))[-1]["kl"]
    assert kl["high"] < 0.5 * kl["plain"]
    assert kl["free"] > 1.5 * kl["high"]


def test_several_draws_are_an_objective(defaults: dict[str, Any]) -> None:
    model, batch = build(defaults, network="mlp", importance_samples=5), images(32)
    figures = fit(model, batch, 60, adam(model))
    assert figures[-1]["loss"] < 0.9 * figures[0]["loss"]
    assert figures[-1]["bits_per_dim"] == pytest.approx(figures[-1]["loss"] / math.log(2), rel=1e-4)


def test_scores_depend_on_the_items_own_noise_alone(defaults: dict[str, Any]) -> None:
    model, batch = build(defaults).eval(), images(6)
    for samples in (1, 3):
        with torch.no_grad():
            together = model.score(batch, Noise(7, range(6)), samples)
            apart = [model.score(batch.take(torch.tensor([i])), Noise(7, [i]), samples) for i in range(6)]
        for name, values in together.items():
            torch.testing.assert_close(values, torch.cat([figures[name] for figures in apart]))


def test_bernoulli_sees_binarised_images(defaults: dict[str, Any]) -> None:
    model, batch = build(defaults, likelihood="bernoulli").eval(), images(4)
    black_and_white = batch.with_content((batch.content > 0).float() * 2 - 1)
    assert score(model, batch) == score(model, black_and_white)
    torch.testing.assert_close(model.encode(batch), model.encode(black_and_white))


@pytest.mark.parametrize(("network", "latent_side"), [("mlp", 0), ("conv", 0), ("resnet", 4)])
def test_a_conditional_model_draws_the_class_asked_for(
    defaults: dict[str, Any], network: str, latent_side: int
) -> None:
    model = build(
        defaults, classes=CLASSES, network=network, latent_side=latent_side, conditional=True, likelihood="gaussian",
        beta=5.0,
    )  # fmt: skip
    fit(model, images(64), 200, adam(model))
    with torch.no_grad():
        light, dark = (sampled(model, Noise(0, range(16)), class_=word).mean().item() for word in ("light", "dark"))
        both = sampled(model, Noise(0, range(16))).mean((1, 2, 3))
    assert light > dark + 0.3
    assert both[1::2].mean() > both[::2].mean() + 0.3


def test_a_model_without_classes_ignores_labels(defaults: dict[str, Any]) -> None:
    model, batch = build(defaults, classes=CLASSES).eval(), images(4)
    assert score(model, batch) == score(model, Batch(batch.content))
    with pytest.raises(ConfigError, match="trained without classes"):
        sampled(model, Noise(0, range(2)), class_="light")


def test_temperature_narrows_the_latent(defaults: dict[str, Any]) -> None:
    model = build(defaults)
    full, half = latents_of(model, Noise(0, range(64))), latents_of(model, Noise(0, range(64)), temperature=0.5)
    torch.testing.assert_close(half, full / 2)
    assert full.std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("conditional", [False, True])
def test_the_mixture_is_of_the_encoded_training_set(defaults: dict[str, Any], conditional: bool) -> None:
    model = build(defaults, classes=CLASSES, conditional=conditional, likelihood="gaussian")
    batch = images(128)
    fit(model, batch, 100, adam(model))
    with pytest.raises(RuntimeError, match="prepare"):
        latents_of(model, Noise(0, range(4)), prior="gmm")
    model.prepare(iter(()), model.controls())
    assert model.mixture is None
    before = set(model.state_dict())
    model.prepare([batch], model.controls(prior="gmm"))
    assert set(model.state_dict()) == before  # so that a checkpoint still loads
    with torch.no_grad():
        drawn, encoded = latents_of(model, Noise(0, range(2000)), prior="gmm"), model.encode(batch)
    assert (drawn.mean(0) - encoded.mean(0)).abs().max() < 0.3
    torch.testing.assert_close(drawn.std(0), encoded.std(0), rtol=0.3, atol=0.05)
    apart = torch.cat([latents_of(model, Noise(0, [i]), prior="gmm") for i in range(5)])
    torch.testing.assert_close(apart, drawn[:5])
    cold = latents_of(model, Noise(0, range(2000)), prior="gmm", temperature=0.1)
    assert cold.var(0).sum() < drawn.var(0).sum()


def clusters(n: int) -> tuple[Tensor, Tensor]:
    """Latents (n, 2) at 4 in one dimension if of class 1, else at -4."""
    labels = torch.arange(n) % 2
    return torch.stack([labels * 8.0 - 4, torch.zeros(n)], 1) + 0.1 * torch.randn(n, 2), labels


def test_a_mixture_finds_clusters() -> None:
    torch.manual_seed(0)
    latents, _ = clusters(400)
    drawn = LatentMixture.fit(latents).sample(Noise(0, range(500)))
    assert (drawn[:, 0].abs() - 4).abs().max() < 1
    assert 0.4 < (drawn[:, 0] > 0).float().mean() < 0.6


def test_a_mixture_for_each_class() -> None:
    torch.manual_seed(0)
    latents, labels = clusters(400)
    mixture = LatentMixture.fit(latents, labels, classes=3)  # of the third there is none
    of = torch.arange(300) % 3
    drawn = mixture.sample(Noise(0, range(300)), labels=of)
    assert (drawn[of == 1, 0] > 3).all()
    assert (drawn[of == 0, 0] < -3).all()
    assert drawn[of == 2, 0].std() > 3  # as all


@pytest.mark.parametrize(("n", "d"), [(2, 3), (30, 200), (600, 300)])
def test_a_mixture_of_few_items_or_many_dimensions(n: int, d: int) -> None:
    torch.manual_seed(0)
    latents = torch.randn(n, 5) @ torch.randn(5, d) + 0.3 * torch.randn(n, d)
    drawn = LatentMixture.fit(latents).sample(Noise(0, range(500)))
    assert drawn.shape == (500, d)
    assert torch.isfinite(drawn).all()
    assert 1 / 3 < (drawn.var(0).sum() / latents.var(0).sum()).item() < 2


def test_curves_of_the_latent_dimensions(defaults: dict[str, Any]) -> None:
    model, batch = build(defaults, network="mlp", likelihood="gaussian"), images(64)
    fit(model, batch, 200, adam(model))
    with torch.no_grad():
        figures = {name: value.item() for name, value in model.examine(batch, None).items()}
        kl = Posterior(*model.encoder(batch.content)).kl().mean(0)
    assert figures["active_units"] == (model.encode(batch).var(0) > 0.01).sum()
    assert figures["kl_dim_max"] == pytest.approx(kl.max().item(), rel=1e-5)
    assert figures["kl_dim_min"] == pytest.approx(kl.min().item(), rel=1e-5)
    assert figures["kl_dim_min"] <= figures["kl_dim_median"] <= figures["kl_dim_max"]


def test_a_collapsed_posterior_is_named(defaults: dict[str, Any]) -> None:
    model = build(defaults, latent=100, kl_warmup=2000)
    healthy = {"main/kl": 20.0, "examine/active_units": 12.0}
    few, none = {"main/kl": 3.0, "examine/active_units": 4.0}, {"main/kl": 0.01}
    model.phases(SETTLED)
    assert not list(model.warnings(none))  # still warming up
    model.phases(2000)
    assert not list(model.warnings(healthy))
    assert not list(model.warnings({}))
    ((name, line),) = model.warnings(few)
    assert name == "posterior collapse"
    assert "4 of 100 latent dimensions" in line
    assert "free_bits" in line
    ((_, line),) = model.warnings(none)
    assert "0.01 nats" in line


def test_an_mlp_that_was_not_named_needs_hidden_units_too(defaults: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"model\.hidden=0"):
        build(defaults, (1, 30, 30), network="auto", hidden=0, latent_side=0)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_learned_prior_is_where_samples_come_from_and_its_bound_holds(
    defaults: dict[str, Any], conditional: bool
) -> None:
    model = build(defaults, classes=CLASSES, conditional=conditional, prior="flow", prior_layers=2, prior_hidden=8)
    data = images(64)
    first = score(model, data)
    curves = fit(model, data, 60, adam(model))
    last, tighter = score(model, data), score(model, data, 16)
    assert last["nelbo"] < first["nelbo"]
    assert tighter["iw_bound"] < last["nelbo"]
    assert curves[-1]["kl"] > 0

    assert model.prior is not None
    posterior = model.posterior(data)
    noise = model.encode(data)
    labels = data.labels if conditional else None
    assert torch.allclose(model.prior.from_noise(noise, labels), posterior.mean, atol=1e-4)
    likely = model.prior.log_prob(posterior.mean, labels).mean()
    assert likely > Posterior(torch.zeros(1), torch.zeros(1)).log_prob(posterior.mean).mean()


def test_a_learned_prior_that_says_nothing_has_the_bound_of_a_standard_normal(defaults: dict[str, Any]) -> None:
    """It begins as N(0, 1): then its KL, of one draw, is on average that of the closed form."""
    plain = build(defaults)
    learned = build(defaults, prior="flow")
    learned.load_state_dict({**learned.state_dict(), **plain.state_dict()})
    data = images(8)
    ratio = learned.log_ratio(data, learned.posterior(data), torch.randn(20_000, 8, 4))
    assert torch.allclose(-ratio.mean(0), plain.posterior(data).kl().sum(1), atol=0.1)


def test_free_bits_of_a_learned_prior_are_of_the_whole_latent(defaults: dict[str, Any]) -> None:
    paid, free = (build(defaults, prior="flow", free_bits=bits) for bits in (0.0, 100.0))
    kl = torch.full((1,), 5.0, requires_grad=True)
    assert paid.paid(kl).item() == pytest.approx(5.0)
    assert free.paid(kl).item() == pytest.approx(100.0 * 4)


def test_the_kl_of_importance_weighted_training_is_that_of_the_learned_prior(defaults: dict[str, Any]) -> None:
    model, data = build(defaults, prior="flow", importance_samples=4), images(64)
    assert model.prior is not None
    near = model("main", data)["kl"].item()
    torch.nn.init.constant_(model.prior.shift, 5.0)  # each of 4 dimensions lies 5 deviations off
    assert model("main", data)["kl"].item() == pytest.approx(near + 4 * 25 / 2, rel=0.2)
