"""Small models of every family and preset, by name: what tests and the table of docs/export.md export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from text_runs import write_pairs
from untrained import text, untrained

DIGITS = ["data=digits", "data.size=8"]
CLIPS = ["data=moving_digits", "data.size=16", "data.frames=4"]
WAVES, SPECTRA = ["data=tones", "data.codec.kind=waveform"], ["data=tones", "data.codec.kind=mel"]
TOLD, MAPS = ["model.conditional=true"], ["model.width=8", "model.max_width=16"]
DECODES = ["codes_decoder", "model"]
BOTH = ["decoder", "encoder"]
TEXT = ["model.layers=1", "model.heads=2", "model.width=16"]
SPEECH = ["data=fsdd", "data.root=digits", "data.seconds=0.3", "data.val_fraction=0.1", "data.codes=16"]
CODES = ["model.width=8", "model.blocks=1", "model.codes=16"]
VQVAE = ["model=vqvae", *DIGITS, *CODES, "model.downsampling=2"]
PLAIN = ["model.style.qk_norm=false"]
CLASSIC = ["model.style.norm=layer", "model.style.positions=learned", "model.style.mlp=gelu", "model.style.bias=true"]
#: The words of each, with the parts that it becomes. The first few are exported by every run of the tests.
ALWAYS = ("gan (mlp)", "transformer")
EVERYTHING: dict[str, tuple[list[str], list[str]]] = {
    "gan (mlp)": (["model=gan", *DIGITS, "model.network=mlp", "model.hidden=16", *TOLD], ["generator"]),
    "transformer": (["model=transformer", *TEXT], ["model"]),
    "gan (dcgan)": (["model=dcgan", *DIGITS, *MAPS, *TOLD], ["generator"]),
    "gan (sngan)": (["model=sngan", *DIGITS, *MAPS, "model.discriminator_width=8", *TOLD], ["generator"]),
    "gan (wgan_gp)": (["model=wgan_gp", *DIGITS, *MAPS], ["generator"]),
    "gan (biggan)": (["model=biggan", *DIGITS, *MAPS], ["generator"]),
    "gan (r3gan_small)": (["model=r3gan_small", *DIGITS, *MAPS, *TOLD], ["generator"]),
    "gan on clips": (["model=gan", *CLIPS, *MAPS, "model.network=dcgan3d"], ["generator"]),
    "wavegan": (["model=wavegan", *WAVES, "model.width=4", "model.max_width=16", *TOLD], ["generator"]),
    "specgan": (["model=specgan", "data=tones", "model.width=4", "model.max_width=16"], ["generator"]),
    "gan on text": (["model=gan_text", *TEXT], ["model"]),
    "vae": (["model=vae", *DIGITS, "model.width=4", "model.hidden=16", "model.prior=flow", *TOLD], BOTH),
    "vae (autoencoder)": (["model=autoencoder", *DIGITS, "model.width=4", "model.latent=4"], BOTH),
    "vae on clips": (["model=vae", *CLIPS, "model.width=4", "model.hidden=16", "model.network=conv3d"], BOTH),
    "hvae": (["model=hvae", *DIGITS, "model.width=8", "model.latent=2", *TOLD], BOTH),
    "vae on text": (["model=vae_text", *TEXT, "model.latent=4", "model.prior=flow"], BOTH),
    "vqvae": (VQVAE, BOTH),
    "vqvae on clips": (["model=vqvae", *CLIPS, *CODES, "model.time_downsampling=2"], BOTH),
    "vqvae on sound": (["model=vqvae", *SPECTRA, *CODES], BOTH),
    "flow": (["model=flow", *DIGITS, "model.width=8"], ["codec", "velocity"]),
    "flow (dit)": (["model=dit", *DIGITS, "model.width=16", "model.blocks=1", "model.heads=2"], ["codec", "velocity"]),
    "flow on latents": (
        ["model=flow", *DIGITS, "model.width=16", "data.latents=latents"], ["latents_decoder", "velocity"]
    ),
    "transformer (Llama)": (["model=transformer", *TEXT, *PLAIN], ["model"]),
    "transformer (GPT-2)": (["model=transformer", *TEXT, *PLAIN, *CLASSIC], ["model"]),
    "transformer on codes": (["model=transformer", *DIGITS, *TEXT, "data.tokens=codes1"], DECODES),
    "transformer on codes around": (
        ["model=transformer", *DIGITS, *TEXT, "data.tokens=codes1", "model.neighbours=2", "model.style.positions=grid"],
        DECODES,
    ),
    "transformer on 2 codebooks": (["model=transformer", *DIGITS, *TEXT, "data.tokens=codes2"], DECODES),
    "transformer on 4 codebooks": (["model=transformer", *DIGITS, *TEXT, "data.tokens=codes4"], DECODES),
    "bert": (["model=bert", *TEXT], ["model"]),
    "bert (EuroBERT)": (["model=bert", *TEXT, *PLAIN], ["model"]),
    "bert on codes": (["model=bert", *DIGITS, *TEXT, "data.tokens=codes1"], DECODES),
    "bert on 4 codebooks": (["model=bert", *DIGITS, *TEXT, "data.tokens=codes4"], DECODES),
    "transformer on sound": (["model=transformer", *SPEECH, *TEXT, "data.tokens=kmeans"], DECODES),
    "seq2seq on speech": (
        ["model=seq2seq", *SPEECH, "data.task=speech", "data.tokens=kmeans", *TEXT],
        ["codes_decoder", "decoder_model", "encoder_model"],
    ),
    "seq2seq": (["model=seq2seq", *TEXT], ["decoder_model", "encoder_model"]),
    "seq2seq (Blenderbot)": (["model=seq2seq", *TEXT, *PLAIN, *CLASSIC], ["decoder_model", "encoder_model"]),
}  # fmt: skip


def words_of(name: str, folder: Path) -> list[str]:
    """The words of one, with the data and the tokenizer that it needs, which are made in a folder."""
    words = list(EVERYTHING[name][0])
    asked = " ".join(words)
    for count in (1, 2, 4):
        if f"data.tokens=codes{count}" in words:
            untrained([*VQVAE, f"model.codebooks={count}"], f"codes{count}")
    if "data.latents=latents" in words:
        untrained(["model=vae", *DIGITS, "model.width=4", "model.network=resnet"], "latents")
    if "data=fsdd" in words:
        recordings(folder / "digits")
    elif "model=seq2seq" in words:
        return [*words, *write_pairs(folder)]
    return words if "data" in asked else [*words, *text(folder, "data.tokenizer.kind=char")]


def recordings(folder: Path) -> None:
    """Four recordings of each digit by two speakers: two tones whose pitch says which digit it is, and who speaks."""
    folder.mkdir()
    for digit in range(10):
        for place, speaker in enumerate(("george", "theo")):
            for number in range(4, 8):  # of which those below 5 are held out
                at = np.arange(1200 + 80 * number) / 8000 * 2 * np.pi
                wave = np.sin(at * (300 + 150 * digit)) + np.sin(at * (3000 + 500 * place))
                soundfile.write(folder / f"{digit}_{speaker}_{number}.wav", 0.2 * wave, 8000)
