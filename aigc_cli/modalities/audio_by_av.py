"""What libsndfile has no reader for, by FFmpeg: AAC, and sound in containers of video."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from aigc_cli.modalities.unreadable import Unreadable

_CLOCK = re.compile(r"(\d+):(\d+):([\d.]+)")
_ADDED = 0.1  # seconds that encoders put before and behind, and that headers count


@contextmanager
def opened_by_av(given: IO[bytes]) -> Iterator[tuple[int, int, int, Iterator[np.ndarray]]]:
    """The rate and the channels of a file, its frames by its header, and all of it, float32 (n, channels) at a time."""
    import av

    with av.open(given, "r") as container:
        if not container.streams.audio:
            raise Unreadable("it holds no sound")
        stream = container.streams.audio[0]
        planes = av.AudioResampler(format="fltp")

        def blocks() -> Iterator[np.ndarray]:
            for frame in container.decode(stream):
                for part in planes.resample(frame):
                    yield np.ascontiguousarray(part.to_ndarray().T)

        yield stream.rate, stream.channels, _promised(container, stream), blocks()


def _promised(container: Any, stream: Any) -> int:
    """The frames that a file has by its header; 0 where that does not say, or only guesses, as of AAC by itself."""
    if container.format.name == "aac":
        return 0
    seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if found := _CLOCK.match(stream.metadata.get("DURATION", "")):  # as Matroska has it, of each stream
        seconds = sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True))
    elif not seconds and len(container.streams) == 1:
        seconds = (container.duration or 0) / 1e6
    return max(0, round((seconds - _ADDED) * float(stream.rate)))
