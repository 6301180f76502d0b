"""Starting from another run's weights: what is taken, by name and by token, what is refused, what is written down."""

from __future__ import annotations

import copy
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_text import ToyText, windows

from aigc_cli.commands.train import run_training, settled
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options
from aigc_cli.data.loader import Loader
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import Codec, DataSpec
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import FIRST, SPECIALS, BPETokenizer, ByteTokenizer, CharTokenizer, Tokenizer
from aigc_cli.models.base import Model, build_model
from aigc_cli.new_run import create_run
from aigc_cli.runs import Run, find_run
from aigc_cli.training.build import check_config
from aigc_cli.training.checkpoint import CheckpointFolder
from aigc_cli.training.restore import restore_model
from aigc_cli.training.settings import Hooks
from aigc_cli.training.trainer import Trainer
from aigc_cli.training.warm_start import warm_start, with_source

SMALL = ["model.width=8", "model.layers=1", "model.heads=2"]
ABC = CharTokenizer("abcdefgh")


composed = functools.cache(lambda *words: compose("train", words))


def text_config(root: Path, name: str = "transformer", *words: str) -> dict[str, Any]:
    return {
        **copy.deepcopy(composed(f"model={name}", "data=text", "recipe=null", *SMALL, *words)),
        "outputs": str(root),
    }


def text_spec(tokenizer: Tokenizer, length: int = 9) -> DataSpec:
    return DataSpec("text", (length,), vocab_size=tokenizer.vocab_size, specials=SPECIALS)


def saved(config: dict[str, Any], spec: DataSpec, codec: Codec, *, averaged: bool = False) -> Model:
    """A run with random weights as its checkpoint of step 3; with `averaged`, an average of twice their size too."""
    torch.manual_seed(7)
    model = build_model(config["model"], spec)
    run = create_run(config)
    run.save_config(config, spec, codec.files())
    tensors = {"model": model.state_dict(), "optimizer": {}}
    if averaged:
        tensors["ema"] = {name: 2 * tensor for name, tensor in model.averaged().state_dict().items()}
    CheckpointFolder(run.checkpoints).save(3, tensors, {"step": 3}, codec.files())
    return model


def started(config: dict[str, Any], spec: DataSpec, codec: Codec) -> tuple[Model, str]:
    torch.manual_seed(0)
    model = build_model(config["model"], spec)
    taken = warm_start(model, codec, with_source(config))
    assert taken is not None
    return model, taken.sentence()


def from_text(root: Path, tokenizer: Tokenizer, *words: str, name: str = "transformer") -> tuple[Model, str]:
    config = text_config(root, name, "model.init_from=latest", "model.init_tokenizer=new", *words)
    return started(config, text_spec(tokenizer), TextCodec(tokenizer))


@pytest.fixture
def source(tmp_path: Path) -> Model:
    return saved(text_config(tmp_path), text_spec(ABC), TextCodec(ABC))


def test_the_same_model_starts_as_the_other_ended(source: Model, tmp_path: Path) -> None:
    model, said = from_text(tmp_path, ABC)
    tokens = windows(3, 8)
    assert torch.equal(
        model.decoder.logits(model.decoder.hidden(tokens)), source.decoder.logits(source.decoder.hidden(tokens))
    )
    assert "12 of 12 vocabulary rows from transformer-text/" in said


def test_without_a_source_nothing_is_taken(tmp_path: Path) -> None:
    config = text_config(tmp_path)
    assert with_source(config) == config
    assert warm_start(build_model(config["model"], text_spec(ABC)), TextCodec(ABC), config) is None


def test_what_items_begin_with_is_not_taken(tmp_path: Path) -> None:
    source = saved(text_config(tmp_path), text_spec(ABC), TextCodec(ABC))
    source.begins.add_(5)
    CheckpointFolder(tmp_path / "latest" / "checkpoints").save(3, {"model": source.state_dict()}, {"step": 3})
    model, _ = from_text(tmp_path, ABC)
    assert not model.begins.any()


@pytest.mark.parametrize(
    ("tokenizer", "shared"),
    [
        (CharTokenizer("cdexyz"), {"c": FIRST, "d": FIRST + 1, "e": FIRST + 2}),
        (ByteTokenizer(), {letter: FIRST + ord(letter) for letter in "abcdefgh"}),
        (BPETokenizer([(FIRST + 97, FIRST + 98)]), {letter: FIRST + ord(letter) for letter in "abcdefgh"}),
    ],
    ids=["char", "byte", "bpe"],
)
def test_rows_go_by_what_tokens_spell(
    source: Model, tmp_path: Path, tokenizer: Tokenizer, shared: dict[str, int]
) -> None:
    torch.manual_seed(0)
    fresh = build_model(text_config(tmp_path)["model"], text_spec(tokenizer)).decoder.embedding.weight
    model, said = from_text(tmp_path, tokenizer)
    rows, other = model.decoder.embedding.weight, source.decoder.embedding.weight
    for letter, token in shared.items():
        assert torch.equal(rows[token], other[FIRST + "abcdefgh".index(letter)])
    assert torch.equal(rows[:FIRST], other[:FIRST])
    new = sorted(set(range(tokenizer.vocab_size)) - set(shared.values()) - set(range(FIRST)))
    assert torch.equal(rows[new], fresh[new])
    assert f"{FIRST + len(shared)} of {tokenizer.vocab_size} vocabulary rows" in said


def test_a_decoder_starts_an_encoder(source: Model, tmp_path: Path) -> None:
    bert, _ = from_text(tmp_path, ABC, name="bert")
    theirs = source.decoder.stack.state_dict()
    for name, tensor in bert.encoder.stack.state_dict().items():  # of scales, one for all heads stands for each
        assert torch.equal(tensor, theirs[name].expand_as(tensor)), name
    assert torch.equal(bert.encoder.embedding.weight[:-1], source.decoder.embedding.weight)
    ahead = windows(1, 8)
    ahead[0, -1] = FIRST + (ahead[0, -1] - FIRST + 1) % 8
    hidden = (bert.encoder.hidden(windows(1, 8)), bert.encoder.hidden(ahead))
    assert not torch.equal(hidden[0][0, 0], hidden[1][0, 0]), "it sees what comes after"


@pytest.mark.parametrize(("first", "then"), [("transformer", "gan"), ("gan", "gan"), ("gan", "transformer")])
def test_the_discriminators_of_a_gan_of_text_are_new(tmp_path: Path, first: str, then: str) -> None:
    source = saved(text_config(tmp_path, first), text_spec(ABC), TextCodec(ABC))
    model, _ = from_text(tmp_path, ABC, name=then)
    theirs = source.decoder.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.decoder.state_dict().items())


def test_a_mask_keeps_its_row_where_the_vocabulary_grows(tmp_path: Path) -> None:
    source = saved(text_config(tmp_path, "bert"), text_spec(ABC), TextCodec(ABC))
    bert, _ = from_text(tmp_path, CharTokenizer("abcdefghij"), name="bert")
    assert torch.equal(bert.encoder.embedding.weight[bert.mask], source.encoder.embedding.weight[source.mask])


@pytest.mark.parametrize("name", ["transformer", "bert"])
def test_a_head_starts_from_the_embedding_it_was_tied_to(tmp_path: Path, name: str) -> None:
    source = saved(text_config(tmp_path, name), text_spec(ABC), TextCodec(ABC))
    model, _ = from_text(tmp_path, ABC, "model.tie_embeddings=false", name=name)
    part = getattr(source, source.tokens)
    assert torch.equal(getattr(model, model.tokens).head.weight, part.embedding.weight[: part.vocab_size])


def test_a_head_is_left_where_there_is_none(tmp_path: Path) -> None:
    source = saved(text_config(tmp_path, "transformer", "model.tie_embeddings=false"), text_spec(ABC), TextCodec(ABC))
    model, _ = from_text(tmp_path, ABC)
    assert torch.equal(model.decoder.embedding.weight, source.decoder.embedding.weight)


@pytest.mark.parametrize(
    ("words", "named", "hint"),
    [
        (["model.width=16"], r"decoder\.embedding\.weight is 12x16 here and 12x8 there", "model.width=8"),
        (["model.layers=2"], r"decoder\.stack\.blocks\.1\S+ is not in that run", "model.layers=1"),
        (["model.style.qk_norm=false"], r"log_scale is in that run, and not in this", "model.style.qk_norm=layer"),
    ],
)
def test_what_does_not_fit_is_named(source: Model, tmp_path: Path, words: list[str], named: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        from_text(tmp_path, ABC, *words)
    assert caught.value.hint == f"make this model like that one: {hint}"


def test_what_no_words_would_make_fit_needs_another_run(source: Model, tmp_path: Path) -> None:
    """An encoder's latents are in no decoder, whatever its size and dropout."""
    with pytest.raises(ConfigError, match="is not in that run") as caught:
        from_text(tmp_path, ABC, "model.dropout=0.3", name="vae_text")
    assert caught.value.hint == "start from a run of model=vae_text"
    with pytest.raises(ConfigError) as caught:
        from_text(tmp_path, ABC, "model.dropout=0.3", "model.width=16", name="bert")
    assert caught.value.hint == "make this model like that one: model.width=8 model.style.qk_norm=layer"


def test_learned_positions_are_of_one_length(tmp_path: Path) -> None:
    learned = "model.style.positions=learned"
    saved(text_config(tmp_path, "transformer", learned, "data.context=12"), text_spec(ABC, 13), TextCodec(ABC))
    with pytest.raises(ConfigError, match=r"positions is 8x8 here and 12x8 there") as caught:
        from_text(tmp_path, ABC, learned, "data.context=8")
    assert caught.value.hint.endswith("data.context=12")


IMAGES = {"gan": ["data.size=8", "model.width=4", "model.latent=4"], "vae": ["data.size=8", "model.width=4"]}


@pytest.mark.parametrize("name", IMAGES)
def test_images_start_from_averaged_weights(tmp_path: Path, name: str) -> None:
    spec = DataSpec("image", (1, 8, 8), tuple("0123456789"))
    config = compose("train", [f"model={name}", "data=digits", *IMAGES[name], f"outputs={tmp_path}"])
    source = saved(config, spec, ImageCodec(), averaged=True)
    model, said = started({**config, "model": {**config["model"], "init_from": "latest"}}, spec, ImageCodec())
    theirs = source.averaged().state_dict()
    assert all(torch.equal(tensor, 2 * theirs[key]) for key, tensor in model.averaged().state_dict().items())
    assert "vocabulary" not in said
    if name == "gan":
        pairs = zip(model.discriminator.parameters(), source.discriminator.parameters(), strict=True)
        assert all(torch.equal(own, other) for own, other in pairs)


def test_another_family_is_refused(source: Model, tmp_path: Path) -> None:
    config = compose(
        "train", ["model=vae", "data=digits", *IMAGES["vae"], f"outputs={tmp_path}", "model.init_from=latest"]
    )
    with pytest.raises(ConfigError, match="is not in that run"):
        started(config, DataSpec("image", (1, 8, 8)), ImageCodec())


def test_a_configuration_says_where_it_started(source: Model, tmp_path: Path) -> None:
    config = with_source(text_config(tmp_path, "transformer", "model.init_from=latest"))
    model = config["model"]
    assert model["init_from"] == str((tmp_path / "latest").resolve())
    assert model["init_step"] == 3
    assert len(model["init_sha256"]) == 64
    saved(text_config(tmp_path), text_spec(ABC), TextCodec(ABC))
    assert settled(config, Options()) == config, "whatever latest is by now"


def test_text_keeps_its_tokenizer_unless_told(source: Model, tmp_path: Path) -> None:
    def tokenizer(*words: str) -> Any:
        return with_source(text_config(tmp_path, "transformer", "model.init_from=latest", *words))["data"]["tokenizer"]

    assert tokenizer()["path"] == str((tmp_path / "latest").resolve())
    assert tokenizer("model.init_tokenizer=new")["path"] is None
    assert tokenizer("data.tokenizer.path=/mine.json")["path"] == "/mine.json"
    typed = text_config(tmp_path, "transformer", "model.init_from=latest", "data.tokenizer.kind=byte")
    assert with_source(typed)["data"]["tokenizer"]["kind"] == "bpe", "nobody typed it"
    with pytest.raises(ConfigError, match=r"kind=byte beside .*latest, whose tokenizer is kept") as caught:
        with_source(typed, {"data.tokenizer.kind"})
    assert "model.init_tokenizer=new" in caught.value.hint


def test_the_hint_about_a_codec_names_a_key_that_there_is(source: Model, tmp_path: Path) -> None:
    config = text_config(tmp_path, "transformer", "model.init_from=latest")
    config["data"]["codec"] = {"kind": "mel", "path": None}
    latest = find_run("latest", tmp_path)
    kept = {**latest.config, "data": {**latest.config["data"], "codec": {"kind": "waveform", "path": None}}}
    (latest.path / "config.yaml").write_text(json.dumps(kept))
    (latest.path / "codec.json").write_text("{}")
    with pytest.raises(ConfigError, match="whose codec is kept") as caught:
        with_source(config, {"data.codec.kind"})
    assert "model.init_tokenizer=new" in caught.value.hint


def test_what_a_path_says_and_somebody_types_too_is_told_to_have_no_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = text_config(tmp_path, "transformer", "data.tokenizer.path=/mine.json", "data.tokenizer.kind=byte")
    with_source(config, {"data.tokenizer.path"})
    assert capsys.readouterr().err == ""
    with_source(config, {"data.tokenizer.path", "data.tokenizer.kind"})
    assert "data.tokenizer.kind= has no effect beside data.tokenizer.path=" in capsys.readouterr().err


def test_another_checkpoint_than_the_one_written_down_is_refused(source: Model, tmp_path: Path) -> None:
    config = with_source(text_config(tmp_path, "transformer", "model.init_from=latest"))
    CheckpointFolder(Path(config["model"]["init_from"]) / "checkpoints").save(
        3, {"model": build_model(config["model"], text_spec(ABC)).state_dict()}, {"step": 3}
    )
    with pytest.raises(DataError, match="init_sha256"):
        warm_start(build_model(config["model"], text_spec(ABC)), TextCodec(ABC), config)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["model.init_from=nowhere"], "there is no run 'nowhere'"),
        (["model.init_from=latest", "model.init_step=4"], "no checkpoint of step 4"),
        (["model.init_step=4"], "init_step and init_sha256 describe the run"),
        (["model.lora.rank=2"], r"lora\.rank=2 trains adapters beside weights"),
        (["model.init_from=latest", "model.lora.rank=9"], r"rank=9 is above width=8, .*: choose at most that"),
    ],
)
def test_wrong_words_are_answered(source: Model, tmp_path: Path, words: list[str], named: str) -> None:
    config = text_config(tmp_path, "transformer", *words)

    def begin() -> None:
        check_config(config)
        with_source(config)

    with pytest.raises(ConfigError, match=named):
        begin()


def test_a_run_goes_on_without_the_one_it_started_from(tiny_run: Run, tiny_config: dict[str, Any]) -> None:
    shorter = {"steps": 1, "batch_size": 4, "device": "cpu", "sample_every": None, "examine_every": None}
    config = {
        **tiny_config,
        "model": {**tiny_config["model"], "init_from": "latest"},
        "trainer": {**tiny_config["trainer"], **shorter},
    }
    started = run_training(config, Options()).run
    assert started.config["model"]["init_from"] == str(tiny_run.path)
    shutil.rmtree(tiny_run.path)
    resumed = run_training(config, Options(resume=started.name, overrides=("trainer.steps=2",)))
    assert resumed.run.step == 2
    with pytest.raises(ConfigError, match="there is no run"):
        run_training(started.config, Options())


# adapters


def adapting(root: Path, steps: int, folder: str) -> Trainer:
    """A trainer of adapters, which starts from the newest run under `root`."""
    words = ["model.init_from=latest", "model.lora.rank=2", f"trainer.steps={steps}", "trainer.batch_size=4"]
    config = with_source(text_config(root, "transformer", *words, "trainer.device=cpu", "optimizer.lr=0.01"))
    dataset = ToyText(windows(16, 9))
    torch.manual_seed(0)
    model = build_model(config["model"], dataset.spec)
    warm_start(model, dataset.codec, config)
    run = Run(root / folder)
    run.path.mkdir(exist_ok=True)
    run.save_config(config, dataset.spec, dataset.codec.files())
    checked = check_config(config)
    loader = Loader(dataset, batch_size=4, seed=0, device="cpu")
    return Trainer(
        model=model, loader=loader, optimizer=checked.optimizer, config=checked.trainer, seed=0, run=run,
        device=torch.device("cpu"),
    )  # fmt: skip


def test_adapters_alone_are_trained(source: Model, tmp_path: Path) -> None:
    trainer = adapting(tmp_path, 3, "adapted")
    trainer.fit(Hooks())
    base = source.state_dict()
    state = trainer.model.state_dict()
    changed = {name for name, tensor in state.items() if name not in base or not torch.equal(tensor, base[name])}
    assert changed - {"begins"} == {name for name in state if "lora_" in name}
    assert all(state[name].any() for name in changed)
    remembered = CheckpointFolder(trainer.run.checkpoints).load(3).tensors["optimizer"]
    assert remembered
    assert all("lora_" in name for name in remembered)


def test_adapters_resume_bit_for_bit(source: Model, tmp_path: Path) -> None:
    whole = adapting(tmp_path, 4, "whole")
    whole.fit(Hooks())
    adapting(tmp_path, 2, "stopped").fit(Hooks())
    resumed = adapting(tmp_path, 4, "stopped")
    assert resumed.restore()
    resumed.fit(Hooks())
    wanted = whole.model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in resumed.model.state_dict().items())


def test_what_is_sampled_has_its_adapters_merged(source: Model, tmp_path: Path) -> None:
    trainer = adapting(tmp_path, 3, "adapted")
    trainer.fit(Hooks())
    restored = restore_model(trainer.run, device="cpu").model
    assert restored.state_dict().keys() == source.state_dict().keys()
    tokens = windows(3, 8)
    trainer.model.eval()
    with torch.no_grad(), trainer.ema.in_place():
        apart, merged = (m.decoder.logits(m.decoder.hidden(tokens)) for m in (trainer.model, restored))
        before = source.decoder.logits(source.decoder.hidden(tokens))
    torch.testing.assert_close(merged, apart, rtol=1e-5, atol=1e-6)
    assert (merged - before).abs().max() > 100 * (merged - apart).abs().max()


def test_adapters_refuse_a_vocabulary_that_they_cannot_learn(source: Model, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 of its 13 rows"):
        from_text(tmp_path, CharTokenizer("abcdefghi"), "model.lora.rank=2")
