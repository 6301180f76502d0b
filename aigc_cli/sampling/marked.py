"""A mark in all that a run draws: in text where its tokens are chosen, in other content once that is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError
from aigc_cli.modalities.watermarks import Marker, marker
from aigc_cli.models.language_model import LanguageModel
from aigc_cli.nn.watermark import Key
from aigc_cli.sampling.generate import Plan
from aigc_cli.sampling.modes import MODES, modes_of
from aigc_cli.training.restore import Restored


class Watermark:
    """What marks the samples of a run with a key; the model of a text draws with a mark from then on.

    Raises:
        ConfigError: no mark would hold in what the run makes.
    """

    def __init__(self, word: str, restored: Restored) -> None:
        self.key = Key(word)
        self._rate, model = restored.spec.rate or 0, restored.model
        self._marker: Marker | None = None
        if not restored.codec.readable:
            self._marker = marker(restored.spec.modality, restored.spec.raw, self.key, self._rate)
        elif isinstance(model, LanguageModel):
            model.watermark(self.key)
        else:
            raise ConfigError(f"watermark=: {restored.run.name} draws no tokens", "leave watermark= out")

    @property
    def hidden_by_words(self) -> bool:
        """Whether a label for people hides it."""
        return self._marker is not None and self._marker.hidden_by_words

    def of(self, plan: Plan, model: Any, controls: Any) -> Plan:
        """The same samples with the mark; items of the data that stand beside them have none. Refuses a mode in which a
        text is not drawn, but decoded."""
        word = getattr(controls, "mode", None) or next(iter(modes_of(model)), "sample")
        if self._marker is None and word in MODES and "decode" in MODES[word].needs:
            what = f"watermark=: with mode={word} a text is decoded, and not drawn"
            raise ConfigError(what, "leave watermark= out, or use mode=sample")
        if self._marker is None:
            return plan

        def batches(batch_size: int | None) -> Iterator[Tensor]:
            index = 0
            for raw in plan.batches(batch_size):
                yield torch.stack([self._marked(plan, index + place, item) for place, item in enumerate(raw)])
                index += len(raw)

        return replace(plan, batches=batches)

    def _marked(self, plan: Plan, index: int, item: Tensor) -> Tensor:
        assert self._marker is not None
        if not plan.arrangement.generated(index):
            return item
        return torch.from_numpy(self._marker.mark(item.numpy(), self._rate))
