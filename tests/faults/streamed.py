"""A small run whose pictures are read as they are needed, so that processes may read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

STREAMED = [
    "model=vae", "model.network=conv", "model.width=4", "model.hidden=16", "data=image_folder", "data.root=pictures",
    "data.size=8", "data.memory_gb=1e-6", "trainer.batch_size=5", "trainer.checkpoint_every=7", "trainer.device=cpu",
    "trainer.sample_every=null", "trainer.examine_every=null", "trainer.threads=1", "recipe=null",
]  # fmt: skip


def paint(folder: Path, count: int = 48) -> Path:
    """Pictures of noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder
