"""Published images: CIFAR-10, MNIST and Fashion-MNIST as torchvision knows them, and the digits of scikit-learn."""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.cache import Published, cache_dir, digest_of, find_root, unpack
from aigc_cli.data.images import ImageDataset, ImagesConfig, counted, rescale
from aigc_cli.data.parquet import parts_of, read_columns
from aigc_cli.data.pictures import decode_once
from aigc_cli.data.splits import Cut, CutConfig, Fraction, rows_of
from aigc_cli.errors import DataError
from aigc_cli.files import walk_files
from aigc_cli.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    Labelled = tuple[Tensor, np.ndarray]  # uint8 (n, c, h, w) and int64 (n,)

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TESTS = 10_000  # in the test part of each that is published with one
LARGEST_IDX = 1 << 27  # bytes; the largest of the files has 47 million


@dataclass(config=STRICT, frozen=True, kw_only=True)
class PublishedConfig(ImagesConfig):
    """The keys of ``configs/data/cifar10.yaml``, ``mnist.yaml`` and ``fashion_mnist.yaml``."""

    name: Literal["cifar10", "mnist", "fashion_mnist"]
    root: str | None
    val_fraction: Fraction


@register("data", "cifar10", PublishedConfig)
def cifar10(config: PublishedConfig, split: Split) -> Dataset:
    """60,000 photographs of 32x32 in 10 classes (Krizhevsky 2009); its own test part, validation cut from training.

    `root` may hold the Hugging Face parquet files, ``cifar-10-batches-py`` or ``cifar-10-python.tar.gz``. torchvision
    unpickles its batches only after their sums were found right.
    """
    root = None if config.root is None else find_root(config.root)
    copied = root is not None and any(name.endswith(".parquet") for name in (root.name, *dict(walk_files(root))))
    if root is not None and copied:
        found = _cifar10_parquet(root, train=split != "test")
    else:
        found = _cifar10_batches(_cifar10_home(root), train=split != "test")
    dataset = _split_of(config, split, found, CIFAR10_CLASSES)
    dataset.original = not copied and config.size == 32  # parquet may hold lossy copies
    return dataset


def _cifar10_parquet(root: Path, *, train: bool) -> Labelled:
    import torch

    groups, _ = parts_of(root)
    if not {"train", "test"} <= set(groups):
        raise DataError(
            f"{root} lacks train-*.parquet or test-*.parquet",
            "download both parts of https://huggingface.co/datasets/uoft-cs/cifar10 into it",
        )
    paths = groups["train" if train else "test"]
    files = read_columns({"train": paths}, (3, 32, 32))[0]["train"]
    if files.labels is None or files.labels.max() >= len(CIFAR10_CLASSES):
        raise DataError(f"{paths[0]} does not hold the labels of CIFAR-10", "for other images use data=parquet")
    pixels = decode_once(files, cache_dir() / "data" / "cifar10" / f"pixels-{digest_of(files.identity)[:16]}.npy")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to it
        return torch.from_numpy(pixels), files.labels


def _cifar10_home(root: Path | None) -> Path:
    """The folder with ``cifar-10-batches-py`` in it, downloaded and unpacked where that has to be."""
    from torchvision.datasets import CIFAR10

    batches, archive = CIFAR10.base_folder, Published(CIFAR10.filename, [CIFAR10.url], {"md5": CIFAR10.tgz_md5})
    unpacked = cache_dir() / "data" / "cifar10" / "unpacked"
    for place in [unpacked] if root is None else [root, root.parent]:
        if (place / batches).is_dir() and root in (None, place, place / batches):
            return place
    if root is None:
        packed = archive.find(None, unpacked.parent)
    else:
        packed = root if root.is_file() else root / archive.name
        if not packed.is_file():
            raise archive.missing(root, f", nor {batches}/, nor train-*.parquet and test-*.parquet")
        archive.checked(packed)
    if (unpacked / batches).is_dir():  # torchvision looks at the sum of each of its files
        return unpacked
    return unpack(packed, unpacked, max_bytes=10**9)


def _cifar10_batches(home: Path, *, train: bool) -> Labelled:
    import torch
    from torchvision.datasets import CIFAR10

    try:
        batches = CIFAR10(home, train=train, download=False)
    except (RuntimeError, OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(
            f"{home / CIFAR10.base_folder} is damaged: {error}",
            f"remove it and unpack {CIFAR10.url} (md5 {CIFAR10.tgz_md5}) again",
        ) from error
    return torch.from_numpy(batches.data).permute(0, 3, 1, 2), np.array(batches.targets, dtype=np.int64)


@register("data", "mnist", PublishedConfig)
def mnist(config: PublishedConfig, split: Split) -> ImageDataset:
    """70,000 handwritten digits of 28x28 (LeCun et al. 1998); its own test part, validation cut from training."""
    return _idx_dataset(config, split, "MNIST", [str(digit) for digit in range(10)])


@register("data", "fashion_mnist", PublishedConfig)
def fashion_mnist(config: PublishedConfig, split: Split) -> ImageDataset:
    """70,000 pictures of clothes of 28x28 (Xiao et al. 2017); its own test part, validation cut from training."""
    from torchvision.datasets import FashionMNIST

    return _idx_dataset(config, split, "FashionMNIST", FashionMNIST.classes)


def _idx_dataset(config: PublishedConfig, split: Split, kind: str, classes: Sequence[str]) -> ImageDataset:
    import torch
    import torchvision
    from torch.nn.functional import pad

    source, part = getattr(torchvision.datasets, kind), "t10k" if split == "test" else "train"
    found = []
    for file, md5 in source.resources:
        if file.startswith(part):
            published = Published(file, [mirror + file for mirror in source.mirrors], {"md5": md5})
            found.append(published.find(config.root, cache_dir() / "data" / config.name, (f"{kind}/raw", "raw", "")))
    images, labels = _read_idx(found[0], 3), _read_idx(found[1], 1)
    if len(images) != len(labels) or labels.max() >= len(classes):
        raise DataError(f"{found[0]} and {found[1].name} do not belong together", "remove them and get them again")
    content = torch.from_numpy(images).unsqueeze(1)
    if config.size == 32:
        content = pad(content, (2, 2, 2, 2))  # the customary way to a power of two: no pixel is changed
    return _split_of(config, split, (content, labels.astype(np.int64)), classes)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of bytes in a file of MNIST's format: a magic number, its sizes, its content; all big-endian; raises
    DataError where it is damaged."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytearray(file.read(LARGEST_IDX + 1))
        magic, *shape = np.frombuffer(content, ">i4", 1 + dimensions).tolist()
        if magic != 0x800 + dimensions or len(content) > LARGEST_IDX:
            raise ValueError(f"it does not hold bytes in {dimensions} dimensions")
        return np.frombuffer(content, np.uint8, offset=4 * (1 + dimensions)).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}", "remove it and get it again") from error


def _split_of(config: PublishedConfig, split: Split, found: Labelled, classes: Sequence[str]) -> ImageDataset:
    """The test part as it is, or the share of the training part that `split` takes."""
    import torch

    content, labels = found
    rows, notes = np.arange(len(content)), []
    if split != "test":
        cut = Cut(val=config.val_fraction)
        rows = rows_of(split, len(content), cut, config.name)
        vals = round(len(content) * cut.val)
        notes = [counted({"train": len(content) - vals, "val": vals, "test": TESTS})]
    index = torch.from_numpy(rows)
    chosen = rescale(content[index].contiguous(), config.size)
    usual = {"flip"} if config.name == "cifar10" else ()  # a mirrored digit is none
    about: dict[str, Any] = {"views": config.views, "usual": usual, "notes": notes}
    return ImageDataset(chosen, torch.from_numpy(labels)[index], classes, **about)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class DigitsConfig(ImagesConfig, CutConfig):
    """See ``configs/data/digits.yaml``."""

    name: Literal["digits"]


@register("data", "digits", DigitsConfig)
def digits(config: DigitsConfig, split: Split) -> ImageDataset:
    """1,797 scans of 8x8 with 17 grey levels (UCI ML hand-written digits, Alpaydin and Kaynak 1998), rescaled."""
    import torch

    package = find_spec("sklearn")  # which takes a second to import, and its table less than a tenth to read
    assert package is not None
    (folder,) = package.submodule_search_locations or []
    table = np.loadtxt(Path(folder, "datasets", "data", "digits.csv.gz"), delimiter=",")
    scans, targets = table[:, :-1], table[:, -1]
    rows = rows_of(split, len(scans), config.cut, "digits")
    vals, tests = (round(len(scans) * share) for share in config.cut)
    notes = [counted({"train": len(scans) - vals - tests, "val": vals, "test": tests})]
    pixels = np.round(scans[rows].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    content = rescale(torch.from_numpy(pixels), config.size)
    labels = torch.from_numpy(targets[rows].astype(np.int64))
    return ImageDataset(content, labels, [str(digit) for digit in range(10)], views=config.views, notes=notes)
