"""Training on the latents of an autoencoder from the command line: pictures come out, and the run is whole."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.data.open import Splits, encoded, items_at
from aigc_cli.runs import Run, find_run
from aigc_cli.training.tokenizer import with_tokenizer

MAP = ["model=autoencoder", "model.network=conv", "model.latent=3"]
TRAIN = ["train", "data=digits", "data.size=8", "data.latents=latest", "trainer.steps=2", "trainer.samples=4"]
TRAIN += ["trainer.batch_size=16", "recipe=null"]


@pytest.mark.parametrize("tokenizer_run", [MAP], indirect=True)
def test_latents_are_of_unit_variance_and_lead_back_to_items(tokenizer_run: Run) -> None:
    words = ["model=flow", "data=digits", "data.size=8", "data.latents=latest"]
    dataset = Splits.of_config(with_tokenizer(compose("train", words))["data"])["train"]
    assert (dataset.spec.layout, dataset.spec.shape, dataset.spec.raw) == ("map", (3, 4, 4), (1, 8, 8))
    assert dataset.describe()[-1].startswith("latents 3x4x4 by vae-digits/")
    batch = encoded(items_at(dataset, range(len(dataset))), dataset.codec)
    assert torch.allclose(batch.content.mean((0, 2, 3)), torch.zeros(3), atol=0.05)
    assert torch.allclose(batch.content.std((0, 2, 3)), torch.ones(3), atol=0.05)
    model = dataset.codec.model  # type: ignore[attr-defined]
    raw = items_at(dataset, range(4))
    inner = dataset.codec.inner  # type: ignore[attr-defined]
    wanted = inner.decode(model.decode(model.encode(raw.with_content(inner.encode(raw.content)))))
    found = dataset.codec.decode(batch.content[:4])
    assert (found.float() - wanted.float()).abs().max() <= 1
    kept = dataset.kept("cpu")
    assert kept is not None
    assert torch.allclose(kept(torch.arange(5)).content, batch.content[:5], atol=1e-2)


@pytest.mark.parametrize("tokenizer_run", [MAP], indirect=True)
def test_flow_and_gan_learn_latents_and_make_pictures(
    tokenizer_run: Run, small_classifier: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "model=gan", "model.network=mlp", "model.hidden=8"]) == 0
    assert not any(isinstance(part, torch.nn.Tanh) for part in _model().modules())
    assert main([*TRAIN, "model=flow", "model.width=8", "model.max_width=8"]) == 0
    shutil.rmtree(tokenizer_run.path)
    capsys.readouterr()
    assert main(["sample", "n=3", "steps=2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 3
    assert main(["eval", "--metric", "fd,likelihood", "n=20", "steps=2", "--json"]) == 0
    fd, likelihood = json.loads(capsys.readouterr().out)["results"]
    assert list(fd["beside"]) == ["held-out through the tokenizer"]
    assert "bits_per_dim" not in likelihood["figures"]
    path = find_run("latest").path / "tokenizer" / "latents.json"
    path.write_text(path.read_text().replace("mean", "meen"))
    assert main(["sample", "n=2"]) == 3
    assert "latents.json does not match its sum" in capsys.readouterr().err


def _model() -> torch.nn.Module:
    from aigc_cli.training.restore import restore_model

    return restore_model(find_run("latest"), device="cpu").model


def test_what_has_no_latents_and_what_takes_none_is_said(
    tokenizer_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "model=flow"]) == 2
    assert "there is no autoencoder in outputs/ yet\n  train one first: aigc train model=vae" in capsys.readouterr().err
    words = [word for word in TRAIN if not word.startswith("data.latents")]
    assert main([*words, "model=flow", f"data.latents={tokenizer_run.path}"]) == 2
    assert "has no latents that lie in a map to train on" in capsys.readouterr().err
    assert main([*TRAIN, "model=flow", "data.tokens=latest"]) == 2
    assert "two ways to see an item" in capsys.readouterr().err
    assert main([*TRAIN, "-m", "model=flow", "seed=0,1"]) == 2
    assert "data.latents=latest may be another run after every job" in capsys.readouterr().err
