"""Takes the tokenizer out of a trained run, for other runs to train on its codes, ``data.tokens=RUN``; or an
autoencoder, for these to train on its latents, ``data.latents=RUN``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from aigc_cli.data.open import Splits, chosen_rows, items_at
from aigc_cli.data.tokens import KMEANS, tokenizers_folder
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import path_of, write_json
from aigc_cli.modalities.base import Batch
from aigc_cli.modalities.token_codec import MANIFEST, SCALE, WEIGHTS, has_latents, is_tokenizer, is_whole
from aigc_cli.registry import find
from aigc_cli.runs import Run, find_run, list_runs, open_run
from aigc_cli.training.kmeans import fitted
from aigc_cli.training.restore import Restored, restore_model
from aigc_cli.training.tokenizer_folder import placed, write_tokenizer

_SCALED, _TOGETHER = 2048, 256  # items that the scale of latents is of; and that are encoded at a time
_LEAST = 1e-3  # deviation of a channel, if none is in use
_CALLED = {"tokens": "codes", "latents": "latents that lie in a map"}


def with_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that names the run of its tokenizer, or of its autoencoder, as any folder will find it, and the
    sum of what it takes from there, which is put where :func:`aigc_cli.data.tokens.tokenizer_of` finds it.

    Raises:
        ConfigError: there is no such run, or its model has no codes, or no latents.
        DataError: its checkpoint is broken, or gives another tokenizer than the configuration has the sum of; or the
            data of an autoencoder cannot be read.
    """
    key = "tokens" if config["data"].get("tokens") is not None else "latents"
    word, wanted = config["data"].get(key), config["data"].get("tokens_sha256")
    if word is None or (wanted is not None and is_whole(tokenizers_folder() / str(wanted), str(wanted))):
        return config
    if (key, word) == ("tokens", KMEANS):
        found = fitted(config["data"])
    else:
        run = _run_of(str(word), config, key)
        found, word = taken_out(run), str(run.path.absolute())
    if wanted not in (None, found):
        what = f"the tokenizer of {word} does not match data.tokens_sha256"
        raise DataError(what, "leave that out to train on the codes of the tokenizer as it is now")
    return {**config, "data": {**config["data"], key: word, "tokens_sha256": found}}


def _run_of(word: str, config: Mapping[str, Any], key: str) -> Run:
    root, family = Path(config["outputs"]), "vqvae" if key == "tokens" else "vae"
    if word == "latest":  # of the runs that have them: a run on the codes of another may be newer
        able = [run for run in reversed(list_runs(root)) if run.has_checkpoint and _has(key, run)]
        own = [run for run in able if run.config["data"]["name"] == config["data"]["name"]]
        if not able:
            what = "tokenizer" if key == "tokens" else "autoencoder"
            raise ConfigError(f"there is no {what} in {root}/ yet", f"train one first: aigc train model={family}")
        return (own or able)[0]
    path = path_of(word)
    run = open_run(path) if (path / MANIFEST).is_file() and (path / WEIGHTS).is_file() else find_run(word, root)
    if not _has(key, run):
        what = f"model={run.config['model']['name']} of {run.name} has no {_CALLED[key]} to train on"
        raise ConfigError(what, f"name a run of model={family} with data.{key}=, or latest")
    if key == "latents" and run.config["model"].get("conditional"):
        what = f"{run.name} is told classes, which its latents then leave out"
        raise ConfigError(what, "train an autoencoder with model.conditional=false")
    return run


def _has(key: str, run: Run) -> bool:
    """Whether a run has what ``data.tokens=``, or ``data.latents=``, takes from it."""
    able = is_tokenizer if key == "tokens" else has_latents
    try:
        return able(find("model", run.config["model"]["name"]).build)
    except (ConfigError, DataError):  # of a plugin that is not named here, or broken
        return False


def taken_out(run: Run) -> str:
    """Puts the tokenizer of a run where new runs find it; the SHA-256 of its manifest."""
    if (run.path / MANIFEST).is_file():  # the folder of a tokenizer, such as another run's copy
        return placed(run.path.name, lambda folder: shutil.copytree(run.path, folder, dirs_exist_ok=True))
    return placed(run.path.name, lambda folder: _write(run, folder))


def _scale(run: Run, restored: Restored) -> dict[str, list[float]]:
    """The mean and the deviation of each channel of an autoencoder's latents, over some of what it was trained on."""
    train, model = Splits.of_run(run)["train"], restored.model
    shape: tuple[int, ...] = model.latent_shape  # type: ignore[assignment]
    content = items_at(train, sorted(chosen_rows(train, "latents")[:_SCALED])).content
    with torch.no_grad():
        found = torch.cat(
            [model.encode(Batch(restored.codec.encode(part))) for part in torch.split(content, _TOGETHER)]
        )
    latents = found.double().view(-1, shape[0])
    return {"mean": latents.mean(0).tolist(), "deviation": latents.std(0).clamp_min(_LEAST).tolist()}


def _write(run: Run, folder: Path) -> None:
    restored = restore_model(run, device="cpu")
    model = {key: value for key, value in run.config["model"].items() if not key.startswith("init_")}
    data = {"name": run.config["data"]["name"]}
    if not is_tokenizer(restored.model):
        write_json(folder / SCALE, _scale(run, restored))
    about = {"model": model, "data": data, "run": run.name, "step": restored.step}
    write_tokenizer(folder, about, run.spec, restored.codec, restored.model)
