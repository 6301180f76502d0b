"""Reconstructions of texts, and walks between them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from draws import latents_of
from torch import Tensor
from toy_text import TOKENIZER, ToyText, documents

from aigc_cli.config.compose import compose
from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.prompts import Prompt
from aigc_cli.modalities.text import TextCodec
from aigc_cli.modalities.tokenizers import BOS, EOS, FIRST, BPETokenizer
from aigc_cli.models.latent import slerp
from aigc_cli.models.vae.text import TextVAE, TextVAEConfig
from aigc_cli.randomness import Noise
from aigc_cli.sampling.controls import usual_controls
from aigc_cli.sampling.generate import Plan, Request
from aigc_cli.sampling.modes import plan
from aigc_cli.sampling.prompts import beginnings

HELD_OUT = ToyText(documents(20, 12, seed=3))
CODEC = TextCodec(TOKENIZER, BOS)
SMALL = {"layers": 1, "decoder_layers": 1, "heads": 2, "width": 16, "latent": 4, "memory": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def model() -> TextVAE:
    """Random weights that are large enough for every latent to have a text of its own."""
    defaults = compose("train", ["model=vae", "data=text"])["model"]
    torch.manual_seed(0)
    made = TextVAE(check("model", TextVAEConfig, {**defaults, **SMALL, "tie_embeddings": False}), HELD_OUT.spec)
    for parameter in made.parameters():
        parameter.data += torch.randn_like(parameter)
    return made.eval()


def asked(model: TextVAE, mode: str, *prompts: str, n: int | None = None, **controls: Any) -> Plan:
    request = Request(
        model=model, codec=CODEC, controls=replace(usual_controls(model, mode), **controls), n=n, seed=1,
        device=torch.device("cpu"), train=lambda: HELD_OUT, held_out=lambda: ("test", HELD_OUT), usual=8,
        prompts=[Prompt(text, f"prompt {place}") for place, text in enumerate(prompts)],
    )  # fmt: skip
    return plan(request)


def texts(drawn: Plan, batch_size: int | None = None) -> list[str]:
    return [text for rows in drawn.batches(batch_size) for text in CODEC.text(rows)]


def encoded(model: TextVAE, text: str) -> Tensor:
    with torch.no_grad():
        return model.encode(Batch(torch.tensor([[BOS, *TOKENIZER.encode(text).tolist(), EOS]])))


def remade(model: TextVAE, text: str) -> str:
    """What the model makes of a text."""
    return CODEC.text(model.decode(encoded(model, text)))[0]


def test_held_out_texts_stand_beside_their_reconstructions(model: TextVAE) -> None:
    drawn = asked(model, "reconstruct", n=5)
    originals = drawn.arrangement.facts["original"]
    whole = CODEC.text(HELD_OUT.batch.content)
    assert [whole[item] for item in drawn.arrangement.facts["item"]] == originals
    assert texts(drawn) == [remade(model, text) for text in originals]
    assert drawn.source["split"] == "test"
    assert drawn.arrangement.described() == "5 items of the test split and their reconstructions"


def test_prompts_are_reconstructed(model: TextVAE) -> None:
    drawn = asked(model, "reconstruct", "abc", "hgfed")
    assert drawn.arrangement.facts["original"] == ["abc", "hgfed"]
    assert texts(drawn) == [remade(model, "abc"), remade(model, "hgfed")]


@pytest.mark.parametrize("way", ["to", "file"])
def test_a_walk_goes_from_text_to_text(model: TextVAE, way: str) -> None:
    path = ["abcd", "hhhhhhh", "b"] if way == "file" else ["abcd", "hhhhhhh"]
    drawn = asked(model, "interpolate", *(path if way == "file" else path[:1]), frames=5,
                  **({} if way == "file" else {"to": path[1]}))  # fmt: skip
    made = texts(drawn)
    assert len(made) == drawn.arrangement.n == 5 * (len(path) - 1)
    for walk, (start, end) in enumerate(pairwise(path)):
        between = slerp(encoded(model, start), encoded(model, end), torch.linspace(0, 1, 5))[0]
        assert made[5 * walk : 5 * walk + 5] == CODEC.text(model.decode(between))
        assert (made[5 * walk], made[5 * walk + 4]) == (remade(model, start), remade(model, end))
    assert drawn.arrangement.facts["from"][:5] == ["abcd"] * 5
    assert drawn.arrangement.facts["to"][-1] == path[-1]


def test_without_prompts_a_walk_goes_from_draw_to_draw(model: TextVAE) -> None:
    few, many = (texts(asked(model, "interpolate", n=n, frames=4)) for n in (2, 3))
    assert len(many) == 12
    assert many[:8] == few
    assert texts(asked(model, "interpolate", n=3, frames=4), batch_size=5) == many
    assert texts(asked(model, "interpolate", n=3, frames=4, latent_temperature=0.1)) != many
    alone = asked(model, "sample", n=2, temperature=0.0)
    assert [few[0], few[3]] == texts(alone)  # samples 0 and 1


def test_a_latent_is_moved_along_a_row_of_texts(model: TextVAE) -> None:
    drawn = asked(model, "traverse", n=2, frames=3)
    moved = latents_of(model, Noise(1, [0]))[0].repeat(2, 3, 1)
    for row, dimension in enumerate(drawn.arrangement.facts["dimension"][::3]):
        moved[row, :, dimension] = torch.tensor([-3.0, 0.0, 3.0])
    with torch.no_grad():
        assert texts(drawn) == CODEC.text(model.decode(moved.flatten(0, 1)))
    assert drawn.arrangement.facts["value"] == [-3.0, 0.0, 3.0] * 2


def test_the_last_token_of_a_prompt_is_left_open_where_others_begin_as_it_does(model: TextVAE) -> None:
    space, a, b = (FIRST + ord(letter) for letter in " ab")
    codec = TextCodec(BPETokenizer([(space, a), (FIRST + 256, b)]), EOS)  # which has tokens for " a" and " ab"

    def begun(text: str) -> Any:
        request = Request(
            model=model, codec=codec, controls=usual_controls(model), n=1, seed=0, device=torch.device("cpu"), usual=8,
            train=lambda: HELD_OUT, held_out=lambda: ("test", HELD_OUT), prompts=[Prompt(text, "prompt=")],
        )  # fmt: skip
        return beginnings(request)

    assert begun("a ")[:2] == ([[a]], [[space, FIRST + 256, FIRST + 257]])
    assert begun("a a")[:2] == ([[a]], [[FIRST + 256, FIRST + 257]])
    assert begun("a ab")[:2] == ([[a, FIRST + 257]], [[]])
    assert begun(" ")[:2] == ([[space]], [[]])  # a text begins with a token


@pytest.mark.parametrize(
    ("mode", "prompts", "ignored"),
    [
        ("interpolate", [], {"temperature": 0.5, "top_k": 3, "max_tokens": 2, "repetition_penalty": 2.0}),
        ("interpolate", ["ab", "cd"], {"latent_temperature": 0.5, "top_p": 0.5, "n": 3}),
        ("reconstruct", ["ab"], {"temperature": 0.5, "n": 3}),
        ("reconstruct", [], {"min_p": 0.5, "frames": 3}),
        ("sample", [], {"frames": 3, "to": "ab"}),
    ],
)
def test_words_that_change_nothing_are_told_of(
    model: TextVAE, mode: str, prompts: list[str], ignored: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    heard = {"frames": 2} if mode == "interpolate" else {}
    plain = texts(asked(model, mode, *prompts, **heard))
    assert capsys.readouterr().err == ""
    assert texts(asked(model, mode, *prompts, **heard, **ignored)) == plain
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == len(ignored)
    for word in ignored:
        assert any(line.startswith(f"aigc: warning: {word}= has no effect ") for line in warned)


@pytest.mark.parametrize(
    ("mode", "prompts", "to", "complaint", "hint"),
    [
        ("interpolate", ["abc"], None, "walks between texts, and prompt 0 is one", "give to= too"),
        ("interpolate", [], "abc", "walks between texts, and to= is one", "give prompt= too"),
        ("interpolate", ["abc"], "", "to= is empty", ""),
        ("interpolate", ["abc"], "x", "to=: ", ""),
        ("reconstruct", ["abcdefghabc"], None, "13 tokens, its ends included, and this model reads 12", ""),
    ],
)
def test_what_cannot_be_encoded(
    model: TextVAE, mode: str, prompts: list[str], to: str | None, complaint: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        asked(model, mode, *prompts, to=to)
    assert complaint in error.value.message
    assert hint in error.value.hint


@pytest.mark.parametrize("word", ["7", "a, b", "null and void"])
def test_where_a_walk_ends_is_text_whatever_it_looks_like(word: str) -> None:
    assert compose("sample", [f"to={word}"])["controls"] == {"to": word}


def test_padding_is_no_part_of_a_text(model: TextVAE) -> None:
    long = asked(model, "reconstruct", "ab", "abcdefgh")
    assert texts(long)[0] == texts(asked(model, "reconstruct", "ab"))[0] == remade(model, "ab")


@pytest.mark.parametrize(("source", "keys"), [(None, "data.root="), (HELD_OUT.spec, "data.source= and data.target=,")])
def test_data_that_is_not_at_hand_may_be_named_or_done_without(
    model: TextVAE, monkeypatch: pytest.MonkeyPatch, source: DataSpec | None, keys: str
) -> None:
    def gone() -> Any:
        raise DataError("there is nothing at pairs", "check the path")

    monkeypatch.setattr(model, "spec", replace(model.spec, source=source))
    request = Request(
        model=model, codec=CODEC, controls=usual_controls(model, "reconstruct"), n=None, seed=1, usual=8,
        device=torch.device("cpu"), train=gone, held_out=gone,
    )  # fmt: skip
    with pytest.raises(DataError, match="there is nothing at pairs") as caught:
        plan(request)
    said = caught.value.hint
    assert said.startswith("check the path; or say with data.root=")
    assert keys in said
    assert said.endswith("where the data is now; or give prompt= in its place")
