"""Data as the codes of a tokenizer: all but what a model sees stays that of the data, and codes are worked out once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from aigc_cli.config.compose import compose
from aigc_cli.data import tokens
from aigc_cli.data.loader import Loader
from aigc_cli.data.open import Splits, encoded, items_at, open_dataset
from aigc_cli.data.tokens import TokenDataset
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.base import DataSpec
from aigc_cli.modalities.token_codec import TokenCodec
from aigc_cli.runs import Run
from aigc_cli.training.tokenizer import with_tokenizer

WORDS = ["model=transformer", "data=digits", "data.size=8", "data.tokens=latest"]


def seen(*words: str) -> tuple[dict[str, Any], Splits]:
    """The `data` section of a run on codes, and its splits."""
    data = with_tokenizer(compose("train", [*WORDS, *words]))["data"]
    return data, Splits.of_config(data)


def batches(dataset: Any, count: int = 3, **options: Any) -> list[torch.Tensor]:
    loader = Loader(dataset, batch_size=50, seed=0, device="cpu", **options)
    return [loader.batch(k).content for k in range(count)]


def test_all_but_what_a_model_sees_stays_that_of_the_data(tokenizer_run: Run) -> None:
    data, splits = seen()
    plain = Splits.of_config(
        {key: value for key, value in data.items() if key not in ("tokens", "tokens_sha256", "views")}
    )
    for split in ("train", "val", "test"):
        ours, theirs = splits[split], plain[split]
        assert ours.plain.spec == theirs.spec
        assert torch.equal(items_at(ours, range(20)).content, items_at(theirs, range(20)).content)
        assert (ours.spec.fingerprint, ours.spec.classes) == (theirs.spec.fingerprint, theirs.spec.classes)
    spec = splits["train"].spec
    assert (spec.modality, spec.layout, spec.shape, spec.vocab_size) == ("image", "codes", (4,), 16)
    assert spec.raw == spec.content == (1, 8, 8)
    assert spec.grid == (2, 2)
    assert "tokens 2x2 of 16 by vqvae-digits/" in splits["train"].describe()[-1]


def test_what_is_trained_on_is_what_the_codec_gives(tokenizer_run: Run) -> None:
    _, splits = seen()
    dataset = splits["train"]
    kept, anew = batches(dataset), batches(seen("data.views=0")[1]["train"])
    assert all(map(torch.equal, kept, anew))
    assert kept[0].dtype == torch.int64
    assert len(torch.cat(kept).unique()) > 4
    whole = items_at(dataset, range(30))
    codes = encoded(whole, dataset.codec).content
    assert codes.shape == (30, 4)
    assert dataset.codec.decode(codes).shape == whole.content.shape


def test_codes_are_worked_out_once_and_again_where_anything_differs(
    tokenizer_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("AIGC_CACHE", str(tmp_path / "cache"))
    first = batches(seen()[1]["train"])
    assert "encoding 1,258 items as tokens 2x2 of 16" in capsys.readouterr().err
    assert all(map(torch.equal, first, batches(seen()[1]["train"])))
    assert "encoding" not in capsys.readouterr().err
    batches(seen("data.views=3")[1]["train"])
    assert "3 views of each" in capsys.readouterr().err
    for path in (tmp_path / "cache" / "codes").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\7")
    assert all(map(torch.equal, first, batches(seen()[1]["train"])))
    assert "encoding" in capsys.readouterr().err


def test_views_are_drawn_by_each_items_own_draw(tokenizer_run: Run) -> None:
    _, splits = seen("data.augment=[shift]", "data.views=4")
    dataset = splits["train"]
    assert isinstance(dataset, TokenDataset)
    assert seen("data.augment=[shift]")[1]["train"].views == tokens._MOST  # type: ignore[attr-defined]
    assert seen()[1]["train"].views == 1  # type: ignore[attr-defined]
    whole = Loader(dataset, batch_size=100, seed=0, device="cpu").batch(0).content
    halves = Loader(dataset, batch_size=50, seed=0, device="cpu")
    assert torch.equal(whole, torch.cat([halves.batch(k).content for k in range(2)]))
    plain = batches(dataset, augment=False)
    assert all(map(torch.equal, plain, batches(seen()[1]["train"], augment=False)))
    shares = [float((a == b).all(1).float().mean()) for a, b in zip(batches(dataset), plain, strict=True)]
    assert max(shares) < 0.9


def test_a_tokenizer_of_other_content_is_refused(tokenizer_run: Run) -> None:
    with pytest.raises(
        ConfigError, match=r"the data is image of 1x16x16, and the tokenizer of .* is for image of 1x8x8"
    ):
        seen("data.size=16")[1]["train"]


def test_a_tokenizer_that_is_gone_is_named(tokenizer_run: Run) -> None:
    data, _ = seen()
    with pytest.raises(DataError, match=r"the tokenizer of .* is gone"):
        Splits.of_config({**data, "tokens_sha256": "0" * 64})["train"]


class _Loudest:
    """Codes of a clip: where each quarter of it begins, by a ramp."""

    grid, codebooks, codes, sha256, named = (1, 4), 1, 2**15, "ramp", {"run": "r", "step": 1}
    specials = ()

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    seen = TokenCodec.seen

    def encode(self, content: torch.Tensor) -> torch.Tensor:
        return content[:, 0, :: content.shape[2] // 4].long()


def test_views_of_a_long_file_start_at_random_and_all_of_it_is_seen(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "ramp.wav", np.arange(9000, dtype=np.int16), 8000)
    for number in range(20):  # before it, by name, and shorter than a clip
        soundfile.write(tmp_path / f"{number}.wav", np.arange(2000 + number, dtype=np.int16), 8000)
    words = ("data=audio_folder", f"data.root={tmp_path}", "data.sample_rate=8000", "data.seconds=0.5")
    data = compose("train", [*words, "data.normalize=none", "data.val_fraction=0", "data.test_fraction=0"])["data"]
    inner = open_dataset(data, "train")
    seen = TokenDataset(inner, _Loudest(inner.spec), "train", data)  # type: ignore[arg-type]
    assert (len(seen), seen.views) == (22, tokens._MOST)
    starts = seen._codes("cpu")[20:, :, 0].long() + 4500  # the constant part is out
    assert (starts[0] < 2500).all()
    assert (starts[1] >= 2400).all()
    assert starts.max() > 4400, "the end of the file, which no clip in order has, is seen too"
    assert len(set(starts.flatten().tolist())) == 16


def test_a_tokenizer_of_sound_of_another_loudness_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "ramp.wav", np.arange(9000, dtype=np.int16), 8000)
    words = ("data=audio_folder", f"data.root={tmp_path}", "data.sample_rate=8000", "data.normalize=rms")
    data = compose("train", [*words, "data.val_fraction=0", "data.test_fraction=0"])["data"]
    inner = open_dataset(data, "train")
    for level in (None, "rms"):
        TokenDataset(inner, _Loudest(replace(inner.spec, level=level)), "train", data)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="normalize=rms, and the tokenizer of r knows peak") as caught:
        TokenDataset(inner, _Loudest(replace(inner.spec, level="peak")), "train", data)  # type: ignore[arg-type]
    assert "data.normalize=peak" in caught.value.hint


def test_views_need_a_tokenizer() -> None:
    with pytest.raises(ValueError, match=r"add data\.tokens=RUN"):
        tokens.CodesConfig(views=2)


def test_a_codec_of_the_same_tokenizer_has_the_same_codes(tokenizer_run: Run) -> None:
    first, second = seen()[1]["train"].codec, seen()[1]["val"].codec
    assert isinstance(first, TokenCodec)
    assert first.transfer(second) == [(code, code) for code in range(16)]
    second.named = {**second.named, "sha256": "another"}  # type: ignore[attr-defined]
    assert first.transfer(second) == []


def test_codes_of_what_lies_along_time_are_in_the_order_of_time(tokenizer_run: Run) -> None:
    codec = seen()[1]["train"].codec
    assert isinstance(codec, TokenCodec)
    content = items_at(seen()[1]["train"], range(9)).content
    codes, made = codec.encode(content), codec.decode(codec.encode(content))
    codec.spec = replace(codec.spec, rate=8000)
    assert codec.encode(content).tolist() == codes[:, [0, 2, 1, 3]].tolist()
    assert torch.equal(codec.decode(codec.encode(content)), made)


def test_times_of_a_clip_come_first_as_they_are(tokenizer_run: Run) -> None:
    codec = seen()[1]["train"].codec
    assert isinstance(codec, TokenCodec)
    codec.spec, codec.model.token_grid = replace(codec.spec, rate=8), (1, 2, 2)
    assert codec.grid == (1, 2, 2)
    codes = torch.arange(4)[None]
    assert torch.equal(codec._turned(codes, 1), codes)


def test_of_two_views_of_what_may_be_mirrored_one_is(tokenizer_run: Run) -> None:
    dataset = seen("data.flip=true", "data.views=2")[1]["train"]
    assert isinstance(dataset, TokenDataset)
    views = dataset._codes("cpu")[:50].long()
    content = items_at(dataset, range(50)).content
    assert torch.equal(views[:, 0], dataset.codec.encode(content.flip(-1)))
    assert torch.equal(views[:, 1], dataset.codec.encode(content))
