import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from aigc_cli.modalities.audio_writers import write_clip
from aigc_cli.modalities.credentials import Signature, Signer, make_identity, read_signature
from aigc_cli.modalities.explicit import announced, marked
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.image_writers import JPEGWriter, PNGWriter, WebPWriter
from aigc_cli.modalities.labels import embed, read_label, xmp_packet
from aigc_cli.modalities.likeness import _READ, compared
from aigc_cli.modalities.samples import DIGITAL_SOURCE_TYPE, LABEL, ORIGINAL, ROLE, Arrangement, Provenance
from aigc_cli.modalities.video import VideoModality
from aigc_cli.modalities.video_codec import VideoCodec

ABOUT = {"label": LABEL, "model_checksum": "ab" * 32, "seed": 3, "index": 1, "controls": {"prompt": "<\"a\" & 'b'> 字"}}


def film(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for _ in range(3):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8), format="rgb24")))
        file.mux(stream.encode())
    return path


def one_of_each(folder: Path, provenance: Callable[..., Provenance]) -> dict[str, Path]:
    """A file of every format, labelled, by its suffix."""
    raw = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    paths = {}
    for writer in (PNGWriter, JPEGWriter, WebPWriter):
        own = folder / writer.suffix
        own.mkdir()
        files = writer(own, Arrangement(n=2), provenance(controls=ABOUT["controls"]), ImageCodec())
        files.write(raw)
        paths[writer.suffix] = own / files.finish()[0][1]
    (own := folder / "clips").mkdir()
    told = provenance(controls=ABOUT["controls"], explicit=True, watermark="ab12")
    clips = VideoModality().writers["webp"](own, Arrangement(n=2), told, VideoCodec((1, 4, 16, 16), 10))
    clips.write(raw.reshape(2, -1)[:, :, None, None, None].expand(-1, -1, 4, 16, 16)[:, :1])
    paths["clip"] = own / clips.finish()[0][1]
    clip = torch.arange(-800, 801, dtype=torch.int16)[None]  # an odd number of bytes follows it
    for kind in ("WAV", "FLAC"):
        write_clip(path := folder / f"a.{kind.lower()}", clip, 8000, kind, "a sentence", ABOUT)
        paths[kind.lower()] = path
    frames = [Image.fromarray(np.full((8, 8), grey, dtype=np.uint8)) for grey in (0, 128, 255)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    embed(folder / "a.gif", xmp_packet(ABOUT, DIGITAL_SOURCE_TYPE), "GIF")
    paths["gif"] = folder / "a.gif"
    if find_spec("av") is not None:
        paths["mp4"] = film(folder / "a.mp4")
        embed(paths["mp4"], xmp_packet(ABOUT, DIGITAL_SOURCE_TYPE), "MP4")
    return paths


def test_every_format_says_that_a_model_made_it_and_holds_the_same(
    tmp_path: Path, provenance: Callable[..., Provenance]
) -> None:
    paths = one_of_each(tmp_path, provenance)
    for path in paths.values():
        label = read_label(path)
        assert label["digital_source_type"] == DIGITAL_SOURCE_TYPE, path
        assert label["gb45438"] == {
            **dict.fromkeys(("ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2"), ""),
            "Label": "1", "ContentProducer": label["gb45438"]["ContentProducer"], "ProduceID": "ab" * 8 + "-3-1",
        }  # fmt: skip
        assert label["provenance"]["controls"] == ABOUT["controls"]
    for kind in ("wav", "flac"):
        assert soundfile.read(paths[kind], dtype="int16")[0].tolist() == list(range(-800, 801))
    with Image.open(paths["gif"]) as image:
        assert image.n_frames == 3
    assert len(np.unique(np.asarray(Image.open(paths["webp"])))) > 100


def check_by_exiftool(paths: Iterable[Path], known: str = "") -> None:
    """Asserts that a program of others reads the labels, and that no file breaks the rules of its format; `known` is
    the warning of one that does."""
    command = ["exiftool", "-json", "-G0", "-warning", "-DigitalSourceType", "-AIGC", *map(str, paths)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for read in found:
        kind = Path(read["SourceFile"]).suffix
        source = read.get("XMP:DigitalSourceType", read.get("Vorbis:Digitalsourcetype"))
        assert source == DIGITAL_SOURCE_TYPE, kind
        label: Any = read["Vorbis:Aigc" if kind == ".flac" else "XMP:Aigc"]
        assert (label if isinstance(label, dict) else json.loads(label))["Label"] in ("1", 1), kind
        assert not any("Warning" in key and text != known for key, text in read.items()), (kind, read)


EXIFTOOL = pytest.mark.skipif(shutil.which("exiftool") is None, reason="no exiftool")


@EXIFTOOL
def test_exiftool_reads_the_labels_of_every_format(tmp_path: Path, provenance: Callable[..., Provenance]) -> None:
    check_by_exiftool(one_of_each(tmp_path, provenance).values())


@EXIFTOOL
def test_exiftool_reads_the_labels_of_every_format_once_it_is_signed(
    tmp_path: Path, provenance: Callable[..., Provenance]
) -> None:
    pytest.importorskip("c2pa")
    pytest.importorskip("cryptography")
    make_identity(tmp_path / "id", "A. Person")
    signer, paths = Signer(tmp_path / "id"), one_of_each(tmp_path, provenance)
    plain = {kind: path.read_bytes() for kind, path in paths.items()}
    for path in paths.values():
        signer.sign(path, ABOUT)
    # The credentials of a FLAC are an ID3 tag in front, whose sizes c2pa writes otherwise than exiftool reads them.
    check_by_exiftool(paths.values(), known="Invalid ID3 frame size")
    for kind, path in paths.items():
        assert read_label(path)["provenance"]["controls"] == ABOUT["controls"], kind
        assert compared(path, path).same
        signature = read_signature(path, tmp_path / "id")
        assert isinstance(signature, Signature), kind
        assert (signature.valid, signature.trusted, signature.problems) == (True, True, ()), kind
        content, signed = plain[kind], path.read_bytes()
        parts = [content[at : at + 16] for at in range(64, len(content) - 16, len(content) // 20)]
        places = [signed.index(part) for part in parts if signed.count(part) == 1]  # not in the credentials
        assert len(places) >= 8, kind
        for at in places:
            path.write_bytes(signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :])
            signature = read_signature(path)
            assert not isinstance(signature, Signature) or not signature.valid, (kind, at)
            assert isinstance(signature, Signature) or "cannot be read" in str(signature), (kind, at)


def test_an_original_has_no_label(tmp_path: Path, provenance: Callable[..., Provenance]) -> None:
    facts = {ROLE: [ORIGINAL, "reconstruction"]}
    writer = PNGWriter(tmp_path, Arrangement(n=2, facts=facts, group=2, named=(ROLE,)), provenance(), ImageCodec())
    writer.write(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    (original, made), _ = writer.finish()
    assert read_label(tmp_path / original) == {}
    assert "gb45438" in read_label(tmp_path / made)


@pytest.mark.parametrize(
    "content", [b"", b"<x:xmpmeta", b'<x:xmpmeta aigc:Provenance="{" TC260:AIGC="[1]"></x:xmpmeta>']
)
def test_a_file_without_a_label_or_with_a_broken_one_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert read_label(tmp_path / "a.png") == {}


@pytest.mark.parametrize(("mode", "side"), [("L", 8), ("RGB", 32), ("RGB", 128), ("LA", 256)])
def test_the_words_on_a_picture_can_be_seen_and_leave_it_whole(mode: str, side: int) -> None:
    picture = Image.new(mode, (side, side), 128 if mode == "L" else None)
    made = marked(picture)
    assert made.width >= side
    top = np.asarray(made)[: side // 2, (made.width - side) // 2 : (made.width - side) // 2 + side]
    assert np.array_equal(top, np.asarray(picture.convert(made.mode))[: side // 2])
    assert np.asarray(made).max() > 240


def test_sound_is_announced_by_morse_signs() -> None:
    clip = np.arange(100, dtype=np.int16)[None]
    made = announced(clip, 8000)
    assert np.array_equal(made[:, -100:], clip)
    dot = round(0.06 * 8000)
    loud = [int(np.abs(made[0, n * dot + dot // 4 : n * dot + dot // 2]).max() > 1000) for n in range(10)]
    assert "".join(map(str, loud)) == "1011100101"


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
@pytest.mark.parametrize("explicit", [False, True])
def test_clips_are_labelled_too(
    tmp_path: Path, suffix: str, explicit: bool, provenance: Callable[..., Provenance]
) -> None:
    if suffix == "mp4":
        pytest.importorskip("av")
    made = provenance(modality="video", format=suffix, explicit=explicit)
    writer = VideoModality().writers[suffix](tmp_path, Arrangement(n=1), made, VideoCodec((1, 4, 16, 16), 10))
    writer.write(torch.zeros(1, 1, 4, 16, 16, dtype=torch.uint8))
    (name,), _ = writer.finish()
    assert read_label(tmp_path / name)["gb45438"]["Label"] == "1"
    assert compared(tmp_path / name, tmp_path / name).same
    frames = _READ[f".{suffix}"](tmp_path / name)
    assert (frames[:, :, :, 0].max() > 100) == explicit
