"""A tokenizer that is taken out of a run: which run is meant, and that nothing but its model is taken on trust."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from aigc_cli.config.compose import compose
from aigc_cli.data.tokens import tokenizers_folder
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.token_codec import open_tokenizer
from aigc_cli.runs import Run
from aigc_cli.training.tokenizer import with_tokenizer


def named(word: str) -> dict[str, Any]:
    data: dict[str, Any] = with_tokenizer(
        compose("train", ["model=transformer", "data=digits", "data.size=8", f"data.tokens={word}"])
    )["data"]
    return data


def test_a_run_is_found_by_latest_its_name_and_its_folder(tokenizer_run: Run, tmp_path: Any) -> None:
    found = named("latest")
    assert found["tokens"] == str(tokenizer_run.path)
    assert named(tokenizer_run.name) == named(str(tokenizer_run.path)) == found
    copy = tmp_path / "copy"
    shutil.copytree(tokenizers_folder() / found["tokens_sha256"], copy)
    assert named(str(copy)) == {**found, "tokens": str(copy)}


def test_latest_is_the_latest_with_codes(tokenizer_run: Run, tiny_config: dict[str, Any]) -> None:
    found = named("latest")
    from aigc_cli.new_run import create_run

    create_run(tiny_config).save_config(tiny_config, tokenizer_run.spec)
    assert named("latest") == found


def test_a_run_without_codes_is_refused(tiny_run: Run) -> None:
    with pytest.raises(ConfigError, match=r"model=gan of gan-digits/.* has no codes"):
        named(tiny_run.name)
    with pytest.raises(ConfigError, match="there is no tokenizer in outputs/ yet"):
        named("latest")


@pytest.mark.parametrize("file", ["model.safetensors", "config.yaml", "data.json", "manifest.json"])
def test_a_file_that_was_changed_is_not_used(tokenizer_run: Run, tmp_path: Any, file: str) -> None:
    sum_ = named("latest")["tokens_sha256"]
    copy = tmp_path / "copy"
    shutil.copytree(tokenizers_folder() / sum_, copy)
    assert open_tokenizer(copy, sum_).codes == 16
    content = (copy / file).read_bytes()
    (copy / file).write_bytes(content + b" ")
    with pytest.raises(DataError, match=f"{file} does not match its sum"):
        open_tokenizer(copy, sum_)
    (copy / file).unlink()
    with pytest.raises(DataError, match=f"{file} is missing"):
        open_tokenizer(copy, sum_)


def test_a_manifest_that_names_files_elsewhere_is_not_used(tokenizer_run: Run, tmp_path: Any) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tokenizers_folder() / named("latest")["tokens_sha256"], copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "../outside": "0"}))
    with pytest.raises(DataError, match="cannot be trusted"):
        open_tokenizer(copy)


def test_another_sum_than_the_configurations_is_refused(tokenizer_run: Run) -> None:
    config = compose(
        "train", ["model=transformer", "data=digits", "data.tokens=latest", f"data.tokens_sha256={'0' * 64}"]
    )
    with pytest.raises(DataError, match=r"does not match data\.tokens_sha256"):
        with_tokenizer(config)


def test_a_cache_that_was_cleaned_in_part_is_filled_anew(tokenizer_run: Run) -> None:
    found = named("latest")
    kept = tokenizers_folder() / found["tokens_sha256"]
    for file in ("model.safetensors", "manifest.json"):
        (kept / file).unlink()
        assert named("latest") == found
        assert open_tokenizer(kept, found["tokens_sha256"]).codes == 16
    (kept / "data.json").unlink()
    assert with_tokenizer({"data": found, "outputs": "outputs"})["data"] == found
    assert (kept / "data.json").is_file()
