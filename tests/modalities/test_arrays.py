"""Arrays in archives: samples of any shape are written; what strangers packed is read or refused, but never run."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from aigc_cli.errors import DataError, ResourceError
from aigc_cli.modalities import arrays
from aigc_cli.modalities.arrays import ArrayWriter, array_names, read_arrays
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.samples import Arrangement, Provenance

LABELLED = Arrangement(n=5, labels=[0, 1, 0, 1, 0], classes=("a", "b"))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4, 5)], ids=str)
def test_an_array_of_any_shape_comes_back(
    tmp_path: Path, provenance: Callable[..., Provenance], dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    raw = (torch.rand(5, *shape) * 99).to(dtype)
    with ArrayWriter(tmp_path, LABELLED, provenance(), ImageCodec()) as writer:
        writer.write(raw[:2])
        writer.write(raw[2:])
        assert writer.finish() == (["samples.npz"], [])
    ArrayWriter.preview(tmp_path / "a" / "step-1.npz", iter([raw[:2], raw[2:]]), LABELLED, ImageCodec(), "step 1")
    for path in (tmp_path / "samples.npz", tmp_path / "a" / "step-1.npz"):
        with np.load(path, allow_pickle=False) as found:
            assert found["samples"].dtype == raw.numpy().dtype
            assert np.array_equal(found["samples"], raw.numpy())
            assert found["classes"][found["labels"]].tolist() == ["a", "b", "a", "b", "a"]


def read(path: Path, *names: str) -> dict[str, np.ndarray]:
    return read_arrays(path, names or ("images",), "images", "hint")


def packed(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("images.npy", content)
    return path


def header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def test_the_arrays_that_are_there_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, mu=np.arange(3), sigma=np.eye(3))
    assert array_names(path) == ["mu", "sigma"]
    found = read(path, "mu", "n")
    assert list(found) == ["mu"]
    assert found["mu"].tolist() == [0, 1, 2]


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


def _objects(path: Path) -> None:
    np.savez(path, images=np.array([Evil()], dtype=object))


def _text(path: Path) -> None:
    path.write_text("hello")


def _a_lone_array(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)


def _cut_short(path: Path) -> None:
    np.savez(path, images=np.zeros(3000))
    path.write_bytes(path.read_bytes()[:2000])


def _flipped(path: Path) -> None:
    np.savez(path, images=np.zeros(3000))
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF
    path.write_bytes(content)


def _broken_header(path: Path) -> None:
    packed(path, b"\x93NUMPY\x01\x00\x10\x00{'descr': garbage")


def _short_of_its_header(path: Path) -> None:
    packed(path, header((10, 10)) + b"0")


@pytest.mark.parametrize(
    "break_it",
    [_pickle, _objects, _text, _a_lone_array, _cut_short, _flipped, _broken_header, _short_of_its_header],
    ids=lambda f: f.__name__,
)
def test_what_cannot_be_trusted_is_refused(tmp_path: Path, break_it) -> None:  # type: ignore[no-untyped-def]
    break_it(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz cannot be read as images") as caught:
        read(tmp_path / "a.npz")
    assert "allow_pickle=`" not in str(caught.value)  # NumPy advises to load what is not trusted


def test_what_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = packed(tmp_path / "bomb.npz", header((10**6,)) + bytes(10**6), zipfile.ZIP_DEFLATED)
    noise = np.random.default_rng(0).integers(0, 256, 10**6, dtype=np.uint8).tobytes()
    large = packed(tmp_path / "large.npz", header((10**6,)) + noise, zipfile.ZIP_DEFLATED)
    assert read(bomb)["images"].shape == (10**6,)  # small enough to do no harm
    monkeypatch.setattr(arrays, "_MOST_BYTES", 10**5)
    with pytest.raises(DataError, match="unpacks to 1,000,128 bytes"):
        read(bomb)
    assert read(large)["images"].shape == (10**6,)


def test_an_array_larger_than_the_memory_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="does not fit in memory"):
        read(packed(tmp_path / "a.npz", header((10**8, 10**8)) + b"0"))
