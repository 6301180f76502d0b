"""What `aigc export format=huggingface` writes, transformers loads, and computes and writes the same with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from text_runs import write_pairs
from untrained import restored, text

from aigc_cli.cli import main
from aigc_cli.errors import ConfigError
from aigc_cli.export.huggingface import Folder, folder_of, load
from aigc_cli.models.base import Model, Prompts
from aigc_cli.randomness import Noise
from aigc_cli.sampling.controls import usual_controls
from aigc_cli.training.restore import Restored

pytest.importorskip("transformers", reason="transformers is not installed")
SMALL = ["model.layers=2", "model.heads=2", "model.width=32"]
CLASSIC = ["model.style.norm=layer", "model.style.positions=learned", "model.style.mlp=gelu",
           "model.style.qk_norm=false", "model.style.bias=true"]  # fmt: skip
#: The words of a model by the class that loads it, and the tokenizer of its text.
KINDS = {
    "GPT2LMHeadModel": (["model=transformer", *CLASSIC], "char"),
    "LlamaForCausalLM": (["model=transformer", "model.style.qk_norm=false"], "byte"),
    "Qwen3ForCausalLM": (["model=transformer", "model.style.qk_norm=layer"], "bpe"),
    "AigcForCausalLM": (["model=transformer", "model.style.qk_norm=true"], "char"),
    "EuroBertForMaskedLM": (["model=bert", "model.style.qk_norm=false"], "char"),
    "BlenderbotForConditionalGeneration": (["model=seq2seq", *CLASSIC], "char"),
}


@pytest.fixture(scope="module", params=list(KINDS))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Restored, Path, dict[str, Any]]:
    words, kind = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = write_pairs(folder) if "model=seq2seq" in words else text(folder, "data.tokenizer.vocab_size=300")
        found = restored([*words, *SMALL, *data, f"data.tokenizer.kind={kind}"])
        assert main(["export", "run=run", "format=huggingface", "out=there"]) == 0
    return found, folder / "there", json.loads((folder / "there" / "export.json").read_text())


def test_transformers_loads_it_with_equal_logits(exported: tuple[Restored, Path, dict[str, Any]]) -> None:
    _, _, record = exported
    assert record["class"] in KINDS
    assert record["greatest_difference"] < 1e-5


def test_its_tokenizer_gives_the_same_ids(exported: tuple[Restored, Path, dict[str, Any]]) -> None:
    from transformers import AutoTokenizer

    mine, folder, _ = exported
    theirs = AutoTokenizer.from_pretrained(folder)
    for words in ("the red dog", " sees  3 trees\n", "tree's", "<eos> <|x|>"):
        try:
            wanted = mine.codec.tokens(words)  # type: ignore[attr-defined]
        except ConfigError:  # characters that the vocabulary lacks
            continue
        found = theirs(words)["input_ids"]
        assert found == [*mine.codec.opening, *wanted]  # type: ignore[attr-defined]
        assert theirs.decode(found, skip_special_tokens=True) == words


def test_it_writes_the_same_greedy_tokens(exported: tuple[Restored, Path, dict[str, Any]]) -> None:
    mine, folder, record = exported
    model = mine.model
    if record["class"] == "EuroBertForMaskedLM":
        pytest.skip("it fills gaps")
    source = torch.randint(4, mine.spec.vocab_size, (1, 6), generator=torch.Generator().manual_seed(0))
    count = min(64, record["window"]) - 6
    theirs = load(Folder(json.loads((folder / "config.json").read_text())["model_type"], "", {}, {},
                         "code" * (record["class"] == "AigcForCausalLM")), folder)  # fmt: skip
    if record["class"].startswith("Blenderbot"):
        ends = torch.tensor([[1]]), torch.tensor([[2]])
        wanted = theirs.generate(torch.cat([ends[0], source, ends[1]], 1), max_new_tokens=count, do_sample=False)[0]
    else:
        wanted = theirs.generate(source, max_new_tokens=count, do_sample=False)[0]
    found = greedy(model, source.tolist(), count)[0]
    assert found[: len(wanted)].tolist() == wanted.tolist()


def greedy(model: Model, rows: list[list[int]], count: int) -> torch.Tensor:
    controls = type(model).controls(temperature=0.0, max_tokens=count)
    return model.sample(Noise(0, range(len(rows)), "cpu"), controls, Prompts(rows))


def test_what_no_class_computes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = restored(["model=bert", *SMALL, *text(tmp_path)])
    with pytest.raises(ConfigError, match="no class of transformers") as refused:
        folder_of(found.model)
    assert re.search(r"format=onnx takes it.*qk_norm=false", refused.value.hint)
    assert usual_controls(found.model) is not None
