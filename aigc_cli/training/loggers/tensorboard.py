"""TensorBoard: event files in the run's own folder, for ``tensorboard --logdir outputs``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import soundfile
from PIL import Image

from aigc_cli.registry import register
from aigc_cli.training.loggers.base import Start

_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


@register("logger", "tensorboard")
class TensorBoard:
    """Pictures and clips are handed on as they are: what draws the page, a browser, reads them itself."""

    module: ClassVar[str] = "tensorboard"
    rewinds: ClassVar[bool] = True

    def __init__(self, start: Start) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.id, self.where = start.id, str(start.folder / "tensorboard")
        self._board: Any = SummaryWriter(self.where, purge_step=start.step + 1)
        if not start.known:
            self._board.add_text("configuration", _preformatted(json.dumps(start.config, indent=2)), 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to each curve."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def sample(self, step: int, name: str, path: Path) -> None:
        """Adds a picture, clip, sound or text."""
        if path.suffix == ".txt":
            self._board.add_text(name, _preformatted(path.read_text()), step)
        elif path.suffix in (".png", ".gif"):
            self._put(step, name, image=_picture(path))
        elif path.suffix == ".wav":
            about = soundfile.info(path)
            audio = {
                "sample_rate": about.samplerate, "num_channels": about.channels, "length_frames": about.frames,
                "encoded_audio_string": path.read_bytes(), "content_type": "audio/wav",
            }  # fmt: skip
            self._put(step, name, audio=audio)

    def _put(self, step: int, name: str, **content: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        value = Summary.Value(tag=name, **content)
        self._board._get_file_writer().add_summary(Summary(value=[value]), step)

    def close(self, status: str) -> None:
        """Flushes the file."""
        self._board.close()


def _picture(path: Path) -> dict[str, Any]:
    with Image.open(path) as picture:
        size, channels = picture.size, _CHANNELS.get(picture.mode, 3)
    return {"width": size[0], "height": size[1], "colorspace": channels, "encoded_image_string": path.read_bytes()}


def _preformatted(text: str) -> str:
    """Text as Markdown that shows it as it is."""
    return "".join(f"    {line}\n" for line in text.splitlines())
