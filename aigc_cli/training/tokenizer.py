"""Takes the tokenizer out of a trained run, for other runs to train on its codes: ``data.tokens=RUN``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aigc_cli.data.tokens import KMEANS, tokenizers_folder
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import path_of
from aigc_cli.modalities.token_codec import MANIFEST, WEIGHTS, is_tokenizer, is_whole
from aigc_cli.registry import find
from aigc_cli.runs import Run, find_run, list_runs, open_run
from aigc_cli.training.kmeans import fitted
from aigc_cli.training.restore import restore_model
from aigc_cli.training.tokenizer_folder import placed, write_tokenizer


def with_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that names the run of its tokenizer as any folder will find it, and the sum of what it takes
    from there, which is put where :func:`aigc_cli.data.tokens.tokenizer_of` finds it.

    Raises:
        ConfigError: there is no such run, or its model has no codes.
        DataError: its checkpoint is broken, or gives another tokenizer than the configuration has the sum of.
    """
    word, wanted = config["data"].get("tokens"), config["data"].get("tokens_sha256")
    if word is None or (wanted is not None and is_whole(tokenizers_folder() / str(wanted), str(wanted))):
        return config
    if word == KMEANS:
        found = fitted(config["data"])
    else:
        run = _run_of(str(word), config)
        found, word = taken_out(run), str(run.path.absolute())
    if wanted not in (None, found):
        what = f"the tokenizer of {word} does not match data.tokens_sha256"
        raise DataError(what, "leave that out to train on the codes of the tokenizer as it is now")
    return {**config, "data": {**config["data"], "tokens": word, "tokens_sha256": found}}


def _run_of(word: str, config: Mapping[str, Any]) -> Run:
    root = Path(config["outputs"])
    if word == "latest":  # of the runs that have codes: a run on the codes of another may be newer
        able = [run for run in reversed(list_runs(root)) if run.has_checkpoint and _has_codes(run)]
        own = [run for run in able if run.config["data"]["name"] == config["data"]["name"]]
        if not able:
            raise ConfigError(f"there is no tokenizer in {root}/ yet", "train one first: aigc train model=vqvae")
        return (own or able)[0]
    path = path_of(word)
    run = open_run(path) if (path / MANIFEST).is_file() and (path / WEIGHTS).is_file() else find_run(word, root)
    if not _has_codes(run):
        what = f"model={run.config['model']['name']} of {run.name} has no codes to train on"
        raise ConfigError(what, "name a run of model=vqvae with data.tokens=, or latest")
    return run


def _has_codes(run: Run) -> bool:
    try:
        return is_tokenizer(find("model", run.config["model"]["name"]).build)
    except (ConfigError, DataError):  # of a plugin that is not named here, or broken
        return False


def taken_out(run: Run) -> str:
    """Puts the tokenizer of a run where new runs find it; the SHA-256 of its manifest."""
    if (run.path / MANIFEST).is_file():  # the folder of a tokenizer, such as another run's copy
        return placed(run.path.name, lambda folder: shutil.copytree(run.path, folder, dirs_exist_ok=True))
    return placed(run.path.name, lambda folder: _write(run, folder))


def _write(run: Run, folder: Path) -> None:
    restored = restore_model(run, device="cpu")
    model = {key: value for key, value in run.config["model"].items() if not key.startswith("init_")}
    data = {"name": run.config["data"]["name"]}
    about = {"model": model, "data": data, "run": run.name, "step": restored.step}
    write_tokenizer(folder, about, run.spec, restored.codec, restored.model)
