"""Small data of every kind, and words that make any model small on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from toy_text import ToyText, documents, windows

from aigc_cli.config.compose import compose
from aigc_cli.data.images import ImageDataset
from aigc_cli.data.open import open_dataset
from aigc_cli.data.sounds import SoundDataset, SoundsConfig
from aigc_cli.modalities.audio_config import AudioCodecConfig

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
MODELS = sorted(path.stem for path in CONFIGS.glob("model/*.yaml"))  # presets too, which share a component


def images(channels, size, classes):
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, channels, size, size), dtype=torch.uint8, generator=random)
    labels = torch.arange(24) % classes if classes else None
    return ImageDataset(pixels, labels, [str(i) for i in range(classes)], views=["flip"] if channels == 3 else [])


def sounds(kind, channels, classes):
    """Clips of a few lengths, as spectrograms of 16x16 or 64x64, or as waveforms."""
    bins, hop = {"mel": (16, 256), "spectrogram": (64, 64), "waveform": (None, None)}[kind]
    codec = AudioCodecConfig(kind=kind, bins=bins, hop=hop)
    config = SoundsConfig(sample_rate=8000, seconds=0.512, channels=channels, normalize="none", codec=codec)
    random = np.random.default_rng(0)
    content = random.integers(-9000, 9000, (24, channels, config.samples)).astype(np.int16)
    for place in range(0, 24, 3):
        content[place, :, 900 + place :] = 0
    labels = np.arange(24) % classes if classes else None
    return SoundDataset(config, content, labels, classes=[str(i) for i in range(classes)])


def clips(frames, size, classes):
    words = ["data=moving_digits", "data.clips=24", f"data.frames={frames}", f"data.size={size}", "data.sprite=7"]
    words += ["data.speed=[0.5,2.0]", f"data.labels={'digit' if classes else 'none'}"]
    return open_dataset(compose("data", words)["data"], "train")


#: Datasets of each kind, by modality.
KINDS = {
    "video": [clips(8, 16, True), clips(4, 32, False), clips(8, 16, True), clips(8, 16, False)],
    "audio": [sounds("mel", 1, 10), sounds("waveform", 1, 0), sounds("mel", 2, 10), sounds("spectrogram", 1, 0)],
    "image": [images(1, 8, 10), images(1, 16, 0), images(3, 32, 10), images(3, 64, 0)],
    "text": [ToyText(rows) for rows in (windows(24, 2), windows(24, 17), documents(24, 9), documents(24, 33))],
    "text from text": [
        ToyText(documents(24, n), documents(24, m, seed=5)) for n, m in ((4, 4), (9, 9), (6, 12), (12, 6))
    ],
}

#: What makes a model small, where it has such a key and it says more.
SMALL = {"width": 8, "max_width": 32, "discriminator_width": 8}


def small(name, dataset, everything):
    """Words for a model that trains fast on `dataset`, and conditional on labels if it always is or `everything`."""
    keys = compose("train", [f"model={name}", "data=image_folder"])["model"]
    large = {key: most for key, most in SMALL.items() if isinstance(keys.get(key), int) and keys[key] > most}
    words = [f"model.{key}={most}" for key, most in large.items()]
    if "conditional" in keys:
        conditional = bool(dataset.spec.classes) and (keys["conditional"] or everything)
        words.append(f"model.conditional={str(conditional).lower()}")
    return [f"model={name}", "data=image_folder", *words]
