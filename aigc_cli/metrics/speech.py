"""How speech sounds to a network that was trained on people's judgements: ``dnsmos``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes, joined, require
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.modalities.audio_config import FULL, lengths
from aigc_cli.registry import register

#: That the network takes: what is shorter is repeated, as its authors do, and of what is longer the rest is not judged.
_RATE, _SECONDS = 16_000, 9.01
_FILE = Path("dnsmos_models", "sig_bak_ovr.onnx")
#: The network's outputs on the scale of the judgements (its authors' polynomials): signal, background, overall.
_SCALES = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class DNSMOSConfig(PlainConfig):
    """How many clips are judged."""

    most: Annotated[int, Field(ge=1)]


@register("metric", "dnsmos", DNSMOSConfig)
class DNSMOS(Metric):
    """``dnsmos``: Reddy et al., DNSMOS P.835, 2022, means from 1 to 5 over the first clips.

    It hears noise and distortion and is blind to meaning: speech that is reversed loses little.
    """

    takes: ClassVar[Takes] = {"fake": ("content",)}
    figures: ClassVar[Figures] = dict.fromkeys(("dnsmos_signal", "dnsmos_background", "dnsmos_overall"), "higher")
    judged: Any

    def __init__(self, config: DNSMOSConfig, width: int = 0) -> None:
        super().__init__(config, width)
        # Rows, and not their sum: which of them are the first of all is known once processes are joined.
        self.add_state("judged", default=[], dist_reduce_fx="cat")
        if find_spec("onnxruntime") is None or find_spec("speechmos") is None:
            hint = "pip install 'aigc-cli[speech]'; `aigc eval --metric fd,class_accuracy` needs nothing"
            raise ConfigError("dnsmos needs the packages speechmos and onnxruntime", hint)

    def update(self, stream: Stream, clips: Tensor, *originals: Tensor) -> None:
        """Judges clips (n, channels, samples), as long as there are fewer than `most`."""
        import soxr

        if self.spec is None or self.spec.rate is None:
            raise DataError("dnsmos judges sound", "leave it out")
        for clip in clips[: max(0, self.config.most - len(self.judged))]:
            heard = clip[:, : int(lengths(clip[None]).clamp_min(1))].double().mean(dim=0).div(FULL).cpu().numpy()
            wave = soxr.resample(heard, self.spec.rate, _RATE, quality="HQ").astype(np.float32)
            whole = np.resize(wave if len(wave) else np.zeros(1, np.float32), int(_SECONDS * _RATE))
            raw = _session().run(None, {"input_1": whole[None]})[0][0]
            scores = [np.polyval(s, x) for s, x in zip(_SCALES, raw, strict=True)]
            self.judged.append(torch.tensor([scores], dtype=torch.float64))

    def compute(self) -> dict[str, Tensor]:
        """The means."""
        require(len(self._first), 1, "generated", "dnsmos", "give more clips with n=")
        return dict(zip(self.figures, self._first.mean(dim=0), strict=True))

    def facts(self) -> dict[str, Any]:
        """How many were judged, and what it does not hear."""
        return {"judged": len(self._first), "signature": "DNSMOS P.835, blind to what is said"}

    @property
    def _first(self) -> Tensor:
        return joined(self.judged, len(_SCALES), torch.float64)[: self.config.most]


_sessions: list[Any] = []


def _session() -> Any:
    """The network, which is read once: a copy of a metric cannot hold it."""
    if not _sessions:
        from importlib import import_module

        runtime, place = import_module("onnxruntime"), find_spec("speechmos")
        assert place is not None, "the metric has looked"
        assert place.submodule_search_locations is not None, "it is a package"
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        path = Path(next(iter(place.submodule_search_locations))) / _FILE
        _sessions.append(runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    return _sessions[0]
