"""A run that starts from a folder of Hugging Face's computes what transformers does, and gives it back tuned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aigc_cli.cli import main
from aigc_cli.config.compose import compose
from aigc_cli.data import open_dataset
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.models.base import build_model
from aigc_cli.nn.lora import train_adapters_only
from aigc_cli.training.hf_start import keys_of_folder, sum_of
from aigc_cli.training.warm_start import warm_start, with_source

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
VOCABULARY = 300
_MODERN = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
           "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 0,
           "pad_token_id": None}  # fmt: skip
#: The class of each architecture, what is unusual of it here, and the model of ours.
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0,
                                 "eos_token_id": 0}, "transformer"),
    "llama": ("LlamaForCausalLM", {**_MODERN, "rms_norm_eps": 1e-5, "rope_theta": 5e5}, "transformer"),
    "mistral": ("MistralForCausalLM", {**_MODERN, "sliding_window": None, "head_dim": 16}, "transformer"),
    "qwen2": ("Qwen2ForCausalLM", {**_MODERN, "tie_word_embeddings": True}, "transformer"),
    "qwen3": ("Qwen3ForCausalLM", {**_MODERN, "head_dim": 16}, "transformer"),
    "eurobert": ("EuroBertForMaskedLM", {**_MODERN, "mask_token_id": 2}, "bert"),
}  # fmt: skip


def folder(kind: str, place: Path, **changes: Any) -> Any:
    """A small model of theirs with random weights that were shaken, saved with a tokenizer of bytes and merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    name, config, _ = KINDS[kind]
    torch.manual_seed(0)
    made = transformers.AutoConfig.for_model(kind, vocab_size=VOCABULARY, **{**config, **changes})
    model = getattr(transformers, name)(made).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(place)
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    special = [AddedToken(f"<|{name}|>", special=True) for name in ("end", "begin", "mask")]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 5, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    library.train_from_iterator(["the red dog sees a naïve cat"] * 9, trainer)
    library.save(str(place / "tokenizer.json"))
    return model


def words(kind: str, place: Path) -> list[str]:
    (place / "text.txt").write_text("the red dog sees a naïve cat <|end|>\n" * 200)
    return [f"model={KINDS[kind][2]}", "data=text", f"data.root={place / 'text.txt'}", "data.context=32", "recipe=null",
            f"model.init_from=hf:{place / 'theirs'}"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    theirs = folder(kind, tmp_path / "theirs")
    config = with_source(compose("train", words(kind, tmp_path)))
    dataset = open_dataset(config["data"], "train")
    model = build_model(config["model"], dataset.spec).eval()
    taken = warm_start(model, dataset.codec, config)
    assert taken is not None
    assert taken.tensors == taken.of_tensors
    tokenizer: Any = dataset.codec.tokenizer  # type: ignore[attr-defined]
    ours = torch.from_numpy(tokenizer.ours.astype("int64"))
    ids = torch.randint(0, VOCABULARY, (3, 31), generator=torch.Generator().manual_seed(0))
    network: Any = getattr(model, model.tokens)  # type: ignore[arg-type]
    with torch.no_grad():
        mine, wanted = network.logits(network.hidden(ours[ids])), theirs(ids).logits
        if kind == "eurobert":  # its mask is a token of the vocabulary, and ours one beyond it
            mine_masked = network.hidden(torch.full((1, 5), model.mask))
            torch.testing.assert_close(network.logits(mine_masked)[..., ours], theirs(torch.full((1, 5), 2)).logits)
    assert (mine[..., ours] - wanted).abs().max() < 1e-5 * max(1, wanted.abs().max())
    text = "the naïve dog's  <|end|> cat\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 2 not in tokenizer.encode(text)  # the end of a text is not what a text spells out


def test_adapters_are_tuned_and_what_leaves_has_them_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder("qwen3", tmp_path / "theirs")
    few = ["trainer.steps=2", "trainer.batch_size=4", "trainer.device=cpu", "trainer.sample_every=null", "run_dir=run"]
    assert main(["train", *words("qwen3", tmp_path), "model.lora.rank=2", "optimizer.lr=0.1", *few]) == 0
    assert main(["export", "run=run", "format=huggingface", "out=tuned"]) == 0
    before, after = (
        transformers.AutoModelForCausalLM.from_pretrained(place).state_dict() for place in ("theirs", "tuned")
    )
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in after if "_proj" in name}
    assert (tmp_path / "theirs/tokenizer.json").read_text() == (tmp_path / "tuned/tokenizer.json").read_text()
    ids = json.loads((tmp_path / "tuned/config.json").read_text())
    assert (ids["bos_token_id"], ids["eos_token_id"], ids["vocab_size"]) == (1, 0, VOCABULARY)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "rope_type=linear"),
        ("mistral", {"sliding_window": 16}, "sliding_window=16"),
        ("llama", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("llama", {"hidden_act": "relu"}, "the activation relu"),
        ("llama", {"model_type": "mixtral"}, "a mixtral model, which is not known here"),
        ("eurobert", {}, "is not a model=transformer"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(kind: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    place = tmp_path / "theirs"
    place.mkdir()
    made = transformers.AutoConfig.for_model(kind, **KINDS[kind][1]).to_dict()
    if "rope_scaling" in changes:
        made["rope_parameters"] = changes["rope_scaling"]
    else:
        made |= changes
    (place / "config.json").write_text(json.dumps(made))
    (place / "model.safetensors").write_bytes(b"")
    line = [word.replace("model=bert", "model=transformer") for word in words(kind, tmp_path)]
    with pytest.raises(ConfigError, match=message):
        with_source(compose("train", line))


def test_pickles_are_not_read_and_a_changed_folder_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "theirs"
    folder("llama", place)
    config = with_source(compose("train", words("llama", tmp_path)))
    config["model"]["init_sha256"] = "0" * 64
    dataset = open_dataset(config["data"], "train")
    model = build_model(config["model"], dataset.spec)
    train_adapters_only(model)
    with pytest.raises(DataError, match="do not match"):
        warm_start(model, dataset.codec, config)
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    with pytest.raises(DataError, match="pickles, which may run any code"):
        with_source(compose("train", words("llama", tmp_path)))


def test_a_key_that_the_folder_says_otherwise_is_refused(tmp_path: Path) -> None:
    folder("llama", tmp_path / "theirs")
    with pytest.raises(ConfigError, match=r"model\.layers=7 beside model\.init_from=hf:theirs, where it is 2"):
        with_source(compose("train", [*words("llama", tmp_path), "model.layers=7"]), {"model.layers"})


def test_a_folder_whose_json_is_not_whole_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(DataError, match=r"not whole.*n_embd"):
        keys_of_folder(tmp_path, "transformer")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(DataError, match=r"not whole.*weight_map"):
        sum_of(tmp_path)
