"""The script beside an exported model hears what the codec of its run does, with numpy alone."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from aigc_cli.export.way_back import SOUND
from aigc_cli.modalities.audio_codecs import MelCodec, SpectrogramCodec


@pytest.mark.parametrize("kind", [MelCodec, partial(MelCodec, depth=80), SpectrogramCodec])
def test_numpy_goes_the_way_back_from_spectrograms_to_sound(kind: Any) -> None:
    clips = (torch.sin(torch.arange(2048) * 0.3) * 9000 + torch.randn(2, 1, 2048) * 500).to(torch.int16)
    codec = kind(8000, 1, 2048, 64, 64)
    codec.fit([clips])
    encoded = codec.encode(clips)

    class Draws:  # the phases that the codec begins with
        def random(self, size: tuple[int, ...]) -> np.ndarray:
            return codec._phase[0].angle().numpy() / (2 * math.pi)

    scope = {"np": np, "draws": Draws(), "ABOUT": {"sound": json.loads(codec.files()["codec.json"])}}
    exec(SOUND, scope)
    found, wanted = scope["heard"](encoded.numpy()), codec.decode(encoded).numpy()  # type: ignore[operator]
    assert found.dtype == np.int16
    assert np.abs(found.astype(int) - wanted).max() < 100
